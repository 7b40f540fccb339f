"""The wire formats that backends speak: one row each, with its module and what it can carry.

A format is a module of `serve/providers/formats/` and a row here. The module has two functions: `outgoing(call,
profile)` builds the HTTP request, and `reader(call)` reads the response. It is imported when a request is sent, so that
planning a request needs no HTTP client.
"""

from enum import Enum
from typing import Self

from batuta_cli.serve.names import NameEnum


class Need(NameEnum):
    """What a request may need from a wire format beside text."""

    STREAMING = "streaming"
    TOOLS = "tools"
    JSON = "JSON output"
    CHOICES = "several choices"
    EMBEDDINGS = "embeddings"


class WireFormat(Enum):
    """A wire format; its value is the name in profiles."""

    OPENAI = "openai", "openai_chat", frozenset(Need) - {Need.EMBEDDINGS}, False
    ANTHROPIC = "anthropic", "anthropic_messages", frozenset({Need.STREAMING, Need.TOOLS}), True
    REPLICATE = "replicate", "replicate", frozenset({Need.STREAMING}), True
    COMPLETIONS = "completions", "completions", frozenset({Need.STREAMING}), True
    OLLAMA_GENERATE = "ollama-generate", "ollama_generate", frozenset({Need.STREAMING}), False
    EMBEDDINGS = "openai-embeddings", "openai_embeddings", frozenset({Need.EMBEDDINGS}), False

    module: str
    """Its module in `serve/providers/formats/`."""
    carries: frozenset[Need]
    """What it can carry beside text."""
    needs_limit: bool
    """Whether a request needs an output limit: Anthropic requires it, the others' servers cut off early without it (16
    tokens is the default of OpenAI's completions)."""

    def __new__(cls, name: str, module: str, carries: frozenset[Need], needs_limit: bool) -> Self:
        """A row of the table."""
        member = object.__new__(cls)
        member._value_ = name
        member.module = module
        member.carries = carries
        member.needs_limit = needs_limit
        return member
