"""What the three shapes of answers have in common."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest, parse_object
from batuta_cli.serve.gateway.http_errors import ErrorFormat, HttpError
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.wire import Piece

_SHORT = 64 * 1024
"""Bytes of a body that is read in about a millisecond."""


class Reply(Protocol):
    """One answer in a client's shape. A stream is `begin`, each `piece`, then `end`, or `broken` where it stops."""

    def begin(self) -> bytes:
        """What stands before the first piece."""

    def piece(self, piece: Piece) -> bytes:
        """The events of one piece; empty when it has nothing for a client."""

    def end(self, summary: Summary) -> bytes:
        """The events after the last piece."""

    def broken(self, refusal: HttpError) -> bytes:
        """The error event of a stream that cannot be completed."""

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        """The JSON of an answer that is not streamed."""


class Dialect(Protocol):
    """One of the APIs: how a request is read and an answer written."""

    @property
    def error(self) -> ErrorFormat:
        """How an error is told."""

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        """What is asked for. Raises `HttpError`."""

    def reply(self, asked: ParsedRequest, name: str, created: int) -> Reply:
        """The writer of one answer; `name` is unique to it, `created` is in Unix seconds."""


async def read(shape: Dialect, body: bytes) -> ParsedRequest:
    """What is asked for. A long conversation takes seconds to read, in which others are served. Raises `HttpError`."""
    if len(body) <= _SHORT:
        return shape.read(parse_object(body))
    return await asyncio.get_running_loop().run_in_executor(None, lambda: shape.read(parse_object(body)))


@dataclass
class Calls:
    """Tool calls put together from the parts that a stream has them in."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, parts: object) -> None:
        """Take the `tool_calls` of one piece; a part without an index is a call of its own."""
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                continue
            index = part.get("index")
            if not isinstance(index, int) or not 0 <= index <= len(self.calls):
                index = len(self.calls)
            if index == len(self.calls):
                self.calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            call = self.calls[index]
            function = part.get("function")
            function = function if isinstance(function, dict) else {}
            call["id"] = call["id"] or part.get("id") or ""
            call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""


@dataclass
class ReplyChoice:
    """One choice of an answer that is not streamed."""

    texts: list[str] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    more: dict[str, str] = field(default_factory=dict)
    """Reasoning, a refusal: text beside the text."""
    finish_reason: str = "stop"
    logprobs: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(self.texts)

    def add(self, piece: Piece) -> None:
        """Take one piece of it."""
        if piece.text:
            self.texts.append(piece.text)
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
        if piece.delta:
            self._beside(piece.delta)
        if isinstance(piece.logprobs, dict):
            self._logprobs(piece.logprobs)

    def _beside(self, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                self.calls.add(value)
            elif isinstance(value, str):
                self.more[name] = self.more.get(name, "") + value

    def _logprobs(self, logprobs: dict[str, Any]) -> None:
        kept = self.logprobs = self.logprobs or {}
        for name, value in logprobs.items():
            kept[name] = (kept.get(name) or []) + value if isinstance(value, list) else value


def choices_of(pieces: Sequence[Piece]) -> dict[int, ReplyChoice]:
    """The choices that pieces make up, by index; always the first."""
    choices = {0: ReplyChoice()}
    for piece in pieces:
        choice = choices.get(piece.index)
        if choice is None:
            choice = choices[piece.index] = ReplyChoice()
        choice.add(piece)
    return dict(sorted(choices.items()))
