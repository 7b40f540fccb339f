"""Splice: the client receives each character once, also when a backend repeats the beginning or cuts a word in two."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError
from batuta_cli.serve.pipeline.failover import FailoverManager
from batuta_cli.serve.pipeline.splice import ECHO_EVIDENCE, Echo, Splice, SpliceError, remaining_tokens
from batuta_cli.serve.retry import FailoverConfig

CHARACTERS = st.one_of(st.sampled_from("ab \n\té漢👩\u200d\u2028"), st.characters(exclude_categories=["Cs"]))
TEXT = st.text(CHARACTERS, max_size=60)
LONG = st.text(CHARACTERS, min_size=ECHO_EVIDENCE, max_size=60)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    """`text` cut at `cuts`, each taken modulo its length; empty pieces included, as backends send them."""
    places = sorted([0, len(text), *(cut % (len(text) + 1) for cut in cuts)])
    return [text[start:end] for start, end in pairwise(places)]


def through(joint: Splice, stream: str, cuts: list[int]) -> str:
    return "".join(joint.feed(piece) for piece in pieces_of(stream, cuts)) + joint.finish()


CUTS = st.lists(st.integers(0, 1000), max_size=12)


@given(text=TEXT, cut=st.integers(0, 60), echoes=st.booleans(), cuts=CUTS)
@example(text="aaaa", cut=1, echoes=False, cuts=[0, 1])
@example(text="aaaa", cut=2, echoes=True, cuts=[0, 1, 3])
def test_a_text_cut_anywhere_comes_out_whole_where_it_is_known_whether_the_backend_echoes(
    text: str, cut: int, echoes: bool, cuts: list[int]
) -> None:
    prefix, cooldown = text[:cut], text[cut:]
    joint = Splice(prefix, echo=Echo.ALWAYS if echoes else Echo.NEVER)
    assert prefix + through(joint, prefix + cooldown if echoes else cooldown, cuts) == text


@given(prefix=LONG, cooldown=TEXT, echoes=st.booleans(), cuts=CUTS)
def test_a_long_echo_is_known_for_what_it_is_although_nobody_said_so(
    prefix: str, cooldown: str, echoes: bool, cuts: list[int]
) -> None:
    assume(not cooldown.startswith(prefix))
    assert through(Splice(prefix), prefix + cooldown if echoes else cooldown, cuts) == cooldown


@given(prefix=TEXT.filter(lambda t: len(t) < ECHO_EVIDENCE), cooldown=TEXT, cuts=CUTS)
@example(prefix="ha", cooldown="hahaha", cuts=[])
def test_a_short_repetition_is_the_text_s_own_where_nothing_is_known(
    prefix: str, cooldown: str, cuts: list[int]
) -> None:
    assert through(Splice(prefix), cooldown, cuts) == cooldown


@given(prefix=LONG, cooldown=TEXT, cuts=CUTS, part=st.integers(0, 60))
def test_a_part_of_the_prefix_is_never_taken_off(prefix: str, cooldown: str, cuts: list[int], part: int) -> None:
    stream = prefix[: part % len(prefix)] + cooldown
    assume(not stream.startswith(prefix))
    assert through(Splice(prefix), stream, cuts) == stream


@given(words=st.text("abé漢", min_size=1, max_size=30), blank=st.text(" \n\t", min_size=1, max_size=4), cuts=CUTS)
@pytest.mark.parametrize("echo", [Echo.NEVER, Echo.ALWAYS])
def test_white_space_that_a_backend_dropped_and_wrote_again_stands_there_once(
    words: str, blank: str, cuts: list[int], echo: Echo
) -> None:
    sent, cooldown = words + blank, "and so on"
    again = (words if echo is Echo.ALWAYS else "") + blank + cooldown
    assert sent + through(Splice(sent, echo=echo, trims=True), again, cuts) == words + blank + cooldown


@pytest.mark.parametrize(
    ("prefix", "stream", "new"),
    [
        ("Hello ", "world", "world"),
        ("Hello \n\n", " \nworld", "world"),
        ("Hello ", "  world", " world"),
        ("Hello\n", " world", " world"),
        ("Hello", " world", " world"),
        ("  ", "  Hello", "Hello"),
    ],
)
def test_no_more_white_space_goes_than_was_there_already(prefix: str, stream: str, new: str) -> None:
    for step in range(1, len(stream) + 1):
        assert through(Splice(prefix, echo=Echo.NEVER, trims=True), stream, list(range(0, 99, step))) == new


def test_white_space_stays_where_the_backend_drops_none() -> None:
    assert through(Splice("one\n", echo=Echo.NEVER), "\ntwo", []) == "\ntwo"


@pytest.mark.parametrize("stream", ["Bonjour", "Hello, wor", "Hell"])
def test_a_backend_that_always_echoes_and_says_something_else_cannot_be_joined(stream: str) -> None:
    with pytest.raises(SpliceError) as caught:
        through(Splice("Hello, world", echo=Echo.ALWAYS), stream, [1, 2, 3])
    assert isinstance(caught.value, BatutaError) and caught.value.exit_code == 1
    assert "Hello" not in caught.value.message


def test_a_backend_that_says_nothing_at_all_has_broken_nothing() -> None:
    assert through(Splice("Hello", echo=Echo.ALWAYS), "", []) == ""


def test_text_is_handed_on_as_soon_as_it_cannot_be_an_echo() -> None:
    prefix = "The quick brown fox"
    joint = Splice(prefix)
    assert joint.feed("The qu") == ""
    assert joint.feed("iet") == "The quiet"
    assert joint.feed("The quick brown fox") == "The quick brown fox"


def test_a_leg_that_breaks_off_in_its_echo_has_added_nothing() -> None:
    prefix = "The quick brown fox"
    first = Splice(prefix)
    assert first.feed("The quick ") == ""
    second = Splice(prefix)
    assert prefix + second.feed("The quick brown fox jumps") + second.finish() == "The quick brown fox jumps"


@pytest.mark.parametrize(("limit", "sent", "left"), [(None, 7, None), (100, 0, 100), (100, 99, 1), (100, 130, 0)])
def test_what_was_sent_counts_towards_the_limit(limit: int | None, sent: int, left: int | None) -> None:
    assert remaining_tokens(limit, sent) == left


@given(
    text=TEXT,
    attempts=st.lists(
        st.tuples(st.sampled_from([Echo.NEVER, Echo.ALWAYS]), st.booleans(), st.integers(0, 60)), max_size=5
    ),
)
def test_a_text_that_passes_through_many_backends_reaches_the_client_once(
    text: str, attempts: list[tuple[Echo, bool, int]]
) -> None:
    manager = FailoverManager(FailoverConfig(max_retries=len(attempts)))
    manager.start_tracking("r", "prompt")
    client = ""

    def attempt(echo: Echo, trims: bool, dies_after: int | None) -> None:
        """One backend goes on with what was said; it dies after so many characters, or finishes."""
        nonlocal client
        prefix = manager.context("r").generated
        given = prefix.rstrip() if trims else prefix
        stream = (given if echo is Echo.ALWAYS else "") + text[len(given) :]
        joint = Splice(prefix, echo=echo, trims=trims)
        sent = [joint.feed(character) for character in stream[:dies_after]]
        sent += [joint.finish()] if dies_after is None else []
        for new in sent:
            client += new
            manager.append_tokens("r", new)

    for echo, trims, dies_after in attempts:
        attempt(echo, trims, dies_after)
        assert manager.prepare_failover("r").generated_prefix == client == text[: len(client)]
    attempt(Echo.NEVER, False, None)
    assert client == text
