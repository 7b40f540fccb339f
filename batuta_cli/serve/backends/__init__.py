"""Backends: the known kinds, the configured backends, and recommendations."""

from batuta_cli.serve.backends.configured import Backend, configured_backends, default_backend
from batuta_cli.serve.backends.kinds import ServingBackend, profile
from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.backends.selector import BackendSelector

__all__ = [
    "Backend",
    "BackendSelector",
    "Profile",
    "ServingBackend",
    "configured_backends",
    "default_backend",
    "profile",
]
