"""OpenAI's Responses API: parses requests and writes responses. No I/O.

Stateless: `store` is always false, and fields that refer to stored responses are refused. `responses_tools.py` and
`responses_input.py` map tools and input to a chat completion, `responses_output.py` has the items of the output. A
response that is not streamed is made from the same items, so both are equal. Errors are `HttpError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.gateway.dialects.fields import (
    RESPONSE_FORMAT,
    TEXT,
    ParsedRequest,
    take_limit,
    take_model,
    wrong,
)
from batuta_cli.serve.gateway.dialects.openai_fields import with_chat_fields
from batuta_cli.serve.gateway.dialects.outside import reach_of
from batuta_cli.serve.gateway.dialects.replies import Reply
from batuta_cli.serve.gateway.dialects.responses_fields import INPUT_TOKEN_FIELDS, RESPONSE_FIELDS
from batuta_cli.serve.gateway.dialects.responses_input import InputReader
from batuta_cli.serve.gateway.dialects.responses_reply import ResponseEcho, ResponseReply
from batuta_cli.serve.gateway.dialects.responses_tools import ResponseTools, is_optional
from batuta_cli.serve.gateway.dialects.treatment import FieldTable, personal_fields, treat
from batuta_cli.serve.gateway.http_errors import HttpError, openai_error
from batuta_cli.serve.messages import ChatMessage

_ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_SUMMARIES = ("summary", "generate_summary")
_REASONING_DEFAULTS = {"context": "auto", "mode": "standard"}
"""Fields of `reasoning` that only OpenAI's service has, with the value that asks for nothing."""


@dataclass(frozen=True, slots=True)
class ParsedResponseRequest(ParsedRequest):
    """A request for a response, with what its writer needs."""

    echo: ResponseEcho = field(kw_only=True)


