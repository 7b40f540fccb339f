"""How backends are spoken to: the only part of `serve` that opens connections.

Importing it without aiohttp raises `MissingDependencyError`.
"""

from importlib.util import find_spec

from batuta_cli.errors import MissingDependencyError

if find_spec("aiohttp") is None:
    raise MissingDependencyError("to send requests, batuta needs aiohttp", hint="pip install 'batuta-cli[serve]'")
