"""The fields of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses/create).

A test compares the tables with the types of the package `openai`. `client_metadata`, which that package does not have,
is sent by Codex.
"""

from typing import Any

from batuta_cli.serve.gateway.dialects.fields import BOOLEAN, INTEGER, NUMBER, OBJECT, OBJECTS, TEXT, FieldType
from batuta_cli.serve.gateway.dialects.openai_fields import SAMPLING, SERVER_FIELDS
from batuta_cli.serve.gateway.dialects.treatment import (
    ANY,
    FieldRow,
    Treatment,
    carried,
    dropped,
    mapped,
    native_only,
    option,
    personal,
    refused,
)

_NAMES_A_USER = "names a user or a conversation; only OpenAI itself gets it"
_CACHE = "setting of OpenAI's prompt cache"
_STATELESS = "is not supported, because batuta keeps no responses; send the whole conversation in input"

_TEXTS = FieldType("a list of strings", lambda value: isinstance(value, list) and all(map(TEXT.holds, value)))


def _dropped(kind: FieldType, why: str, harmless: Any) -> FieldRow:
    return FieldRow(Treatment.DROPPED, kind=kind, note=why, harmless=(harmless,))


RESPONSE_FIELDS: dict[str, FieldRow] = {
    **SAMPLING,
    **SERVER_FIELDS,
    "model": mapped(TEXT, "model"),
    "input": mapped(ANY, "messages"),
    "instructions": mapped(TEXT, "messages"),
    "max_output_tokens": mapped(ANY, "max_tokens"),
    "stream": mapped(BOOLEAN, "stream"),
    "temperature": option(NUMBER, "temperature"),
    "top_p": option(NUMBER, "top_p"),
    "text": mapped(OBJECT, "response_format, verbosity"),
    "reasoning": mapped(OBJECT, "reasoning_effort"),
    "include": mapped(_TEXTS, "logprobs"),
    "top_logprobs": mapped(INTEGER, "logprobs, top_logprobs"),
    "tools": mapped(OBJECTS, "tools"),
    "tool_choice": mapped(ANY, "tool_choice"),
    "parallel_tool_calls": mapped(BOOLEAN, "parallel_tool_calls"),
    "prompt_cache_options": carried(OBJECT, _CACHE),
    "prompt_cache_retention": carried(TEXT, _CACHE),
    "service_tier": carried(TEXT, "the service's speed, which may change the price"),
    "moderation": native_only(OBJECT, "moderation by the service"),
    "access_programs": dropped(OBJECT, "belongs to an account at OpenAI"),
    "background_options": dropped(OBJECT, "only with background, which is refused"),
    "client_metadata": personal(OBJECT, _NAMES_A_USER),
    "context_management": dropped(OBJECTS, "OpenAI's service compacts the input with it"),
    "image": dropped(OBJECT, "OpenAI's service compresses images with it"),
    "max_tool_calls": dropped(INTEGER, "limits hosted tools, which a translated request has none of"),
    "metadata": personal(OBJECT, _NAMES_A_USER),
    "prompt_cache_key": personal(TEXT, _NAMES_A_USER),
    "safety_identifier": personal(TEXT, _NAMES_A_USER),
    "store": _dropped(BOOLEAN, "batuta keeps no responses, and every backend gets false", False),
    "stream_options": dropped(OBJECT, "asks for padding of the events"),
    "truncation": _dropped(TEXT, "OpenAI's service leaves out items of a long input with it", "disabled"),
    "user": personal(TEXT, _NAMES_A_USER),
    "background": refused(_STATELESS, False),
    "conversation": refused(_STATELESS),
    "previous_response_id": refused(_STATELESS),
    "n": refused("is not supported; a response has one text", 1),
    "prompt": refused("is not supported, because batuta keeps no prompts; send it in instructions and input"),
}

INPUT_TOKEN_FIELDS: dict[str, FieldRow] = {
    **RESPONSE_FIELDS,
    "personality": dropped(TEXT, "a style of OpenAI's models"),
}
"""Fields of `input_tokens`; those that only a response has do not change the count."""
