"""Anthropic's Messages API: parses requests. No I/O. `anthropic_reply.py` writes the responses.

A request is mapped to OpenAI's messages and options, which the pipeline uses for backends that do not speak this API.
Thinking becomes `reasoning_content`, images and documents become content parts, and system turns stay in their place.
What has no counterpart is either left out and named (`dropped`), when the response does not depend on it, or makes
Anthropic's API necessary (`native_only`). Errors are `HttpError`.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.gateway.dialects.anthropic_blocks import Conversation
from batuta_cli.serve.gateway.dialects.anthropic_fields import COUNT_FIELDS, MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.anthropic_reply import MessageReply
from batuta_cli.serve.gateway.dialects.fields import (
    BOOLEAN,
    OBJECT,
    TEXT,
    ParsedRequest,
    checked_messages,
    take,
    take_limit,
    take_model,
    wrong,
)
from batuta_cli.serve.gateway.dialects.openai_fields import with_chat_fields
from batuta_cli.serve.gateway.dialects.outside import is_of_client, reach_of
from batuta_cli.serve.gateway.dialects.replies import Reply
from batuta_cli.serve.gateway.dialects.treatment import FieldTable, personal_fields, treat
from batuta_cli.serve.gateway.http_errors import anthropic_error

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = {"high": None, "max": "xhigh"}
"""Anthropic's names of efforts that OpenAI names differently. `high` is Anthropic's default, so it asks for nothing
(https://docs.anthropic.com/en/docs/build-with-claude/effort)."""

_MESSAGE_ROWS, _COUNT_ROWS = with_chat_fields(MESSAGE_FIELDS), with_chat_fields(COUNT_FIELDS)


class Messages:
    """`POST /v1/messages`."""

    error = staticmethod(anthropic_error)
    api = ClientApi.ANTHROPIC_MESSAGES
    headers = frozenset((b"anthropic-beta", b"anthropic-version"))
    personal = personal_fields(MESSAGE_FIELDS)

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        parsed = _parsed(document, _MESSAGE_ROWS)
        if parsed.max_tokens is None:
            raise wrong("max_tokens", "is missing", "missing_field")
        return parsed

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return MessageReply(parsed, f"msg_{name}")


class CountTokens:
    """`POST /v1/messages/count_tokens`."""

    error = staticmethod(anthropic_error)
    api = ClientApi.ANTHROPIC_MESSAGES
    headers = Messages.headers
    personal = personal_fields(COUNT_FIELDS)

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        return _parsed(document, _COUNT_ROWS)

    def counted(self, tokens: int) -> bytes:
        return orjson.dumps({"input_tokens": tokens})


def _parsed(document: dict[str, Any], table: FieldTable) -> ParsedRequest:
    model = take_model(document)
    fields = treat(document, table)
    conversation = Conversation()
    messages = checked_messages(lambda: conversation.read(document))
    reach = reach_of(document, "system", "messages")
    options = fields.options | _format(document, conversation.dropped) | _tools(document, conversation)
    return ParsedRequest(
        model=model,
        messages=messages,
        max_tokens=take_limit(document, "max_tokens") if "max_tokens" in table else None,
        stream="stream" in table and bool(take(document, "stream", BOOLEAN)),
        options=options,
        dropped=tuple(dict.fromkeys([*fields.dropped, *conversation.dropped])),
        native_only=tuple(dict.fromkeys([*fields.native_only, *conversation.native_only])),
        unknown=fields.unknown,
        reach=reach,
    )


def _format(document: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    """`output_config`, or its older name for the format alone, as OpenAI's options."""
    config = dict(take(document, "output_config", OBJECT) or {})
    shape, effort = config.pop("format", None) or document.get("output_format"), config.pop("effort", None)
    dropped.update(f"output_config.{name}" for name, value in config.items() if value is not None)
    options: dict[str, Any] = {}
    if isinstance(effort, str) and (name := _EFFORTS.get(effort, effort)):
        options["reasoning_effort"] = name
    if shape is not None:
        if not isinstance(shape, dict) or shape.get("type") != "json_schema" or not OBJECT.holds(shape.get("schema")):
            raise wrong("output_config", "must have a format of the type json_schema with a schema", "invalid_value")
        schema = {"name": "response", "schema": shape["schema"], "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return options


def _tools(document: Mapping[str, Any], conversation: Conversation) -> dict[str, Any]:
    tools = []
    for tool in document.get("tools") or ():
        kind = tool.get("type")
        if kind in (None, "custom"):
            tools.append(_tool(tool, conversation.dropped))
        else:
            if not isinstance(kind, str):
                raise wrong("tools", "has a tool whose type is not a string")
            name = kind if is_of_client(kind) else f"hosted tool {kind}"
            conversation.native_only.append(name[:80] if name.isascii() and name.isprintable() else "tool")
    options: dict[str, Any] = {"tools": tools} if tools else {}
    choice = take(document, "tool_choice", OBJECT)
    return options | (_choice(choice) if tools and choice else {})


_TOOL_FIELDS = frozenset(("type", "name", "description", "input_schema", "strict"))


def _tool(tool: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    schema = tool.get("input_schema")
    if not isinstance(tool.get("name"), str) or not isinstance(schema, dict):
        raise wrong("tools", "has a tool without a name or an input_schema")
    dropped.update(f"tools.{name}" for name, value in tool.items() if value is not None and name not in _TOOL_FIELDS)
    function: dict[str, Any] = {"name": tool["name"], "parameters": schema}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    kind = choice.get("type")
    if kind == "tool" and TEXT.holds(choice.get("name")):
        options["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif isinstance(kind, str) and kind in _CHOICES:
        options["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice", "must be auto, any, none, or a tool with its name", "invalid_value")
    if choice.get("disable_parallel_tool_use") is True:
        options["parallel_tool_calls"] = False
    return options
