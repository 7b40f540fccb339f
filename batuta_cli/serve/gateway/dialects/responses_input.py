"""The input of OpenAI's Responses API as messages of a chat completion. No I/O.

    reader = InputReader(tools)
    reader.instructions("Be brief.")
    reader.add(document["input"])
    messages = reader.messages()

An assistant's reasoning, text and calls, which are separate items, become one message with `reasoning_content`. Roles
system and developer become system; those at the beginning become one message, because many chat templates take one
system message only. Results follow their calls directly, as chat completions demand, and images in results become a
user message after them. What only OpenAI's service can read is named in `native_only`; it is in the messages for their
size only, because no request that has it is translated.

Source: https://platform.openai.com/docs/api-reference/responses/create. Errors are `InvalidInputError`, which name the
item by its number, from 1, and `HttpError` for tools.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.gateway.dialects.fields import OBJECT
from batuta_cli.serve.gateway.dialects.responses_tools import INPUT, ResponseTools, ToolKind, function_name, shown_type
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
_ENCODED = "batuta1."
"""The beginning of `encrypted_content` that this gateway wrote: the reasoning follows in base64."""

Part = dict[str, Any]


@dataclass
class _Turn:
    """The items of an assistant that become one message."""

    reasoning: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)


class InputReader:
    """Collects the messages of one request. Items may declare further tools, which are added to `tools`."""

    def __init__(self, tools: ResponseTools) -> None:
        self.dropped: set[str] = set()
        """What was left out, as names for `X-Batuta-Dropped`."""
        self.native_only: set[str] = set()
        """Items and fields that only OpenAI's service has."""
        self._tools = tools
        self._system: list[str] = []
        self._messages: list[ChatMessage] = []
        self._later: list[ChatMessage] = []
        """Messages that follow the results of the open calls."""
        self._turn: _Turn | None = None
        self._open_calls: set[str] = set()

    def instructions(self, text: str) -> None:
        """Add the instructions, which precede the input."""
        self._system.append(text)

    def add(self, input: object) -> None:
        """Add the input: text, or a list of items. Raises `InvalidInputError` and `HttpError`."""
        if isinstance(input, str):
            self._append(ChatMessage.user(input))
            return
        if not isinstance(input, list):
            raise InvalidInputError("must be text or a list of items")
        for number, item in enumerate(input, 1):
            try:
                self._item(item)
            except InvalidInputError as error:
                raise InvalidInputError(f"item {number}: {error.message}") from None

    def messages(self) -> list[ChatMessage]:
        """All messages. Raises `InvalidInputError` when the input is empty."""
        self._end_turn()
        system = [ChatMessage.system("\n\n".join(self._system))] if self._system else []
        messages = [*system, *self._messages, *self._later]
        if not messages:
            raise InvalidInputError("has no items")
        return messages

    def _item(self, item: object) -> None:
        if not isinstance(item, dict) or not OBJECT.holds(item):
            raise InvalidInputError(f"must be {OBJECT.description}")
        kind = item.get("type")
        if kind is None:
            kind = "message" if "role" in item else "item_reference"
        if not isinstance(kind, str):
            raise InvalidInputError("type must be text")
        if kind == "item_reference":
            raise InvalidInputError("is a reference; send the item itself, because batuta keeps no responses")
        if read := _ITEMS.get(kind):
            read(self, item)
        elif kind in _DROPPED_ITEMS:
            self.dropped.add(f"input.{kind}")
        else:
            self.native_only.add(f"input.{shown_type(kind)}")
            self._append(ChatMessage(Role.USER, "", parts=({**item, "type": kind},)))  # it counts as part of the prompt

    def _message(self, item: dict[str, Any]) -> None:
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidInputError(f"role must be one of {', '.join(_ROLES)}")
        parts = self._parts(item.get("content"))
        if _ROLES[role] is Role.ASSISTANT:
            self._assistant().parts += parts
            return
        self._end_turn()
        only_text = all(part["type"] == "text" for part in parts)
        if _ROLES[role] is Role.SYSTEM and only_text and not self._messages and not self._later:
            self._system.append("\n\n".join(part["text"] for part in parts))
        else:
            self._append(_message(_ROLES[role], parts))

    def _reasoning(self, item: dict[str, Any]) -> None:
        encrypted = _decoded(item.get("encrypted_content"))
        if item.get("encrypted_content") and not encrypted:
            self.dropped.add("input.encrypted_content")
        if texts := _texts(item.get("content")) or encrypted or _texts(item.get("summary")):
            self._assistant().reasoning += texts

    def _function_call(self, item: dict[str, Any]) -> None:
        name = function_name(_text(item, "name"), item.get("namespace"))
        self._call(ToolCall(_text(item, "call_id"), name, _text(item, "arguments") or "{}"))

    def _custom_call(self, item: dict[str, Any]) -> None:
        name = function_name(_text(item, "name"), item.get("namespace"))
        arguments = json.dumps({INPUT: _text(item, "input")}, ensure_ascii=False)
        self._call(ToolCall(_text(item, "call_id"), name, arguments))

    def _search_call(self, item: dict[str, Any]) -> None:
        if item.get("execution") != "client" or not isinstance(item.get("call_id"), str):
            self.dropped.add("input.tool_search_call")
            return
        arguments = json.dumps(item.get("arguments") or {}, ensure_ascii=False)
        self._call(ToolCall(item["call_id"], ToolKind.SEARCH.value, arguments))

    def _search_output(self, item: dict[str, Any]) -> None:
        self._tools.add(item.get("tools"))
        if not isinstance(item.get("call_id"), str):
            self.dropped.add("input.tool_search_output")
            return
        self._result(item["call_id"], [{"type": "text", "text": _found(item["tools"])}])

    def _output(self, item: dict[str, Any]) -> None:
        self._result(_text(item, "call_id"), self._parts(item.get("output")))

    def _more_tools(self, item: dict[str, Any]) -> None:
        self._tools.add(item.get("tools"))

    def _assistant(self) -> _Turn:
        if self._turn is None:
            self._turn = _Turn()
        return self._turn

    def _call(self, call: ToolCall) -> None:
        self._assistant().calls.append(call)

    def _result(self, call_id: str, parts: list[Part]) -> None:
        self._end_turn()
        if call_id not in self._open_calls:
            raise InvalidInputError(
                "is the result of a call that is not before it; send the call too, because batuta keeps no responses"
            )
        texts = [part for part in parts if part["type"] == "text"]
        media = [part for part in parts if part["type"] != "text"]
        self._messages.append(_message(Role.TOOL, texts, tool_call_id=call_id))
        if media:
            title = {"type": "text", "text": f"From the result of the tool call {call_id}:"}
            self._later.append(_message(Role.USER, [title, *media]))
        self._open_calls.discard(call_id)
        if not self._open_calls:
            self._take_later()

    def _append(self, message: ChatMessage) -> None:
        self._end_turn()
        (self._later if self._open_calls else self._messages).append(message)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        self._take_later()
        fields = {"reasoning_content": "\n\n".join(turn.reasoning)} if turn.reasoning else {}
        self._messages.append(_message(Role.ASSISTANT, turn.parts, tool_calls=tuple(turn.calls), fields=fields))
        self._open_calls = {call.id for call in turn.calls}

    def _take_later(self) -> None:
        self._messages += self._later
        self._later = []

    def _parts(self, content: object) -> list[Part]:
        """Content as the parts of a chat completion."""
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise InvalidInputError("its content or output must be text or a list of parts")
        parts = []
        for part in content:
            read = _PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
            if read is None:
                raise InvalidInputError(f"has a part that is not one of {', '.join(_PARTS)}")
            if part.get("prompt_cache_breakpoint"):
                self.dropped.add("input.prompt_cache_breakpoint")
            self.native_only.update(f"input.{name}" for name in _KEPT_FILES if part.get(name))
            parts.append(read(part))
        return parts


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidInputError(f"needs {name}, which must be text")
    return value


