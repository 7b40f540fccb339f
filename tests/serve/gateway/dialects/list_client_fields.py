"""Prints the fields of the official clients' requests as JSON.

Run by the interpreter of .venv/clients, which has the clients and nothing of batuta.
"""

import json
from importlib import import_module
from typing import get_args, get_type_hints

TYPES: dict[str, list[str]] = {
    "chat": ["openai.types.chat.completion_create_params.CompletionCreateParams"],
    "completions": ["openai.types.completion_create_params.CompletionCreateParams"],
    "responses": ["openai.types.responses.response_create_params.ResponseCreateParams"],
    "input_tokens": ["openai.types.responses.input_token_count_params.InputTokenCountParams"],
    "messages": [
        "anthropic.types.message_create_params.MessageCreateParams",
        "anthropic.types.beta.message_create_params.MessageCreateParams",
    ],
    "embeddings": ["openai.types.embedding_create_params.EmbeddingCreateParams"],
    "ollama_chat": ["ollama._types.ChatRequest"],
    "ollama_generate": ["ollama._types.GenerateRequest"],
    "ollama_options": ["ollama._types.Options"],
    "ollama_embed": ["ollama._types.EmbedRequest"],
    "ollama_embeddings": ["ollama._types.EmbeddingsRequest"],
    "count_tokens": [
        "anthropic.types.message_count_tokens_params.MessageCountTokensParams",
        "anthropic.types.beta.message_count_tokens_params.MessageCountTokensParams",
    ],
}
"""The types of each dialect. A union, which a streamed and a whole request have, is walked through its members."""


def fields(path: str) -> set[str]:
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(module), name)
    members = getattr(kind, "__args__", (kind,))
    return {field for member in members for field in getattr(member, "model_fields", None) or get_type_hints(member)}


BLOCKS = [
    "anthropic.types.content_block_param.ContentBlockParam",
    "anthropic.types.beta.beta_content_block_param.BetaContentBlockParam",
]
"""The content blocks of Anthropic's messages."""


def block_types(path: str) -> set[str]:
    module, _, name = path.rpartition(".")
    blocks = getattr(import_module(module), name).__args__
    kinds = [get_type_hints(block)["type"] for block in blocks if hasattr(block, "__total__")]
    return {literal for kind in kinds for part in get_args(kind) for literal in get_args(part) or (part,)}


found = {name: sorted(set().union(*map(fields, paths))) for name, paths in TYPES.items()}
print(json.dumps({"fields": found, "blocks": sorted(set().union(*map(block_types, BLOCKS)))}))
