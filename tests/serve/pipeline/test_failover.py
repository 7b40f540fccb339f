"""Failover: what is remembered of a request, how often it is tried, and who may go on with it."""

from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from batuta_cli.errors import BatutaError, NoBackendError, QueueFullError, UsageError
from batuta_cli.serve.backends.profile import Continuation, ContinuationMethod
from batuta_cli.serve.pipeline import failover
from batuta_cli.serve.pipeline.failover import (
    FailoverManager,
    FailoverRequest,
    Obstacle,
    StreamingContext,
    Takeover,
    UnknownRequestError,
    continuation,
)
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.tiers import PrivacyTier

EXACT = Continuation(method=ContinuationMethod.FIELDS)
NONE = Continuation()
IDS = st.sampled_from(["a", "b", "c"])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Requests that begin, say something, fail and end in any order, beside a plain record of it all."""

    def __init__(self) -> None:
        super().__init__()
        self.retries = 2
        self.manager = FailoverManager(FailoverConfig(max_retries=self.retries))
        self.seen: dict[str, str] = {}
        self.tries: dict[str, int] = {}

    @rule(name=IDS)
    def begins(self, name: str) -> None:
        if name in self.seen:
            with pytest.raises(UsageError):
                self.manager.start_tracking(name, "another prompt")
            return
        self.manager.start_tracking(name, f"prompt of {name}")
        self.seen[name], self.tries[name] = "", 0

    @rule(name=IDS, text=WORDS)
    def says(self, name: str, text: str) -> None:
        if name in self.seen:
            self.manager.append_tokens(name, text)
            self.seen[name] += text
        else:
            with pytest.raises(UnknownRequestError):
                self.manager.append_tokens(name, text)

    @rule(name=IDS)
    def fails(self, name: str) -> None:
        if name not in self.seen:
            with pytest.raises(UnknownRequestError):
                self.manager.prepare_failover(name)
        elif self.tries[name] == self.retries:
            with pytest.raises(NoBackendError):
                self.manager.prepare_failover(name)
        else:
            self.tries[name] += 1
            expected = FailoverRequest(name, f"prompt of {name}", self.seen[name], self.tries[name])
            assert self.manager.prepare_failover(name) == expected

    @rule(name=IDS)
    def ends(self, name: str) -> None:
        if name in self.seen:
            self.manager.complete(name)
            del self.seen[name], self.tries[name]
        else:
            with pytest.raises(UnknownRequestError):
                self.manager.complete(name)

    @invariant()
    def what_clients_saw_is_known_and_attempts_are_counted(self) -> None:
        for name in ("a", "b", "c"):
            left = name in self.seen and self.tries[name] < self.retries
            assert self.manager.should_failover(name) is left
        for name, seen in self.seen.items():
            context = self.manager.context(name)
            assert (context.generated, context.reached_client) == (seen, seen != "")


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase


def context(
    *,
    said: str = "Hello",
    reached: bool = True,
    tier: PrivacyTier = PrivacyTier.STANDARD,
    obstacles: frozenset[Obstacle] = frozenset(),
) -> StreamingContext:
    return StreamingContext(
        request_id="r1", prompt="prompt", generated=said, tier=tier, reached_client=reached, obstacles=obstacles
    )


@pytest.mark.parametrize(
    ("said", "reached", "capability", "prompted", "expected"),
    [
        ("Hello", True, EXACT, False, Takeover.EXACT),
        ("Hello", True, NONE, False, Takeover.ERROR),
        ("Hello", True, NONE, True, Takeover.PROMPTED),
        ("Hello", True, EXACT, True, Takeover.EXACT),
        ("Hello", False, EXACT, False, Takeover.EXACT),  # collected for a client that does not stream
        ("Hello", False, NONE, True, Takeover.RESTART),
        ("", False, EXACT, True, Takeover.RESTART),
        ("", False, NONE, False, Takeover.RESTART),
        ("", True, EXACT, False, Takeover.EXACT),  # the role has been sent
        ("", True, NONE, False, Takeover.ERROR),
    ],
)
def test_a_backend_continues_restarts_or_the_client_sees_an_error(
    said: str, reached: bool, capability: Continuation, prompted: bool, expected: Takeover
) -> None:
    state = context(said=said, reached=reached)
    found = continuation(capability, state, model="m", tier=PrivacyTier.STANDARD, prompted=prompted)
    assert found is expected


@pytest.mark.parametrize("obstacle", Obstacle)
@pytest.mark.parametrize("prompted", [False, True])
def test_what_is_not_plain_text_is_never_continued(obstacle: Obstacle, prompted: bool) -> None:
    for said, reached in product(("Hello", ""), (True, False)):
        state = context(said=said, reached=reached, obstacles=frozenset({obstacle}))
        found = continuation(EXACT, state, model="m", tier=PrivacyTier.SOVEREIGN, prompted=prompted)
        assert found is (Takeover.ERROR if reached else Takeover.RESTART)


@pytest.mark.parametrize("asked", PrivacyTier)
@pytest.mark.parametrize("there", PrivacyTier)
def test_no_request_is_handed_over_to_where_its_tier_does_not_reach(asked: PrivacyTier, there: PrivacyTier) -> None:
    order = ["sovereign", "private", "standard"]
    for said, reached, prompted in product(("Hello", ""), (True, False), (True, False)):
        state = context(said=said, reached=reached, tier=asked)
        found = continuation(EXACT, state, model="m", tier=there, prompted=prompted)
        assert (found is Takeover.ERROR) == (order.index(there) > order.index(asked))


def test_a_tier_that_was_not_given_is_the_strictest() -> None:
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "prompt")
    assert manager.context("r1").tier is PrivacyTier.SOVEREIGN


@pytest.mark.parametrize(
    ("model", "found"),
    [("claude-3-haiku", Takeover.EXACT), ("Claude-3-Opus", Takeover.EXACT), ("claude-9", Takeover.ERROR)],
)
def test_only_the_models_that_can_continue_a_text_do(model: str, found: Takeover) -> None:
    capability = Continuation(method=ContinuationMethod.TRAILING, models=("claude-2*", "claude-3-*"))
    assert continuation(capability, context(), model=model, tier=PrivacyTier.STANDARD) is found


def test_what_the_client_has_not_got_is_forgotten_when_another_backend_begins_anew() -> None:
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "prompt", obstacles=[Obstacle.JSON])
    manager.append_tokens("r1", '{"a":', sent=False)
    manager.obstruct("r1", Obstacle.REASONING)
    assert manager.context("r1").obstacles == {Obstacle.JSON, Obstacle.REASONING}
    manager.restart("r1")
    assert manager.context("r1") == context(
        said="", reached=False, tier=PrivacyTier.SOVEREIGN, obstacles=frozenset({Obstacle.JSON})
    )
    manager.append_tokens("r1", "{}")
    with pytest.raises(UsageError, match="has received a part of the response"):
        manager.restart("r1")
    assert manager.context("r1").generated == "{}"


def test_a_byte_that_is_no_text_rules_out_starting_over() -> None:
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "prompt")
    manager.append_tokens("r1", "")
    assert not manager.context("r1").reached_client
    manager.mark_sent("r1")
    assert manager.context("r1").reached_client


def test_a_character_that_came_in_two_halves_is_one_and_half_of_one_is_not_continued() -> None:
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "prompt")
    manager.append_tokens("r1", "so \ud83d")
    assert manager.context("r1").obstacles == {Obstacle.HALF_CHARACTER}
    manager.append_tokens("r1", "\ude00!")
    assert (manager.context("r1").generated, manager.context("r1").obstacles) == ("so 😀!", frozenset())
    assert manager.prepare_failover("r1").generated_prefix == "so 😀!"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "MAX_TEXT", 10)
    monkeypatch.setattr(failover, "MAX_TRACKED", 2)
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "prompt")
    manager.append_tokens("r1", "0123456789")
    assert manager.context("r1").generated == "0123456789"
    for _ in range(3):
        manager.append_tokens("r1", "x")
    assert manager.context("r1").generated == ""
    assert manager.context("r1").obstacles == {Obstacle.TOO_LONG}
    manager.start_tracking("r2", "prompt")
    with pytest.raises(QueueFullError):
        manager.start_tracking("r3", "prompt")
    manager.complete("r1")
    manager.start_tracking("r3", "prompt")


@pytest.mark.parametrize("retries", [-1, 101])
def test_a_number_of_retries_out_of_range_is_refused(retries: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 100"):
        FailoverConfig(max_retries=retries)


def test_no_retry_at_all_can_be_configured() -> None:
    manager = FailoverManager(FailoverConfig(max_retries=0))
    manager.start_tracking("r1", "prompt")
    assert not manager.should_failover("r1")
    with pytest.raises(NoBackendError, match="1 backend tried the request"):
        manager.prepare_failover("r1")


def test_errors_are_typed_and_show_no_prompt() -> None:
    manager = FailoverManager.with_defaults()
    manager.start_tracking("r1", "secret prompt")
    with pytest.raises(KeyError) as unknown:
        manager.append_tokens("r2\x1b[31m", "secret text")
    assert isinstance(unknown.value, BatutaError) and unknown.value.exit_code == 2
    assert str(unknown.value) == "no request r2\\x1b[31m is in flight"
    with pytest.raises(UsageError, match=r"^the request r1 is tracked already$"):
        manager.start_tracking("r1", "secret prompt")
