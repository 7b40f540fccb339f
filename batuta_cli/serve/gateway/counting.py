"""POST routes that count the tokens of a request in the model's prompt. Nothing is generated, and nothing is charged.

The header `X-Batuta-Count` is `exact` for a count by the model's tokenizer, and `estimate` for an upper bound.
"""

import orjson

from batuta_cli.serve.gateway.access import check_json, tier_for
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.dialects.replies import CountDialect, read
from batuta_cli.serve.gateway.http_errors import unknown_model
from batuta_cli.serve.gateway.state import GatewayState
from batuta_cli.serve.pipeline.request import ChatRequest


async def count_tokens(state: GatewayState, connection: Connection, dialect: CountDialect) -> None:
    """Serve one POST request. Raises `HttpError` and `AuditError`."""
    check_json(connection.headers)
    state.require_pipeline()
    tier = tier_for(connection.headers, state.settings.privacy)
    parsed = await read(dialect, await connection.body(), connection.headers)
    request = ChatRequest(
        request_id=connection.id,
        model=parsed.model,
        messages=parsed.messages,
        privacy=tier,
        options=parsed.options or {},
    )
    with state.open_request(connection) as pipeline:
        models = pipeline.models()
        if models and request.model not in models:
            raise unknown_model()
        async with connection.watch_client():
            counted = await pipeline.count(request)
    kind = b"exact" if counted.exact else b"estimate"
    connection.log_fields |= {"tier": str(tier), "input_tokens": counted.tokens, "count": kind.decode()}
    headers = [(b"x-batuta-tier", str(tier).encode()), (b"x-batuta-count", kind)]
    await connection.respond(200, orjson.dumps(dialect.counted(counted.tokens)), headers=headers)
