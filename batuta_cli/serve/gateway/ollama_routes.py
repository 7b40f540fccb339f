"""Ollama's routes that generate no text: `/`, `/api/tags`, `/api/show`, `/api/ps`, `/api/version`, and those that would
change a server's models, which are refused and never forwarded.

Sizes, digests, dates and details of a model are those that an Ollama server tells. Without one they are left out or
empty, as the official client's types allow (https://github.com/ollama/ollama/blob/main/docs/api.md).
"""

import orjson

from batuta_cli import __version__
from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.gateway.access import check_json
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.dialects.fields import TEXT, parse_object, take, take_model
from batuta_cli.serve.gateway.http_errors import HttpError, unknown_model
from batuta_cli.serve.gateway.state import GatewayState
from batuta_cli.serve.providers.probe import GATEWAY_HEADER

API_VERSION = "0.12.11"
"""The version of Ollama whose API this is: the first one with all fields that `ollama_fields.py` maps. Clients compare
it with the version that they need."""

_GREETING = b"Ollama is running"
"""Exactly this text: many of Ollama's user interfaces compare it."""

_NO_DETAILS = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": [],
    "parameter_size": "",
    "quantization_level": "",
}


async def greet(state: GatewayState, connection: Connection) -> None:
    """`/`, by which Ollama's clients, and Claude Code, find out whether a server is there."""
    header = [(GATEWAY_HEADER.encode(), __version__.encode())]
    await connection.respond(200, _GREETING, b"text/plain; charset=utf-8", headers=header)


async def list_tags(state: GatewayState, connection: Connection) -> None:
    """`/api/tags`: the models of the configured backends."""
    pipeline = state.require_pipeline()
    models = [
        {"name": name, "model": name, "digest": "", "details": _NO_DETAILS, **pipeline.model_facts(name).details}
        for name in pipeline.models(connection.account)
    ]
    await connection.respond(200, orjson.dumps({"models": models}))


async def list_running(state: GatewayState, connection: Connection) -> None:
    """`/api/ps`: no model, because backends do not tell which models are in memory."""
    state.require_pipeline()
    await connection.respond(200, orjson.dumps({"models": []}))


async def show_version(state: GatewayState, connection: Connection) -> None:
    """`/api/version`."""
    await connection.respond(200, orjson.dumps({"version": API_VERSION, "batuta": __version__}))


async def show(state: GatewayState, connection: Connection) -> None:
    """`/api/show`: the window of a model, where it is known, and whether tools can be sent to it."""
    check_json(connection.headers)
    document = parse_object(await connection.body())
    name = take(document, "name", TEXT)  # the older name of the field
    model = take_model({"model": name, **document} if name else document)
    pipeline = state.require_pipeline()
    models = pipeline.models(connection.account)
    if model not in models:
        raise unknown_model(model, models)
    facts = pipeline.model_facts(model)
    window = {} if facts.window is None else {"general.context_length": facts.window}
    capabilities = ["completion", *(["tools"] if Need.TOOLS in facts.carries else [])]
    told = {name: facts.details[name] for name in ("details", "modified_at") if name in facts.details}
    known = {"details": _NO_DETAILS, **told, "model_info": window, "capabilities": capabilities}
    await connection.respond(200, orjson.dumps(known))


async def refuse(state: GatewayState, connection: Connection) -> None:
    """Routes that change a server's models. Raises `HttpError` 403."""
    raise HttpError(
        403, "model_management", "batuta does not change a server's models; ask the Ollama server itself for that"
    )