class Responses:
    """`POST /v1/responses`."""

    error = staticmethod(openai_error)
    api: ClientApi | None = ClientApi.OPENAI_RESPONSES
    headers = frozenset((b"openai-beta",))
    personal = personal_fields(RESPONSE_FIELDS)
    table: FieldTable = with_chat_fields(RESPONSE_FIELDS)

    def read(self, document: dict[str, Any]) -> ParsedResponseRequest:
        parsed = self._parsed(document)
        tools = document.get("tools") or ()
        needed = [tool for tool in tools if not is_optional(tool)]
        if len(needed) == len(tools) or "tool_choice" in parsed.native_only:
            return parsed
        less = self._parsed({**document, "tools": needed})
        out = ("tools.web_search",)
        less = replace(less, dropped=(*less.dropped, *out), left_out=(*less.left_out, *out))
        return replace(parsed, without_optional=less)

    def _parsed(self, document: dict[str, Any]) -> ParsedResponseRequest:
        model = take_model(document)
        fields = treat(document, self.table)
        tools = ResponseTools()
        tools.add(document.get("tools") or [])
        reader = InputReader(tools)
        messages = _messages(document, reader)
        dropped = {*tools.dropped, *reader.dropped}
        options = {
            **fields.options,
            **_text(document),
            **_reasoning(document, dropped),
            **_logprobs(document, dropped),
            **_tools(document, tools),
        }
        body = self.body(document)
        return ParsedResponseRequest(
            model=model,
            messages=messages,
            max_tokens=take_limit(document, "max_output_tokens"),
            stream=bool(document.get("stream")),
            include_usage=True,
            options=options,
            dropped=(*fields.dropped, *sorted(dropped)),
            native_only=(*fields.native_only, *sorted({*tools.native_only, *reader.native_only})),
            unknown=fields.unknown,
            reach=reach_of({**body, "tools": tools.hosted}, "input"),
            document=body,
            left_out=("store",) if document.get("store") else (),
            echo=_echo(document, tools),
        )

    def body(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The body for backends that speak the API: nothing is stored."""
        return {**document, "store": False}

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        assert isinstance(parsed, ParsedResponseRequest)  # noqa: S101 - made by `read`
        return ResponseReply(parsed.model, parsed.echo, name, created)


class InputTokens(Responses):
    """`POST /v1/responses/input_tokens`."""

    table = with_chat_fields(INPUT_TOKEN_FIELDS)

    def body(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in document.items() if name != "store"}

    def counted(self, tokens: int) -> bytes:
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})


def _messages(document: Mapping[str, Any], reader: InputReader) -> tuple[ChatMessage, ...]:
    if document.get("instructions"):
        reader.instructions(document["instructions"])
    given = document.get("input")
    if given is None:
        raise wrong("input", "is missing", "missing_field")
    try:
        reader.add(given)
        return tuple(reader.messages())
    except InvalidInputError as error:
        raise HttpError(400, "invalid_messages", f"input: {error.message}", param="input") from None


def _text(document: Mapping[str, Any]) -> dict[str, Any]:
    """`text` as `response_format` and `verbosity`."""
    text = document.get("text") or {}
    options: dict[str, Any] = {}
    if text.get("verbosity") is not None:
        options["verbosity"] = _nested(text, "text", "verbosity")
    format = text.get("format") or {"type": "text"}
    if not RESPONSE_FORMAT.holds(format):
        raise wrong("text.format", f"must be {RESPONSE_FORMAT.description}")
    if format["type"] == "json_schema":
        schema = {name: value for name, value in format.items() if name != "type" and value is not None}
        if not isinstance(schema.get("name"), str) or not isinstance(schema.get("schema"), dict):
            raise wrong("text.format", "needs a name and a schema", "invalid_value")
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif format["type"] == "json_object":
        options["response_format"] = {"type": "json_object"}
    elif format["type"] != "text":
        raise wrong("text.format", "must be of type text, json_object or json_schema", "invalid_value")
    return options


def _reasoning(document: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    reasoning = document.get("reasoning") or {}
    for name, default in _REASONING_DEFAULTS.items():
        if reasoning.get(name) not in (None, default):
            dropped.add(f"reasoning.{name}")
    if reasoning.get("effort") is None:
        return {}
    return {"reasoning_effort": _nested(reasoning, "reasoning", "effort")}


def _nested(object: Mapping[str, Any], outer: str, name: str) -> str:
    """A text inside an object. Raises `HttpError`."""
    value = object[name]
    if not isinstance(value, str):
        raise wrong(f"{outer}.{name}", f"must be {TEXT.description}")
    return value


def _logprobs(document: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    include = set(document.get("include") or ())
    if include - {_ENCRYPTED, _LOGPROBS}:  # results of hosted tools
        dropped.add("include")
    most = document.get("top_logprobs")
    if not most and _LOGPROBS not in include:
        return {}
    return {"logprobs": True} | ({"top_logprobs": most} if most else {})


def _tools(document: Mapping[str, Any], tools: ResponseTools) -> dict[str, Any]:
    given = document.get("tool_choice")
    choice = {} if given is None else tools.choice(given)
    if not tools.functions:
        if choice.get("tool_choice") == "required" and not tools.native_only:
            raise wrong("tool_choice", "is required, but there are no tools", "invalid_value")
        return {}
    parallel = document.get("parallel_tool_calls")
    options = {"tools": tools.functions, **choice}
    return options if parallel is None else {**options, "parallel_tool_calls": parallel}


def _echo(document: Mapping[str, Any], tools: ResponseTools) -> ResponseEcho:
    reasoning = document.get("reasoning") or {}
    summary = next((reasoning[name] for name in _SUMMARIES if reasoning.get(name)), None)
    echoed = {
        "instructions": document.get("instructions"),
        "max_output_tokens": document.get("max_output_tokens"),
        "max_tool_calls": document.get("max_tool_calls"),
        "metadata": document.get("metadata") or {},
        "parallel_tool_calls": document.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "prompt_cache_key": document.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": summary},
        "safety_identifier": document.get("safety_identifier"),
        "store": False,
        "background": False,
        "temperature": document.get("temperature"),
        "text": {"format": {"type": "text"}} | (document.get("text") or {}),
        "tool_choice": document.get("tool_choice") or "auto",
        "tools": document.get("tools") or [],
        "top_logprobs": document.get("top_logprobs"),
        "top_p": document.get("top_p"),
        "truncation": "disabled",
        "user": document.get("user"),
    }
    return ResponseEcho(
        fields={name: orjson.Fragment(orjson.dumps(value)) for name, value in echoed.items()},
        tools=tools,
        summary=summary is not None,
        encoded=_ENCRYPTED in (document.get("include") or ()),
    )
