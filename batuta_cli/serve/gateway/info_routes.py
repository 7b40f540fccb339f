"""Routes that do not generate text: `/health`, `/ready`, `/metrics`, `/v1/models`, and CORS preflight requests.

Each function writes one whole response to the connection, or raises `HttpError`.
"""

import contextlib

import orjson

from batuta_cli.serve.gateway import metrics
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.http_errors import HttpError, check_method, http_error_for, unknown_model
from batuta_cli.serve.gateway.state import GatewayState

PROBES = ("/health", "/ready")
"""Routes for load balancers. They need no client key; a client without one gets no reason."""

_ALLOWED_HEADERS = b", ".join(
    (
        b"authorization", b"x-api-key", b"api-key", b"content-type", b"x-request-id", b"x-batuta-privacy",
        b"anthropic-version", b"anthropic-beta", b"openai-beta",
    )
)  # fmt: skip


async def probe(state: GatewayState, connection: Connection) -> None:
    """`/health`: the process runs. `/ready`: a backend would take a request; ledger and audit log can be written."""
    check_method(connection.scope["method"], ("GET", "HEAD"))
    if connection.route == "/health":
        await connection.respond(200, b'{"status":"ok"}')
        return
    ready, reason = False, "starting"
    if state.draining:
        reason = "shutting down"
    elif state.pipeline is not None:
        readiness = state.pipeline.ready()
        ready, reason = readiness.ok, readiness.reason
        error = await state.storage_error()
        if error is not None:
            ready, reason = False, http_error_for(error).message
    document = {"status": "ready" if ready else "not ready"}
    with contextlib.suppress(HttpError):
        state.access.admit(connection.scope.get("client"), connection.headers)
        document |= {} if ready else {"reason": reason}
    await connection.respond(200 if ready else 503, orjson.dumps(document))


async def preflight(connection: Connection) -> None:
    """A browser's question whether a page of a listed origin may send a request (Fetch, section 3.2.2)."""
    connection.route = "preflight"
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
    ]
    await connection.respond(200, b"{}", headers=headers)


async def show_metrics(state: GatewayState, connection: Connection) -> None:
    """`/metrics`. Raises `HttpError` 403 for a client beyond the loopback whose key is not an admin key."""
    if not connection.admin:
        raise HttpError(403, "admin_key", "/metrics needs an admin key here: batuta serve keys create NAME --admin")
    await state.refresh_gauges()
    await connection.respond(200, state.metrics.text(), metrics.CONTENT_TYPE.encode())


async def list_models(state: GatewayState, connection: Connection) -> None:
    """`/v1/models`, with the fields of OpenAI's list and of Anthropic's."""
    models = [_model(name) for name in state.require_pipeline().models(connection.account)]
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {"first_id": None, "last_id": None}
    await connection.respond(200, orjson.dumps({"object": "list", "data": models, "has_more": False, **ends}))


async def show_model(state: GatewayState, connection: Connection) -> None:
    """`/v1/models/NAME`."""
    name = connection.path_rest
    models = state.require_pipeline().models(connection.account)
    if name not in models:
        raise unknown_model(name, models)
    await connection.respond(200, orjson.dumps(_model(name)))


async def refuse_stored_response(state: GatewayState, connection: Connection) -> None:
    """The routes below `/v1/responses/` of a stored response: get, delete, cancel, compact, list its input.

    Raises `HttpError`: batuta stores none.
    """
    raise HttpError(
        404,
        "no_stored_responses",
        "batuta keeps no responses, also with store: true; send the whole conversation to POST /v1/responses",
    )


def _model(name: str) -> dict[str, object]:
    openai = {"id": name, "object": "model", "created": 0, "owned_by": "batuta"}
    return {**openai, "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
