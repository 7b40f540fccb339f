"""Probing backends for `serve backends --probe` and `serve route`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batuta_cli.cli import console
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.privacy.audit import AuditLog
    from batuta_cli.serve.providers.probe import ProbeResult
    from batuta_cli.serve.tiers import PrivacyTier


def probed(backends: "Sequence[Backend]", tier: "PrivacyTier", settings: "Config") -> "dict[str, ProbeResult]":
    """The probe results by backend name, in the given order. Raises `AuditError`, `MissingDependencyError`."""
    from batuta_cli.serve.privacy.audit import AuditLog, AuditPolicy
    from batuta_cli.serve.privacy.gate import Networks
    from batuta_cli.serve.providers.probe import probe

    log = AuditLog(policy=AuditPolicy.from_config(settings.audit))
    networks = Networks.configured(settings)
    found = probe(backends, tier, networks=networks, audit=log, proxy=settings.network.proxy)
    warn_if_lost(log)
    return {result.backend.name: result for result in found}


def named_backend(name: str, backends: "Sequence[Backend]", *, configured: bool = False) -> "Backend":
    """The backend called `name`: one of `backends`, or, unless `configured`, any kind at its usual address.

    Raises `UsageError` that suggests the nearest name.
    """
    from batuta_cli.serve.backends import ServingBackend, default_backend
    from batuta_cli.serve.names import normalised, unknown_name

    for backend in backends:
        if normalised(backend.name) == normalised(name):
            return backend
    kind = next((kind for kind in ServingBackend if normalised(kind) == normalised(name)), None)
    if kind is not None and kind.has_usual_address and not configured:
        return default_backend(kind)
    known = [backend.name for backend in backends]
    raise unknown_name("backend", name, known if configured else dict.fromkeys([*known, *ServingBackend]))


def warn_if_lost(log: "AuditLog") -> None:
    """Warn when decisions of the privacy gate could not be logged, which does not stop standard requests."""
    if log.lost:
        console.warn(
            f"{display(str(log.directory))}: cannot write the audit log; sovereign and private requests are refused"
        )
