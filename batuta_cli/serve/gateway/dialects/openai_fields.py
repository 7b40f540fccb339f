"""The fields of OpenAI's chat completions and completions, and of the servers that extend them.

Sources: https://platform.openai.com/docs/api-reference/chat/create and /completions/create; the README of llama.cpp's
server; vLLM's page "OpenAI-compatible server"; https://openrouter.ai/docs/api-reference/parameters. A test compares the
tables with the types of the package `openai`.
"""

from batuta_cli.serve.gateway.dialects.fields import (
    BOOLEAN,
    CHOICES,
    ENCODING,
    INTEGER,
    NUMBER,
    OBJECT,
    RESPONSE_FORMAT,
    STOP,
    TEXT,
    TOOL_CHOICE,
    TOOLS,
)
from batuta_cli.serve.gateway.dialects.treatment import (
    ANY,
    FieldRow,
    FieldTable,
    carried,
    dropped,
    mapped,
    option,
    personal,
    refused,
)
from batuta_cli.serve.providers.formats.openai_chat import SERVER_OPTIONS

_NAMES_A_USER = "names a user or a conversation; only OpenAI itself gets it"
_CACHE = "setting of OpenAI's prompt cache"
_SERVER = "field of local servers"

SAMPLING: dict[str, FieldRow] = {
    "temperature": option(NUMBER, "temperature"),
    "top_p": option(NUMBER, "top_p"),
    "top_k": option(INTEGER, "top_k"),
    "min_p": option(NUMBER, "min_p"),
    "presence_penalty": option(NUMBER, "presence_penalty"),
    "frequency_penalty": option(NUMBER, "frequency_penalty"),
    "logit_bias": option(OBJECT, "logit_bias"),
    "n": option(CHOICES, "n"),
    "seed": option(INTEGER, "seed"),
    "stop": option(STOP, "stop"),
}

EMBEDDING_FIELDS: dict[str, FieldRow] = {
    "model": mapped(TEXT, "model"),
    "input": mapped(ANY, "input"),
    "dimensions": option(INTEGER, "dimensions"),
    "encoding_format": option(ENCODING, "encoding_format"),
    "user": personal(TEXT, _NAMES_A_USER),
}
"""`POST /v1/embeddings` (https://platform.openai.com/docs/api-reference/embeddings/create)."""

SERVER_FIELDS: dict[str, FieldRow] = {name: carried(ANY, _SERVER) for name in sorted(SERVER_OPTIONS)}
"""Fields of llama.cpp, vLLM, SGLang and hosts of open models that change the text and not its price."""

CHAT_FIELDS: dict[str, FieldRow] = {
    **SAMPLING,
    **SERVER_FIELDS,
    "model": mapped(TEXT, "model"),
    "messages": mapped(ANY, "messages"),
    "max_tokens": mapped(ANY, "max_tokens"),
    "max_completion_tokens": mapped(ANY, "max_tokens"),
    "stream": mapped(BOOLEAN, "stream"),
    "stream_options": mapped(OBJECT, "include_usage"),
    "logprobs": option(BOOLEAN, "logprobs"),
    "top_logprobs": option(INTEGER, "top_logprobs"),
    "response_format": option(RESPONSE_FORMAT, "response_format"),
    "reasoning_effort": option(TEXT, "reasoning_effort"),
    "verbosity": option(TEXT, "verbosity"),
    "tools": option(TOOLS, "tools"),
    "tool_choice": option(TOOL_CHOICE, "tool_choice"),
    "parallel_tool_calls": option(BOOLEAN, "parallel_tool_calls"),
    "moderation": carried(OBJECT, "moderation by the service"),
    "prediction": carried(OBJECT, "predicted output"),
    "prompt_cache_options": carried(OBJECT, _CACHE),
    "prompt_cache_retention": carried(TEXT, _CACHE),
    "service_tier": carried(TEXT, "the service's speed, which may change the price"),
    "store": carried(BOOLEAN, "the service keeps the response; true is refused under sovereign and private"),
    "web_search_options": carried(OBJECT, "a hosted tool; refused under sovereign and private"),
    "metadata": personal(OBJECT, _NAMES_A_USER),
    "prompt_cache_key": personal(TEXT, _NAMES_A_USER),
    "safety_identifier": personal(TEXT, _NAMES_A_USER),
    "user": personal(TEXT, _NAMES_A_USER),
    "audio": refused("is not supported; batuta returns text only"),
    "modalities": refused("must be text; batuta returns text only", [], ["text"]),
    "functions": refused("has been replaced by tools", []),
    "function_call": refused("has been replaced by tool_choice"),
    "best_of": refused("is not supported; use n", 1),
}

COMPLETION_FIELDS: dict[str, FieldRow] = {
    **SAMPLING,
    **SERVER_FIELDS,
    "model": mapped(TEXT, "model"),
    "prompt": mapped(ANY, "messages"),
    "max_tokens": mapped(ANY, "max_tokens"),
    "stream": mapped(BOOLEAN, "stream"),
    "stream_options": mapped(OBJECT, "include_usage"),
    "user": personal(TEXT, _NAMES_A_USER),
    "suffix": refused("is not supported", ""),
    "echo": refused("is not supported", False),
    "logprobs": refused("is not supported; chat completions have it", 0),
    "best_of": refused("is not supported; use n", 1),
}


def with_chat_fields(table: FieldTable) -> FieldTable:
    """The table of another API, and rows for the fields that chat completions have beside it.

    Without a row such a field would reach a backend unchecked, because the gateway's own request has the form of chat
    completions: a second output limit or `n` would exceed the reservation, and `store` would make a provider keep the
    conversation. Options and fields of local servers are checked as in chat completions; the others are dropped.
    """
    return {**_OF_CHAT, **table}


_OF_CHAT: dict[str, FieldRow] = {
    name: row if row.copied or name in SERVER_FIELDS else dropped(ANY, "a field of OpenAI's chat completions")
    for name, row in CHAT_FIELDS.items()
}
