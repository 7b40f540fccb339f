"""What of an attempt reaches the client, and when; a backend's own events are held back at the beginning and end."""

from typing import Any

from batuta_cli.serve.pipeline.failover import FailoverState, Obstacle
from batuta_cli.serve.pipeline.relay import Relay
from batuta_cli.serve.pipeline.splice import Splice
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import Piece, Usage
from batuta_cli.serve.retry import FailoverConfig


def state() -> FailoverState:
    return FailoverState("r", "", FailoverConfig())


def raw(name: str, text: str = "", **more: Any) -> Piece:
    return Piece(text, raw=Event("", name.encode()), **more)


def names(pieces: list[Piece]) -> list[str]:
    return [piece.raw.data.decode() if isinstance(piece.raw, Event) else piece.text for piece in pieces]


def fed(relay: Relay, *pieces: Piece) -> list[str]:
    new: list[Piece] = []
    relay.feed(pieces, new)
    return names(new)


def test_nothing_is_sent_before_the_first_content() -> None:
    failover = state()
    relay = Relay(failover)
    assert fed(relay, raw("start"), raw("ping")) == []
    assert not failover.reached_client
    assert fed(relay, raw("text", "Hi")) == ["start", "ping", "text"]
    assert failover.reached_client and failover.context().generated == "Hi"
    assert fed(relay, raw("ping"), raw("more", "!")) == ["ping", "more"]
    assert failover.context().generated == "Hi!"


def test_the_end_is_held_back_until_the_attempt_is_complete() -> None:
    failover = state()
    relay = Relay(failover)
    end = raw("end", "!", finish_reason="stop", usage=Usage(1, 2))
    assert fed(relay, raw("text", "Hi"), end, raw("usage", usage=Usage(1, 2)), raw("stop")) == ["text"]
    assert failover.context().generated == "Hi"
    last = relay.finish()
    assert names(last) == ["end", "usage", "stop"]
    assert all(piece.usage is None for piece in last)
    assert failover.context().generated == "Hi!"
    assert relay.ends == {0: "stop"}


def test_the_end_of_one_choice_does_not_hold_back_the_others() -> None:
    relay = Relay(state())
    assert fed(relay, raw("a", "a"), raw("a ends", finish_reason="stop"), raw("b", "b", index=1)) == ["a", "b"]
    assert names(relay.finish()) == ["a ends"]


def test_a_response_without_content_is_relayed_at_its_end() -> None:
    relay = Relay(state())
    assert fed(relay, raw("start"), raw("end", finish_reason="stop")) == []
    assert names(relay.finish()) == ["start", "end"]


def test_content_that_is_not_understood_is_relayed_and_keeps_others_from_continuing() -> None:
    failover = state()
    relay = Relay(failover)
    assert fed(relay, raw("start"), raw("odd", opaque=True)) == ["start", "odd"]
    assert failover.reached_client
    assert failover.context().obstacles == {Obstacle.UNKNOWN}


def test_pieces_without_an_event_are_joined_to_the_text_before() -> None:
    failover = state()
    relay = Relay(failover, Splice("Once upon"))
    assert fed(relay, Piece(" a"), Piece(finish_reason="stop", stop="END")) == [" a"]
    (last,) = relay.finish()
    assert (last.finish_reason, last.stop, last.raw) == ("stop", "END", None)


def test_an_end_that_was_mended_comes_before_the_events_after_it() -> None:
    relay = Relay(state())
    assert fed(relay, raw("text", "Hi"), Piece(finish_reason="stop"), raw("usage", usage=Usage(1, 1))) == ["text"]
    assert [piece.finish_reason or names([piece])[0] for piece in relay.finish()] == ["stop", "usage"]
