"""HTTP requests to backends: the only part of `serve` that opens connections.

Importing it without the `serve` extra raises `MissingDependencyError`.
"""

from importlib.util import find_spec

from batuta_cli.errors import MissingDependencyError

for _needed in ("aiohttp", "orjson"):
    if find_spec(_needed) is None:
        raise MissingDependencyError(
            f"to send requests, batuta needs {_needed}", hint="pip install 'batuta-cli[serve]'"
        )
