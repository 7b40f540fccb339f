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
    IMAGES = "images"
    FILES = "files"
    AUDIO = "audio input"
    VIDEO = "video input"
    HOSTED_TOOLS = "hosted tools"
    EMBEDDINGS = "embeddings"


OF_SERVERS = frozenset((Need.IMAGES, Need.FILES, Need.AUDIO, Need.VIDEO, Need.HOSTED_TOOLS, Need.EMBEDDINGS))
"""Needs that depend on the server, not on the format: the profile of a backend says which of them it takes."""


class ClientApi(Enum):
    """An API that clients speak to the gateway, and that backends may speak too; its value is the name in profiles."""

    OPENAI_CHAT = "openai-chat", "chat/completions"
    OPENAI_RESPONSES = "openai-responses", "responses"
    ANTHROPIC_MESSAGES = "anthropic-messages", "messages"
    OLLAMA_CHAT = "ollama-chat", "/api/chat"
    OLLAMA_GENERATE = "ollama-generate", "/api/generate"

    path: str
    """Of its requests, below the base URL; from the root when it begins with a slash."""

    def __new__(cls, name: str, path: str) -> Self:
        """A row of the table."""
        member = object.__new__(cls)
        member._value_ = name
        member.path = path
        return member


_RAW = frozenset({Need.STREAMING})


class WireFormat(Enum):
    """A wire format; its value is the name in profiles."""

    OPENAI = "openai", "openai_chat", frozenset(Need), False, ClientApi.OPENAI_CHAT
    ANTHROPIC = "anthropic", "anthropic_messages", _RAW | OF_SERVERS | {Need.TOOLS}, True, ClientApi.ANTHROPIC_MESSAGES
    REPLICATE = "replicate", "replicate", _RAW, True, None
    COMPLETIONS = "completions", "completions", _RAW, True, None
    OLLAMA_GENERATE = "ollama-generate", "ollama_generate", _RAW, False, None
    EMBEDDINGS = "openai-embeddings", "openai_embeddings", frozenset({Need.EMBEDDINGS}), False, None

    module: str
    """Its module in `serve/providers/formats/`."""
    carries: frozenset[Need]
    """What it can carry beside text."""
    needs_limit: bool
    """Whether a request needs an output limit: Anthropic requires it, the others' servers cut off early without it (16
    tokens is the default of OpenAI's completions)."""
    api: ClientApi | None
    """The client API that it is, if any."""

    def __new__(
        cls, name: str, module: str, carries: frozenset[Need], needs_limit: bool, api: ClientApi | None
    ) -> Self:
        """A row of the table."""
        member = object.__new__(cls)
        member._value_ = name
        member.module = module
        member.carries = carries
        member.needs_limit = needs_limit
        member.api = api
        return member
