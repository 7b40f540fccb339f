"""The gateway: an HTTP server with the APIs of OpenAI, Anthropic and Ollama, in front of the pipeline.

`application` makes the ASGI application, for any ASGI server. `server.serve` is what `batuta serve gateway` runs.
Importing this package does not import the packages of the `serve` extra.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from batuta_cli.errors import MissingDependencyError

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.gateway.app import Gateway
    from batuta_cli.serve.gateway.logs import Log

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that switches prometheus-client to several processes. It is read at import."""

_REQUIRED = ("aiohttp", "orjson", "prometheus_client", "uvicorn", "httptools", "uvloop")


def check_dependencies() -> None:
    """Raise `MissingDependencyError` when the `serve` extra is not installed."""
    for name in _REQUIRED:
        try:
            installed = find_spec(name) is not None
        except ValueError:  # `sys.modules` has None for it
            installed = False
        if not installed:
            raise MissingDependencyError(
                f"the gateway needs {name}, which is not installed", hint="pip install 'batuta-cli[serve]'"
            )


def application(
    config: "Config | None" = None, *, log: "Log | None" = None, load: "Callable[[], Config] | None" = None
) -> "Gateway":
    """The ASGI application for a configuration, by default the user's; `log` is by default stderr.

    `load` reads the configuration again when the gateway is reloaded; by default it reads the user's.

    Raises `ConfigError` and `MissingDependencyError`.
    """
    check_dependencies()
    from batuta_cli import config as configuration
    from batuta_cli.serve.gateway.app import Gateway
    from batuta_cli.serve.gateway.reload import Reconfigured, reconfigure, settings_of
    from batuta_cli.serve.pipeline.pipeline import Pipeline

    config = config or configuration.load()

    def open_pipeline() -> Pipeline:
        return Pipeline(config, watch=True)

    def replace_pipeline(pipeline: Pipeline) -> Reconfigured:
        return reconfigure(load or configuration.load, pipeline)

    return Gateway(open_pipeline, settings_of(config), log=log, reconfigure=replace_pipeline)
