"""The pieces of one attempt on their way to the client.

Usage is left to the end of the response. Finish reasons are held back until the attempt is complete. The backend's own
events (`Piece.raw`) are held back before the first one with content, because another backend may start over while
nothing has reached the client, and from the first finish reason on.
"""

from collections.abc import Iterable
from dataclasses import replace

from batuta_cli.serve.pipeline.failover import FailoverState, Obstacle
from batuta_cli.serve.pipeline.splice import Splice
from batuta_cli.serve.providers.wire import FinishReason, Piece

_OBSTACLES = {
    "tool_calls": Obstacle.TOOL_CALLS,
    "function_call": Obstacle.TOOL_CALLS,
    "reasoning_content": Obstacle.REASONING,
    "reasoning": Obstacle.REASONING,
    "refusal": Obstacle.REFUSAL,
}


class Relay:
    """Relays the pieces of one attempt, and notes in the failover state what the client receives."""

    def __init__(self, failover: FailoverState, splice: Splice | None = None) -> None:
        self.ends: dict[int, FinishReason] = {}
        """The finish reason of each choice that has ended."""
        self._failover = failover
        self._splice = splice
        self._lead: list[Piece] = []
        self._tail: list[Piece] = []
        self._unwritten: dict[int, Piece] = {}
        """Finish reasons that are in no event of `_tail`."""
        self._begun = False

    def feed(self, pieces: Iterable[Piece], new: list[Piece]) -> None:
        """Append the pieces for the client to `new`. Raises `SpliceError`; then `new` has the pieces before."""
        for piece in pieces:
            if piece.finish_reason:
                self.ends[piece.index] = piece.finish_reason
            if piece.raw is not None:
                self._feed_raw(piece, new)
                continue
            text = self._splice.feed(piece.text) if self._splice else piece.text
            if piece.finish_reason:
                self._unwritten[piece.index] = Piece(
                    finish_reason=piece.finish_reason, index=piece.index, stop=piece.stop
                )
            if text or piece.delta or piece.logprobs or piece.embeddings:
                self._send(
                    Piece(
                        text,
                        finish_reason=None,
                        usage=None,
                        delta=piece.delta,
                        index=piece.index,
                        logprobs=piece.logprobs,
                        embeddings=piece.embeddings,
                    ),
                    new,
                )

    def _feed_raw(self, piece: Piece, new: list[Piece]) -> None:
        if piece.finish_reason or (self.ends and not piece.has_content):
            self._tail.append(piece)
        elif piece.has_content:
            self._send(piece, new)
        elif self._begun:
            new.append(piece)
        else:
            self._lead.append(piece)

    def _send(self, piece: Piece, new: list[Piece]) -> None:
        if self._lead:
            new += self._lead
            self._lead.clear()
        self._begun = True
        self._note(piece)
        new.append(piece)

    def _note(self, piece: Piece) -> None:
        for name in piece.delta or ():
            if name in _OBSTACLES:
                self._failover.obstruct(_OBSTACLES[name])
        if piece.opaque:
            self._failover.obstruct(Obstacle.UNKNOWN)
        self._failover.append(piece.text)
        if not piece.text and piece.has_content:
            self._failover.mark_sent()

    def finish(self) -> list[Piece]:
        """The pieces held back, of an attempt that is complete. Raises `SpliceError`."""
        last = []
        if self._splice and (text := self._splice.finish()):
            self._failover.append(text)
            last.append(Piece(text))
        for piece in self._tail:
            self._note(piece)
        last += self._unwritten.values()
        return [*self._lead, *last, *(replace(piece, usage=None) for piece in self._tail)]
