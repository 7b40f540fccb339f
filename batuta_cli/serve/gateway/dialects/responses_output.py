"""The output items of a response of OpenAI's Responses API, and the events that announce them. No I/O.

An item is opened by `begin`, grows, and is closed by `end`; each step returns its events, numbered by one
`EventNumbers` for the whole stream. `document` is the item as it is in the response, the same whether the response is
streamed or not.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.serve.gateway.dialects.custom_input import CustomInput
from batuta_cli.serve.gateway.dialects.responses_input import encoded_reasoning
from batuta_cli.serve.gateway.dialects.responses_tools import DeclaredTool, ToolKind

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


class EventNumbers:
    """Writes events with consecutive sequence numbers from 0."""

    def __init__(self) -> None:
        self._next = 0

    def pass_by(self, number: object) -> None:
        """Go on after a backend's own event with this number."""
        if type(number) is int:
            self._next = number + 1

    def take(self) -> int:
        """The next sequence number."""
        self._next += 1
        return self._next - 1

    def event(self, kind: str, **fields: Any) -> bytes:
        """An event of a stream."""
        data = orjson.dumps({"type": kind, "sequence_number": self.take(), **fields})
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


class OutputItem(ABC):
    """One item of the output."""

    def __init__(self, numbers: EventNumbers, index: int, id: str) -> None:
        self._numbers = numbers
        self._index = index
        self._id = id
        self.status = IN_PROGRESS

    def begin(self) -> bytes:
        """The event that adds the item."""
        return self._numbers.event("response.output_item.added", output_index=self._index, item=self.document())

    def end(self, status: str) -> bytes:
        """The events that complete the item."""
        events = self.close()
        self.status = status
        return events + self._numbers.event("response.output_item.done", output_index=self._index, item=self.document())

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The item as it is so far."""

    @abstractmethod
    def close(self) -> bytes:
        """The events that complete what is in the item."""

    def _event(self, kind: str, **fields: Any) -> bytes:
        return self._numbers.event(kind, item_id=self._id, output_index=self._index, **fields)


class MessageItem(OutputItem):
    """A message: parts of text and refusals."""

    def __init__(self, numbers: EventNumbers, index: int, id: str) -> None:
        super().__init__(numbers, index, id)
        self._parts: list[dict[str, Any]] = []
        self._texts: list[str] = []
        """Of the last part."""
        self._head = b""

    def document(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": [] if self.status == IN_PROGRESS else self._parts,
        }

    def add_text(self, text: str) -> bytes:
        """More text."""
        events = self._part("output_text")
        self._texts.append(text)
        return events + self._head + orjson.dumps(text) + b',"sequence_number":%d}\n\n' % self._numbers.take()

    def note(self, text: str) -> None:
        """Text of the open part that a backend's own event has told the client."""
        self._part("output_text")
        self._texts.append(text)

    def add_logprobs(self, text: str, logprobs: Sequence[dict[str, Any]]) -> bytes:
        """More text, or none, with the log probabilities of its tokens."""
        events = self._part("output_text")
        self._texts.append(text)
        self._parts[-1]["logprobs"] += logprobs
        return events + self._text_event("delta", delta=text, logprobs=logprobs)

    def add_refusal(self, text: str) -> bytes:
        """More of a refusal."""
        events = self._part("refusal")
        self._texts.append(text)
        return events + self._text_event("delta", delta=text)

    def _part(self, kind: str) -> bytes:
        """The events that open a part of this kind, unless it is open."""
        if self._parts and self._parts[-1]["type"] == kind:
            return b""
        events = self.close()
        empty: dict[str, Any] = {"type": kind}
        empty |= {"refusal": ""} if kind == "refusal" else {"annotations": [], "logprobs": [], "text": ""}
        self._parts.append(empty)
        self._texts = []
        kind, place = "response.output_text.delta", {"item_id": self._id, "output_index": self._index}
        place["content_index"] = len(self._parts) - 1
        data = orjson.dumps({"type": kind, **place, "logprobs": []})[:-1]
        self._head = b"event: " + kind.encode() + b"\ndata: " + data + b',"delta":'
        return events + self._part_event("added")

    def close(self) -> bytes:
        if not self._parts or not (texts := self._texts):
            return b""
        part, text = self._parts[-1], "".join(texts)
        self._texts = []
        if part["type"] == "refusal":
            part["refusal"] = text
            return self._text_event("done", refusal=text) + self._part_event("done")
        part["text"] = text
        return self._text_event("done", text=text, logprobs=part["logprobs"]) + self._part_event("done")

    def _text_event(self, what: str, **fields: Any) -> bytes:
        kind = self._parts[-1]["type"]
        return self._event(f"response.{kind}.{what}", content_index=len(self._parts) - 1, **fields)

    def _part_event(self, what: str) -> bytes:
        return self._event(
            f"response.content_part.{what}", content_index=len(self._parts) - 1, part=dict(self._parts[-1])
        )


class RelayedItem(OutputItem):
    """An item of a backend that speaks the API: its own events tell the client of it."""

    def __init__(self, numbers: EventNumbers, index: int, document: dict[str, Any]) -> None:
        super().__init__(numbers, index, str(document.get("id")))
        self._document = document

    def document(self) -> dict[str, Any]:
        return self._document

    def close(self) -> bytes:
        return b""


