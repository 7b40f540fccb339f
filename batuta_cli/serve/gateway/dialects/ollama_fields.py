"""The fields of Ollama's API: `/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings` and their `options`.

Sources: https://github.com/ollama/ollama/blob/main/docs/api.md, `api/types.go` there, and the types of the package
`ollama`, with which a test compares these tables.
"""

from collections.abc import Mapping
from typing import Any

from batuta_cli.serve.gateway.dialects.fields import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OBJECT,
    OBJECTS,
    STOP,
    TEXT,
    FieldType,
)
from batuta_cli.serve.gateway.dialects.treatment import (
    ANY,
    FieldRow,
    carried,
    dropped,
    mapped,
    native_only,
    option,
    refused,
)

_MOST_ALTERNATIVES = 20
_LOADING = "how Ollama loads a model; other servers are started with it"
_IMAGES = "asks for a generated image, which batuta does not relay"
_LIFETIME = "how long Ollama keeps the model in memory"


def _is_format(value: Any) -> bool:
    return value in ("", "json") or OBJECT.holds(value)


def _is_number(value: Any) -> bool:
    return NUMBER.holds(value) and value == value // 1


_COUNT = FieldType("a whole number", _is_number)
"""JavaScript clients may write 40.0 for 40; Ollama accepts both."""

_ALTERNATIVES = FieldType(
    f"a whole number from 0 to {_MOST_ALTERNATIVES}", lambda v: INTEGER.holds(v) and 0 <= v <= _MOST_ALTERNATIVES
)
_FORMAT = FieldType('"json", or a JSON schema', _is_format)
_THINK = FieldType("true, false, or a level such as low", lambda v: isinstance(v, bool | str))
_IMAGE_LIST = FieldType("a list of base64 strings", lambda v: isinstance(v, list) and all(map(TEXT.holds, v)))
_INPUT = FieldType("a string or a list of strings", lambda v: isinstance(v, str) or _IMAGE_LIST.holds(v))

OPTIONS: Mapping[str, FieldRow] = {
    "num_predict": mapped(_COUNT, "max_tokens"),
    "temperature": option(NUMBER, "temperature"),
    "top_p": option(NUMBER, "top_p"),
    "top_k": mapped(_COUNT, "top_k"),
    "min_p": option(NUMBER, "min_p"),
    "seed": mapped(_COUNT, "seed"),
    "stop": option(STOP, "stop"),
    "presence_penalty": option(NUMBER, "presence_penalty"),
    "frequency_penalty": option(NUMBER, "frequency_penalty"),
    "repeat_penalty": carried(NUMBER, "llama.cpp has it too"),
    "repeat_last_n": carried(_COUNT, "llama.cpp has it too"),
    "typical_p": carried(NUMBER, "llama.cpp has it too"),
    "mirostat": carried(_COUNT, "llama.cpp has it too"),
    "mirostat_tau": carried(NUMBER, "llama.cpp has it too"),
    "mirostat_eta": carried(NUMBER, "llama.cpp has it too"),
    "num_keep": dropped(ANY, "the part of the prompt that Ollama keeps when it cuts a prompt; batuta cuts none"),
    "tfs_z": dropped(ANY, "removed from Ollama's sampling"),
    "penalize_newline": dropped(ANY, "removed from Ollama's sampling"),
    **{
        name: dropped(ANY, _LOADING)
        for name in (
            "numa", "num_ctx", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all", "vocab_only",
            "use_mmap", "use_mlock", "embedding_only", "num_thread", "draft_num_predict",
        )
    },
}  # fmt: skip
"""The field `options` of a request for text."""

_BOTH: dict[str, FieldRow] = {
    "model": mapped(TEXT, "model"),
    "stream": mapped(BOOLEAN, "stream"),
    "options": mapped(OBJECT, "options"),
    "format": mapped(_FORMAT, "response_format"),
    "think": mapped(_THINK, "chat_template_kwargs.enable_thinking, reasoning_effort"),
    "keep_alive": dropped(ANY, _LIFETIME),
    "logprobs": option(BOOLEAN, "logprobs"),
    "top_logprobs": option(_ALTERNATIVES, "top_logprobs"),
    "truncate": dropped(BOOLEAN, "whether Ollama cuts a prompt that is too long; batuta cuts none"),
    "shift": dropped(BOOLEAN, "whether Ollama drops the beginning of a full window; other servers stop there"),
    "_debug_render_only": refused("is not supported; `batuta serve template` shows the prompt", False),
}

CHAT_FIELDS: Mapping[str, FieldRow] = _BOTH | {
    "messages": mapped(OBJECTS, "messages"),
    "tools": mapped(ANY, "tools"),
}
"""`POST /api/chat`."""

GENERATE_FIELDS: Mapping[str, FieldRow] = _BOTH | {
    "prompt": mapped(TEXT, "messages"),
    "system": mapped(TEXT, "messages"),
    "images": mapped(_IMAGE_LIST, "messages"),
    "suffix": native_only(TEXT, "the text after the one to generate", ""),
    "template": native_only(TEXT, "a prompt template in Go's syntax", ""),
    "raw": native_only(BOOLEAN, "a prompt without a template", False),
    "context": native_only(ANY, "tokens of an earlier response of Ollama", []),
    "width": refused(_IMAGES, 0),
    "height": refused(_IMAGES, 0),
    "steps": refused(_IMAGES, 0),
}
"""`POST /api/generate`."""

_EMBEDDING: dict[str, FieldRow] = {
    "model": mapped(TEXT, "model"),
    "options": dropped(OBJECT, _LOADING),
    "keep_alive": dropped(ANY, _LIFETIME),
}

EMBED_FIELDS: Mapping[str, FieldRow] = _EMBEDDING | {
    "input": mapped(_INPUT, "input"),
    "dimensions": mapped(_COUNT, "dimensions"),
    "truncate": dropped(BOOLEAN, "whether Ollama cuts an input that is too long; other servers refuse it"),
}
"""`POST /api/embed`."""

EMBEDDINGS_FIELDS: Mapping[str, FieldRow] = _EMBEDDING | {"prompt": mapped(TEXT, "input")}
"""`POST /api/embeddings`, the older form for one text."""
