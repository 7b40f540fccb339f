"""The gateway: OpenAI's and Anthropic's APIs over HTTP, answered by the pipeline.

`application` is for any ASGI server: `uvicorn --factory batuta_cli.serve.gateway:application`. `server.serve` is what
`batuta serve gateway` runs. Nothing of the `serve` extra is imported before it is asked for.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from batuta_cli.errors import MissingDependencyError

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.gateway.app import Gateway
    from batuta_cli.serve.gateway.logs import Log

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus-client learns that there are several workers, read when it is imported."""

_NEEDED = ("aiohttp", "orjson", "prometheus_client", "uvicorn", "httptools", "uvloop")


def check_dependencies() -> None:
    """Raise `MissingDependencyError` when the `serve` extra is not installed."""
    for name in _NEEDED:
        try:
            found = find_spec(name) is not None
        except ValueError:  # a module that says that it is none
            found = False
        if not found:
            raise MissingDependencyError(
                f"the gateway needs {name}, which is not installed", hint="pip install 'batuta-cli[serve]'"
            )


def application(config: "Config | None" = None, *, log: "Log | None" = None) -> "Gateway":
    """The gateway of a configuration, by default the user's, with a log of its own unless one is given.

    Raises `ConfigError` and `MissingDependencyError`.
    """
    check_dependencies()
    from batuta_cli import config as configuration
    from batuta_cli.serve.gateway.app import Gateway, GatewaySettings
    from batuta_cli.serve.gateway.connection import ConnectionLimits
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.tiers import PrivacyTier

    config = config or configuration.load()
    table = config.gateway
    limits = ConnectionLimits(table.max_body_bytes, table.client_seconds)
    settings = GatewaySettings(PrivacyTier(config.privacy.tier), table.origins, limits)

    def open_pipeline() -> Pipeline:
        return Pipeline(config, watch=True)

    return Gateway(open_pipeline, settings, log=log)