class ReasoningItem(OutputItem):
    """Reasoning: as content, or as a summary when the client asked for one."""

    def __init__(self, numbers: EventNumbers, index: int, id: str, *, summary: bool, encoded: bool) -> None:
        """`encoded`: with `encrypted_content`, by which a client sends the reasoning back."""
        super().__init__(numbers, index, id)
        self._names = _SUMMARY if summary else _CONTENT
        self._encoded = encoded
        self._texts: list[str] = []

    def document(self) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._id, "type": "reasoning", "status": self.status, "summary": []}
        if self.status != IN_PROGRESS:
            text = "".join(self._texts)
            item[self._names["list"]] = [{"type": self._names["part"], "text": text}]
            if self._encoded:
                item["encrypted_content"] = encoded_reasoning(text)
        return item

    def begin(self) -> bytes:
        return super().begin() + self._part("added", "")

    def add(self, text: str) -> bytes:
        """More reasoning."""
        self._texts.append(text)
        return self._event(f"response.{self._names['text_event']}.delta", **self._place(), delta=text)

    def close(self) -> bytes:
        text = "".join(self._texts)
        done = self._event(f"response.{self._names['text_event']}.done", **self._place(), text=text)
        return done + self._part("done", text)

    def _part(self, what: str, text: str) -> bytes:
        part = {"type": self._names["part"], "text": text}
        return self._event(f"response.{self._names['part_event']}.{what}", **self._place(), part=part)

    def _place(self) -> dict[str, int]:
        return {self._names["place"]: 0}


_CONTENT = {
    "list": "content",
    "part": "reasoning_text",
    "part_event": "content_part",
    "text_event": "reasoning_text",
    "place": "content_index",
}
_SUMMARY = {
    "list": "summary",
    "part": "summary_text",
    "part_event": "reasoning_summary_part",
    "text_event": "reasoning_summary_text",
    "place": "summary_index",
}
"""The names of a reasoning item's fields and events, by where its text is."""


class CallItem(OutputItem):
    """A call of a tool. `call_id` and `tool` are known when it begins, the arguments arrive in parts."""

    id_prefix = "fc"

    def __init__(self, numbers: EventNumbers, index: int, id: str, call_id: str, tool: DeclaredTool) -> None:
        super().__init__(numbers, index, id)
        self._tool = tool
        self._call_id = call_id
        self._arguments: list[str] = []

    def document(self) -> dict[str, Any]:
        return {
            **self._head("function_call"),
            "arguments": "" if self.status == IN_PROGRESS else "".join(self._arguments),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        named = {"namespace": self._tool.namespace} if self._tool.namespace else {}
        return {
            "id": self._id,
            "type": kind,
            "status": self.status,
            "call_id": self._call_id,
            "name": self._tool.name,
            **named,
        }

    def add(self, arguments: str) -> bytes:
        """More of the arguments."""
        self._arguments.append(arguments)
        return self._event("response.function_call_arguments.delta", delta=arguments)

    def close(self) -> bytes:
        events = b"" if self._arguments else self.add("{}")  # clients parse the arguments as JSON
        return events + self._event("response.function_call_arguments.done", arguments="".join(self._arguments))


class CustomCallItem(CallItem):
    """A call of a custom tool: its argument is free text."""

    id_prefix = "ctc"

    def __init__(self, numbers: EventNumbers, index: int, id: str, call_id: str, tool: DeclaredTool) -> None:
        super().__init__(numbers, index, id, call_id, tool)
        self._input = CustomInput()

    def document(self) -> dict[str, Any]:
        return {
            **self._head("custom_tool_call"),
            "input": "" if self.status == IN_PROGRESS else self._input.text,
        }

    def add(self, arguments: str) -> bytes:
        return self._delta(self._input.add(arguments))

    def close(self) -> bytes:
        events = self._delta(self._input.end())
        return events + self._event("response.custom_tool_call_input.done", input=self._input.text)

    def _delta(self, text: str) -> bytes:
        return self._event("response.custom_tool_call_input.delta", delta=text) if text else b""


class SearchCallItem(CallItem):
    """A search for tools that the client executes. Its arguments have no events."""

    id_prefix = "tsc"

    def document(self) -> dict[str, Any]:
        head = self._head("tool_search_call")
        del head["name"]
        arguments = {} if self.status == IN_PROGRESS else _object("".join(self._arguments))
        return {**head, "execution": "client", "arguments": arguments}

    def add(self, arguments: str) -> bytes:
        self._arguments.append(arguments)
        return b""

    def close(self) -> bytes:
        return b""


CALL_ITEMS: Mapping[ToolKind, type[CallItem]] = {
    ToolKind.FUNCTION: CallItem,
    ToolKind.CUSTOM: CustomCallItem,
    ToolKind.SEARCH: SearchCallItem,
}


def _object(arguments: str) -> dict[str, Any]:
    """Arguments as an object; text that is no object is returned to the client as it is, under `query`."""
    try:
        value = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"query": arguments}
