"""The content blocks of Anthropic's messages as OpenAI's messages and content parts (anthropic.types.*BlockParam).

Results of tools become separate messages, before the rest of their turn; images in a result follow as content of
the user, because OpenAI's tool messages have text only. A block without a counterpart makes Anthropic's API necessary.
Malformed blocks are `InvalidInputError`, which names the message by its number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.gateway.dialects.anthropic_fields import BLOCKS
from batuta_cli.serve.gateway.dialects.fields import OBJECT
from batuta_cli.serve.gateway.dialects.treatment import Treatment
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, check_tool_results

Block = dict[str, Any]
Part = dict[str, Any]

_BLOCK_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset(("text",)),
    "image": frozenset(("source",)),
    "document": frozenset(("source", "title", "context")),
    "search_result": frozenset(("source", "title", "content")),
    "thinking": frozenset(("thinking", "signature")),
    "tool_use": frozenset(("id", "name", "input")),
    "tool_result": frozenset(("tool_use_id", "content")),
}
"""The fields of each type of block that are translated. Its other fields are dropped."""


@dataclass
class Conversation:
    """Reads the messages of one request, and notes what cannot be translated."""

    dropped: set[str] = field(default_factory=set)
    native_only: list[str] = field(default_factory=list)

    def read(self, document: Mapping[str, Any]) -> list[ChatMessage]:
        """The messages, with the system text first. Raises `InvalidInputError`."""
        turns = document.get("messages")
        if not isinstance(turns, list) or not turns:
            raise InvalidInputError("messages must be a list with at least one message")
        messages = []
        if document.get("system"):
            messages.append(ChatMessage.system(self._text(document["system"], "system")))
        for number, turn in enumerate(turns, 1):
            try:
                messages += self._turn(turn)
            except InvalidInputError as error:
                raise InvalidInputError(f"message {number}: {error.message}") from None
        check_tool_results(messages)
        return messages

    def _turn(self, turn: object) -> list[ChatMessage]:
        read = _TURNS.get(str(turn.get("role"))) if isinstance(turn, dict) else None
        if read is None or not isinstance(turn, dict):
            raise InvalidInputError("must be an object with the role user, assistant or system")
        content = turn.get("content")
        if isinstance(content, str):
            return [ChatMessage(Role(turn["role"]), content)]
        if not isinstance(content, list) or not content:
            raise InvalidInputError("content must be text or a list of blocks")
        return read(self, [_block(block) for block in content])

    def _system(self, blocks: list[Block]) -> list[ChatMessage]:
        return [ChatMessage.system(self._text(blocks, "a system message"))]

    def _assistant(self, blocks: list[Block]) -> list[ChatMessage]:
        texts, calls, thoughts = [], [], []
        for block in blocks:
            kind = block["type"]
            if kind == "tool_use":
                calls.append(_call(block))
            elif kind == "thinking":
                thoughts.append(_string(block, "thinking"))
            elif kind == "text":
                texts.append(_string(block, "text"))
            elif kind == "tool_result":
                raise InvalidInputError("a tool_result block belongs to the user")
            elif _is_dropped(kind):
                self.dropped.add(kind)
            else:
                self._only_native(kind)
            self._note_dropped(block)
        fields = {"reasoning_content": "".join(thoughts)} if any(thoughts) else {}
        return [ChatMessage(Role.ASSISTANT, "".join(texts), tool_calls=tuple(calls), fields=fields)]

    def _user(self, blocks: list[Block]) -> list[ChatMessage]:
        results: list[ChatMessage] = []
        parts: list[Part] = []
        for block in blocks:
            if block["type"] in ("tool_use", "thinking"):
                raise InvalidInputError(f"a {block['type']} block belongs to the assistant")
            if block["type"] == "tool_result":
                self._note_dropped(block)
                result, media = self._result(block)
                results.append(result)
                parts += media
            else:
                parts += self._parts(block)
        return [*results, *([_message(Role.USER, parts)] if parts or not results else [])]

    def _result(self, block: Block) -> tuple[ChatMessage, list[Part]]:
        if not isinstance(block.get("tool_use_id"), str):
            raise InvalidInputError("a tool_result block needs a tool_use_id")
        content = block.get("content") or ""
        if isinstance(content, str):
            return ChatMessage.tool(content, block["tool_use_id"]), []
        if not isinstance(content, list):
            raise InvalidInputError("a tool_result must have text or a list of blocks")
        parts = [part for each in content for part in self._parts(_block(each))]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        return ChatMessage.tool(text, block["tool_use_id"]), [part for part in parts if part["type"] != "text"]

    def _parts(self, block: Block) -> list[Part]:
        """A block of content as parts."""
        self._note_dropped(block)
        read = _CONTENT.get(block["type"])
        if read is not None:
            return read(self, block)
        if _is_dropped(block["type"]):
            self.dropped.add(block["type"])
            return []
        self._only_native(block["type"])
        return [block]

    def _text_part(self, block: Block) -> list[Part]:
        return [_text(_string(block, "text"))]

    def _image(self, block: Block) -> list[Part]:
        source = _source(block)
        url = source.get("url") if source["type"] == "url" else _data_url(source, "an image")
        if not isinstance(url, str):
            self._only_native(f"image {source['type']}")
            url = ""
        return [{"type": "image_url", "image_url": {"url": url}}]

    def _document(self, block: Block) -> list[Part]:
        source = _source(block)
        title, context = (value if isinstance(value := block.get(name), str) else "" for name in ("title", "context"))
        head = [_text(f"{text}\n") for text in (title, context) if text]
        if source["type"] == "text":
            return [*head, _text(_string(source, "data"))]
        if source["type"] == "content":
            content = source.get("content")
            blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
            return [*head, *(part for each in blocks for part in self._parts(_block(each)))]
        data = _data_url(source, "a document")
        if data is None:
            self._only_native(f"document {source['type']}")
        file = {"type": "file", "file": {"filename": title or "document", "file_data": data or ""}}
        return [*([_text(f"{context}\n")] if context else []), file]

    def _search_result(self, block: Block) -> list[Part]:
        head = [block[name] for name in ("title", "source") if isinstance(block.get(name), str)]
        content = block.get("content")
        return [_text("\n".join([*head, self._text(content if isinstance(content, list) else [], "a search_result")]))]

    def _text(self, content: object, what: str) -> str:
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise InvalidInputError(f"{what} must be text or a list of blocks")
        texts = []
        for block in map(_block, content):
            if block["type"] != "text":
                raise InvalidInputError(f"{what} must have blocks of the type text only")
            self._note_dropped(block)
            texts.append(_string(block, "text"))
        return "".join(texts)

    def _only_native(self, kind: str) -> None:
        shown = kind[:60] if kind.isascii() and kind.isprintable() else "unknown"
        self.native_only.append(f"{shown} blocks")

    def _note_dropped(self, block: Block) -> None:
        known = _BLOCK_FIELDS.get(block["type"])
        if known is not None:
            names = {name for name, value in block.items() if value is not None and name not in known}
            self.dropped |= {name[:60] for name in names - {"type"}}


_TURNS: dict[str, Callable[[Conversation, list[Block]], list[ChatMessage]]] = {
    "user": Conversation._user,
    "assistant": Conversation._assistant,
    "system": Conversation._system,
}
_CONTENT: dict[str, Callable[[Conversation, Block], list[Part]]] = {
    "text": Conversation._text_part,
    "image": Conversation._image,
    "document": Conversation._document,
    "search_result": Conversation._search_result,
}


def _message(role: Role, parts: list[Part]) -> ChatMessage:
    """A message with parts if one of them is not text."""
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    return ChatMessage(role, text, parts=tuple(parts) if any(part["type"] != "text" for part in parts) else ())


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _is_dropped(kind: str) -> bool:
    row = BLOCKS.get(kind)
    return row is not None and row.treatment is Treatment.DROPPED


def _block(block: object) -> Block:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise InvalidInputError("has a block without a type")
    return block


def _string(block: Block, name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise InvalidInputError(f"has a block of the type {str(block.get('type'))[:40]!r} whose {name} is missing")
    return value


def _source(block: Block) -> Block:
    source = block.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("type"), str):
        raise InvalidInputError(f"has a block of the type {block['type']!r} without a source")
    return source


def _data_url(source: Block, what: str) -> str | None:
    """The data of a source as a URL; None for a source of another type than base64."""
    if source["type"] != "base64":
        return None
    kind, data = source.get("media_type"), source.get("data")
    if not isinstance(kind, str) or not isinstance(data, str):
        raise InvalidInputError(f"{what} must have a media_type and data")
    return f"data:{kind};base64,{data}"


def _call(block: Block) -> ToolCall:
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise InvalidInputError("a tool_use block needs an id and a name")
    if not isinstance(block.get("input"), dict) or not OBJECT.holds(block["input"]):
        raise InvalidInputError("the input of a tool_use block must be an object")
    return ToolCall(block["id"], block["name"], orjson.dumps(block["input"]).decode())