def _text_part(part: Part) -> Part:
    return {"type": "text", "text": _text(part, "text")}


def _refusal_part(part: Part) -> Part:
    return {"type": "text", "text": _text(part, "refusal")}


def _image_part(part: Part) -> Part:
    image = _fields(part, {"image_url": "url", "file_id": "file_id", "detail": "detail"})
    if "url" not in image and "file_id" not in image:
        raise InvalidInputError("has a part of type input_image without image_url")
    return {"type": "image_url", "image_url": image}


def _file_part(part: Part) -> Part:
    file = _fields(part, {name: name for name in ("file_data", "filename", *_KEPT_FILES)})
    if file.keys() <= {"filename"}:
        raise InvalidInputError("has a part of type input_file without file_data")
    return {"type": "file", "file": file}


def _fields(part: Part, names: Mapping[str, str]) -> dict[str, str]:
    """The texts of a part, under their names in a chat completion."""
    return {name: part[given] for given, name in names.items() if isinstance(part.get(given), str)}


def _audio_part(part: Part) -> Part:
    if not isinstance(part.get("input_audio"), dict):
        raise InvalidInputError("has a part of type input_audio without its object")
    return {"type": "input_audio", "input_audio": part["input_audio"]}


_ITEMS: Mapping[str, Callable[[InputReader, dict[str, Any]], None]] = {
    "message": InputReader._message,
    "reasoning": InputReader._reasoning,
    "function_call": InputReader._function_call,
    "function_call_output": InputReader._output,
    "custom_tool_call": InputReader._custom_call,
    "custom_tool_call_output": InputReader._output,
    "tool_search_call": InputReader._search_call,
    "tool_search_output": InputReader._search_output,
    "additional_tools": InputReader._more_tools,
}
"""The types of items that become messages or tools."""

