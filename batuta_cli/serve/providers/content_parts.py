"""The content of a backend's message: text, or a list of parts as some servers send it.

Mistral's reasoning models send parts of the types `text` and `thinking`
(https://docs.mistral.ai/capabilities/reasoning/). A part of another type, such as an image, is a `BackendError`,
because the client would not get it.
"""

from dataclasses import dataclass
from typing import Any

from batuta_cli.files import display
from batuta_cli.serve.providers.wire import BackendError

_TEXT_TYPES = frozenset((None, "text", "output_text"))
_REASONING_TYPES = frozenset(("thinking", "reasoning", "reasoning_text"))
REASONING_NAMES = ("reasoning_content", "reasoning", "thinking")
"""The names of the reasoning beside the content, by their spread: DeepSeek, vLLM and llama.cpp; OpenRouter, Groq and
Ollama; some proxies. Servers that send two of them send the same text twice."""


@dataclass
class ContentTexts:
    """The texts of a message or delta, by kind."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""


def read_content(message: dict[str, Any]) -> ContentTexts:
    """The texts of OpenAI's message or delta. Raises `BackendError`."""
    found = ContentTexts()
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        _add_part(found, part)
    found.reasoning += next((text for name in REASONING_NAMES if (text := _loose_text(message.get(name)))), "")
    refusal = message.get("refusal")
    found.refusal += refusal if isinstance(refusal, str) else ""
    return found


def _add_part(found: ContentTexts, part: object) -> None:
    if part is None:
        return
    if isinstance(part, str):
        found.text += part
        return
    if not isinstance(part, dict):
        raise BackendError("the backend answered with content that is neither text nor a list of parts")
    kind = part.get("type")
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        found.refusal += part["refusal"]
    elif isinstance(kind, str) and kind in _REASONING_TYPES:
        found.reasoning += _loose_text(part.get("thinking")) or _loose_text(part)
    elif (kind is None or isinstance(kind, str)) and kind in _TEXT_TYPES and isinstance(part.get("text"), str):
        found.text += part["text"]
    else:
        shown = f"of the type {display(kind[:40])}" if isinstance(kind, str) else "without a type"
        raise BackendError(f"the backend answered with a content part {shown}, which batuta cannot relay")


def _loose_text(value: object, levels: int = 4) -> str:
    """The text of a value that may be text, parts, or an object with text; a flag or number has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and levels:
        return "".join(_loose_text(each, levels - 1) for each in value)
    if isinstance(value, dict) and levels:
        return next((text for name in ("text", "content") if (text := _loose_text(value.get(name), levels - 1))), "")
    return ""
