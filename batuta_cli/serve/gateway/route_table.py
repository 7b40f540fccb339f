"""The routes of the gateway, one row each, and the spellings of their paths that are understood.

Clients are configured with a base URL that ends in `/v1`, or not, and add `/v1`, or not. So a trailing slash, a missing
`/v1` and a doubled one are understood, for every route.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from batuta_cli.serve.gateway import info_routes, ollama_routes
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.dialects.anthropic import CountTokens, Messages
from batuta_cli.serve.gateway.dialects.embeddings import Embeddings, OllamaEmbed, OllamaEmbeddings
from batuta_cli.serve.gateway.dialects.ollama import OllamaChat, OllamaGenerate
from batuta_cli.serve.gateway.dialects.openai import ChatCompletions, Completions
from batuta_cli.serve.gateway.dialects.replies import CountDialect, Dialect
from batuta_cli.serve.gateway.dialects.responses import InputTokens, Responses
from batuta_cli.serve.gateway.generation import generate
from batuta_cli.serve.gateway.http_errors import ErrorFormat, anthropic_error, ollama_error, openai_error
from batuta_cli.serve.gateway.state import GatewayState
from batuta_cli.serve.gateway.token_counts import count_tokens

Serve = Callable[[GatewayState, Connection], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """One route: its methods, what serves it, and the format of its errors."""

    methods: tuple[str, ...]
    """Empty: any."""
    serve: Serve
    error: ErrorFormat | None = None
    """None: by the request's headers."""
    counted: bool = False
    """Its requests count against the limits of the client key: those a minute, and those at a time."""


_DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/messages": Messages(),
    "/v1/responses": Responses(),
    "/v1/embeddings": Embeddings(),
    "/api/embed": OllamaEmbed(),
    "/api/embeddings": OllamaEmbeddings(),
    "/api/chat": OllamaChat(),
    "/api/generate": OllamaGenerate(),
}
_COUNTS: dict[str, CountDialect] = {
    "/v1/messages/count_tokens": CountTokens(),
    "/v1/responses/input_tokens": InputTokens(),
}
_GET = ("GET", "HEAD")
_OLLAMA = "/api/"
_ROUTES: dict[str, Route] = {
    **{
        path: Route(("POST",), partial(generate, dialect=dialect), dialect.error, counted=True)
        for path, dialect in _DIALECTS.items()
    },
    **{
        path: Route(("POST",), partial(count_tokens, dialect=dialect), dialect.error, counted=True)
        for path, dialect in _COUNTS.items()
    },
    "/": Route(_GET, ollama_routes.greet),
    "/v1/models": Route(_GET, info_routes.list_models),
    "/metrics": Route(_GET, info_routes.show_metrics),
    "/api/tags": Route(_GET, ollama_routes.list_tags, ollama_error),
    "/api/ps": Route(_GET, ollama_routes.list_running, ollama_error),
    "/api/version": Route(_GET, ollama_routes.show_version, ollama_error),
    "/api/show": Route(("POST",), ollama_routes.show, ollama_error),
    **{
        f"/api/{name}": Route((), ollama_routes.refuse, ollama_error)
        for name in ("pull", "push", "create", "copy", "delete", "blobs")
    },
}
_BELOW: dict[str, Route] = {
    "/v1/models": Route(_GET, info_routes.show_model),
    "/v1/responses": Route((), info_routes.refuse_stored_response),
    "/api/blobs": Route((), ollama_routes.refuse, ollama_error),
}
"""Routes with one more part, which is `Connection.path_rest`."""


def find_route(path: str) -> tuple[str, str, Route] | None:
    """The name of a route, the rest of the path behind it, and the route; None for an unknown path."""
    path = path.rstrip("/") or "/"
    while path.startswith("/v1/v1/"):
        path = path.removeprefix("/v1")
    for spelling in (path, "/v1" + path, path.removeprefix("/v1")):
        if spelling in _ROUTES:
            return spelling, "", _ROUTES[spelling]
        for name, route in _BELOW.items():
            if spelling.startswith(name + "/"):
                return name, spelling.removeprefix(name + "/"), route
    return None


def error_format(connection: Connection) -> ErrorFormat:
    """The format of a request's errors."""
    path = connection.scope["path"]
    found = find_route(path)
    if found is not None and found[2].error is not None:
        return found[2].error
    if path.startswith(_OLLAMA):
        return ollama_error
    return anthropic_error if b"anthropic-version" in connection.headers else openai_error