_DROPPED_ITEMS = frozenset(("web_search_call",))
"""Records of hosted tools without content: what was found is in the assistant's text."""

_KEPT_FILES = ("file_id", "file_url")
"""Fields of a content part with a file that OpenAI's service keeps or fetches."""

_PARTS: Mapping[str, Callable[[Part], Part]] = {
    "input_text": _text_part,
    "output_text": _text_part,
    "text": _text_part,
    "refusal": _refusal_part,
    "input_image": _image_part,
    "input_file": _file_part,
    "input_audio": _audio_part,
}
"""The types of content parts."""


def _message(role: Role, parts: Sequence[Part], **more: Any) -> ChatMessage:
    """A message whose content is plain text when it has one text."""
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    is_plain = all(part["type"] == "text" for part in parts) and len(parts) <= 1
    return ChatMessage(role, text, parts=() if is_plain else tuple(parts), **more)


def _texts(parts: object) -> list[str]:
    """The texts of a reasoning item's content or summary."""
    return [
        part["text"]
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]
    ]


def encoded_reasoning(text: str) -> str:
    """The `encrypted_content` of reasoning; a client that keeps nothing sends it back with the next request.

    It is encoded, not encrypted: the client has the same text in the item's content.
    """
    return _ENCODED + base64.b64encode(text.encode()).decode()


def _decoded(content: object) -> list[str]:
    """The reasoning in `encrypted_content` that this gateway wrote; nothing of another service's."""
    if not isinstance(content, str) or not content.startswith(_ENCODED):
        return []
    try:
        return [base64.b64decode(content.removeprefix(_ENCODED), validate=True).decode()]
    except ValueError:
        return []


def _found(tools: Sequence[Any]) -> str:
    """The result of a search for tools, as text for the model: their names, which are functions from then on."""
    names = []
    for tool in tools:
        nested = tool.get("tools") if tool.get("type") == "namespace" else None
        names += [function_name(each["name"], tool["name"]) for each in nested] if nested else [str(tool.get("name"))]
    return f"Found tools: {', '.join(names)}" if names else "Found no tools."
