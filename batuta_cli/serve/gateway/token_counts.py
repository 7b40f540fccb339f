"""POST routes that count the tokens of a request, which is not sent to a model.

The header `X-Batuta-Count` says whether the count is `exact` or an `estimate`.
"""

from batuta_cli.serve.gateway.access import check_json, tier_for
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.dialects.replies import CountDialect, read
from batuta_cli.serve.gateway.generation import ask_for, chat_request, refuse_unknown_model
from batuta_cli.serve.gateway.state import GatewayState


async def count_tokens(state: GatewayState, connection: Connection, dialect: CountDialect) -> None:
    """Serve one request. Raises `HttpError` and the errors of the pipeline."""
    check_json(connection.headers)
    state.require_pipeline()
    tier = tier_for(connection.headers, state.settings.privacy, connection.limits)
    parsed = await read(dialect, await connection.body(), connection.headers)
    request = chat_request(state, connection, parsed, tier)
    with state.open_request(connection) as pipeline:
        async with connection.watch_client():
            with refuse_unknown_model(pipeline, request):
                found = await ask_for(parsed, request, pipeline.count)
    kind = b"exact" if found.exact else b"estimate"
    connection.log_fields |= {"input_tokens": found.tokens, "count": kind.decode()}
    headers = [(b"x-batuta-count", kind), (b"x-batuta-tier", str(tier).encode())]
    await connection.respond(200, dialect.counted(found.tokens), headers=headers)
