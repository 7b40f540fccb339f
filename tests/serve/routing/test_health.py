"""The load of backends: what is counted, what is believed, and when a failed one is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from batuta_cli.errors import UsageError
from batuta_cli.serve.retry import MOST_MODELS, FailoverConfig
from batuta_cli.serve.routing.health import AttemptOutcome, BackendHealth, Cooling, Ticket

WORKED, FAILED, UNKNOWN = AttemptOutcome.WORKED, AttemptOutcome.FAILED, AttemptOutcome.UNKNOWN


def fail(health: BackendHealth, now: float, *, times: int = 1, **how: float) -> None:
    for _ in range(times):
        health.finish(health.start("b", now), FAILED, now, **how)


def test_our_own_requests_are_counted_at_once() -> None:
    health = BackendHealth()
    first, second = health.start("b", 0.0), health.start("b", 0.0)
    health.start("other", 0.0)
    assert health.depth("b", 0.0) == 2
    health.finish(first, WORKED, 1.0)
    assert health.depth("b", 1.0) == 1
    health.finish(second, FAILED, 1.0)
    assert health.depth("b", 1.0) == 0


@pytest.mark.parametrize(("age", "believed"), [(0.0, 7), (4.9, 7), (5.0, 7), (5.1, 1), (3600.0, 1)])
def test_what_a_backend_reports_counts_for_five_seconds(age: float, believed: int) -> None:
    health = BackendHealth()
    health.start("b", 0.0)
    health.report("b", 7, 100.0)
    assert health.depth("b", 100.0 + age) == believed


def test_a_report_never_hides_our_own_requests() -> None:
    health = BackendHealth()
    for _ in range(3):
        health.start("b", 0.0)
    health.report("b", 1, 0.0)
    assert health.depth("b", 0.0) == 3


def test_a_request_is_taken_back_once() -> None:
    health = BackendHealth()
    ticket = health.start("b", 0.0)
    health.finish(ticket, WORKED, 0.0)
    with pytest.raises(UsageError, match="has ended already"):
        health.finish(ticket, WORKED, 0.0)
    assert health.depth("b", 0.0) == 0


def test_rests_grow_from_one_second_to_one_minute() -> None:
    limits = FailoverConfig()
    assert [limits.cooldown_after(n, 0.0) for n in range(1, 9)] == [
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        60.0,
        60.0,
    ]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_a_rest_is_between_half_of_its_step_and_all_of_it(failures: int, jitter: float) -> None:
    step = FailoverConfig().cooldown_after(failures, 0.0)
    assert step / 2 <= FailoverConfig().cooldown_after(failures, jitter) <= step <= FailoverConfig().max_cooldown


def test_a_failed_backend_rests_and_then_one_request_tries_it() -> None:
    health = BackendHealth()
    fail(health, 10.0)
    assert health.cooldown("b", 10.25) == 0.75
    assert health.cooldown("b", 11.0) is None
    trial = health.start("b", 11.0)
    assert trial.is_trial
    assert health.cooldown("b", 11.0) == 0.0
    health.finish(trial, WORKED, 12.0)
    assert health.cooldown("b", 12.0) is None
    assert not health.start("b", 12.0).is_trial


def test_a_failed_trial_doubles_the_rest_and_a_good_one_ends_the_series() -> None:
    health = BackendHealth()
    fail(health, 0.0)
    fail(health, 1.0)
    assert health.cooldown("b", 1.0) == 2.0
    health.finish(health.start("b", 3.0), WORKED, 3.0)
    fail(health, 4.0)
    assert health.cooldown("b", 4.0) == 1.0


def test_a_trial_whose_client_left_lets_another_request_try() -> None:
    health = BackendHealth()
    fail(health, 0.0)
    health.finish(health.start("b", 1.0), UNKNOWN, 1.5)
    assert health.cooldown("b", 1.5) is None
    assert health.start("b", 1.5).is_trial


def test_a_request_that_is_forced_upon_a_backend_on_trial_is_not_the_trial() -> None:
    health = BackendHealth()
    fail(health, 0.0)
    trial, forced = health.start("b", 1.0), health.start("b", 1.0)
    assert (trial.is_trial, forced.is_trial) == (True, False)
    health.finish(forced, UNKNOWN, 1.5)
    assert health.cooldown("b", 1.5) == 0.0


def test_many_requests_that_die_with_one_backend_are_one_failure() -> None:
    health = BackendHealth()
    tickets = [health.start("b", 0.0) for _ in range(50)]
    for ticket in tickets:
        health.finish(ticket, FAILED, 1.0)
    assert health.cooldown("b", 1.0) == 1.0


def test_an_answer_to_a_request_from_before_the_failure_does_not_end_the_rest() -> None:
    health = BackendHealth()
    old = health.start("b", 0.0)
    fail(health, 1.0)
    health.finish(old, WORKED, 1.5)
    assert health.cooldown("b", 1.5) == 0.5


@pytest.mark.parametrize(("asked", "cooldown"), [(0.2, 1.0), (30.0, 30.0), (1e12, 3600.0)])
def test_a_backend_s_own_retry_after_is_obeyed_within_bounds(asked: float, cooldown: float) -> None:
    health = BackendHealth()
    fail(health, 0.0, retry_after=asked)
    assert health.cooldown("b", 0.0) == cooldown


def test_clients_are_told_to_come_back_when_a_rest_ends_or_an_answer_is_due() -> None:
    health = BackendHealth()
    assert health.retry_after(["b"], 0.0) == 1
    for number in range(20):  # one answer in three seconds
        health.finish(health.start("b", 0.0), WORKED, number * 3.0)
    assert health.retry_after(["b"], 60.0) == 3
    fail(health, 60.0, retry_after=17.5)
    assert health.retry_after(["b"], 60.0) == 18
    assert health.retry_after(["b", "another"], 60.0) == 1
    assert health.retry_after([], 60.0) == 60


class ManyClients(RuleBasedStateMachine):
    """Requests of well-behaved callers, who ask for the rest first, ending in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.health = BackendHealth()
        self.now = 0.0
        self.open: list[Ticket] = []

    @rule(seconds=st.floats(0, 90))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_request_begins(self) -> None:
        if self.health.cooldown("b", self.now) is None:
            self.open.append(self.health.start("b", self.now))

    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(AttemptOutcome), jitter=st.floats(0, 1))
    def one_ends(self, which: int, outcome: AttemptOutcome, jitter: float) -> None:
        if self.open:
            ticket = self.open.pop(which % len(self.open))
            self.health.finish(ticket, outcome, self.now, jitter=jitter)

    @invariant()
    def every_request_is_counted(self) -> None:
        assert self.health.depth("b", self.now) == len(self.open)

    @invariant()
    def at_most_one_request_tries_a_failed_backend(self) -> None:
        assert sum(ticket.is_trial for ticket in self.open) <= 1

    @invariant()
    def no_rest_is_for_ever(self) -> None:
        cooldown = self.health.cooldown("b", self.now)
        assert cooldown is None or cooldown <= FailoverConfig().max_cooldown
        if not any(ticket.is_trial for ticket in self.open):
            assert self.health.cooldown("b", self.now + FailoverConfig().max_cooldown) is None


TestManyClients = ManyClients.TestCase


# Models: a failure is attributed to what failed


def fail_model(
    health: BackendHealth, model: str, now: float, outcome: AttemptOutcome = AttemptOutcome.MODEL_FAILED, **how: float
) -> None:
    health.finish(health.start("b", now, model), outcome, now, **how)


@pytest.mark.parametrize("outcome", [AttemptOutcome.MODEL_FAILED, AttemptOutcome.BROKEN])
def test_a_model_that_failed_cools_down_and_the_other_models_of_its_backend_go_on(outcome: AttemptOutcome) -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0, outcome, retry_after=30.0)
    assert health.cooling("b", 0.0, "m") == Cooling(30.0, of_model=True)
    assert health.cooling("b", 0.0, "other") is None
    assert health.cooling("b", 0.0) is None
    assert health.cooling("another backend", 0.0, "m") is None


def test_a_backend_that_cannot_be_reached_cools_down_for_all_models() -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0, FAILED)
    assert health.cooling("b", 0.0, "other") == Cooling(1.0, of_model=False)


def test_of_two_cooldowns_the_longer_one_counts() -> None:
    health = BackendHealth()
    for first, second, of_model in ((5.0, 9.0, True), (9.0, 5.0, False)):
        health = BackendHealth()
        ticket = health.start("b", 0.0, "m")
        fail_model(health, "m", 0.0, FAILED, retry_after=first)
        health.finish(ticket, AttemptOutcome.MODEL_FAILED, 0.0, retry_after=second)
        assert health.cooling("b", 0.0, "m") == Cooling(9.0, of_model=of_model)


@pytest.mark.parametrize("outcome", [AttemptOutcome.REQUEST_REFUSED, UNKNOWN])
def test_a_request_at_fault_and_a_client_that_leaves_cool_nothing(outcome: AttemptOutcome) -> None:
    health = BackendHealth()
    for _ in range(100):
        fail_model(health, "m", 0.0, outcome)
    assert health.cooling("b", 0.0, "m") is None


@pytest.mark.parametrize("outcome", [WORKED, AttemptOutcome.MODEL_FAILED, AttemptOutcome.REQUEST_REFUSED])
def test_any_answer_shows_that_a_backend_can_be_reached_again(outcome: AttemptOutcome) -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0, FAILED)
    fail_model(health, "m", 1.0, FAILED)
    health.finish(health.start("b", 3.0, "m"), outcome, 3.0)
    assert health.cooling("b", 3.0, "other") is None
    fail_model(health, "m", 4.0, FAILED)
    assert health.cooling("b", 4.0, "other") == Cooling(1.0, of_model=False)  # a new series


def test_one_request_tries_a_cooled_down_model_and_its_success_ends_the_series() -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0)
    trial = health.start("b", 1.0, "m")
    assert trial.is_trial
    assert health.cooling("b", 1.0, "m") == Cooling(0.0, of_model=True)
    assert not health.start("b", 1.0, "other").is_trial
    health.finish(trial, AttemptOutcome.MODEL_FAILED, 1.5)
    assert health.cooldown("b", 1.5, "m") == 2.0
    trial = health.start("b", 3.5, "m")
    health.finish(trial, WORKED, 4.0)
    assert health.cooldown("b", 4.0, "m") is None
    fail_model(health, "m", 5.0)
    assert health.cooldown("b", 5.0, "m") == 1.0


@pytest.mark.parametrize("failure", [FAILED, AttemptOutcome.MODEL_FAILED], ids=["backend", "model"])
def test_others_are_let_in_as_soon_as_the_trial_is_being_answered(failure: AttemptOutcome) -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0, failure)
    fail_model(health, "m", 1.0, failure)
    trial = health.start("b", 3.0, "m")
    assert health.cooldown("b", 3.0, "m") == 0.0
    health.respond(trial)
    assert health.cooldown("b", 3.0, "m") is None
    assert not health.start("b", 3.0, "m").is_trial
    health.finish(trial, failure, 4.0)  # broken off all the same: the series goes on
    assert health.cooldown("b", 4.0, "m") == 4.0


def test_an_answer_from_before_the_failure_does_not_end_the_cooldown_early() -> None:
    health = BackendHealth()
    old = health.start("b", 0.0, "m")
    fail_model(health, "m", 0.0)
    health.respond(old)
    assert health.cooldown("b", 0.5, "m") == 0.5


def test_many_requests_that_fail_with_one_model_are_one_failure() -> None:
    health = BackendHealth()
    tickets = [health.start("b", 0.0, "m") for _ in range(50)]
    for ticket in tickets:
        health.finish(ticket, AttemptOutcome.MODEL_FAILED, 1.0)
    assert health.cooldown("b", 1.0, "m") == 1.0


def test_an_answer_from_before_a_model_failed_does_not_end_its_cooldown() -> None:
    health = BackendHealth()
    old = health.start("b", 0.0, "m")
    fail_model(health, "m", 1.0)
    health.finish(old, WORKED, 1.5)
    assert health.cooldown("b", 1.5, "m") == 0.5


def test_random_names_of_models_take_bounded_memory_and_do_not_evict_what_still_cools_down() -> None:
    health = BackendHealth()
    fail_model(health, "real", 0.0, retry_after=600.0)
    on_trial = health.start("b", 0.0, "tried")
    fail_model(health, "tried", 0.0)
    health.finish(on_trial, UNKNOWN, 0.0)
    on_trial = health.start("b", 1.0, "tried")
    assert on_trial.is_trial
    for number in range(20 * MOST_MODELS):
        fail_model(health, f"random-{number}", 1.0 + number * 0.01)
    state = health._states["b"]
    assert len(state.models) == MOST_MODELS
    assert health.cooldown("b", 100.0, "real") == 500.0
    assert health.cooldown("b", 100.0, "tried") == 0.0


def test_models_that_recovered_take_no_memory() -> None:
    health = BackendHealth()
    for number in range(100):
        fail_model(health, f"m{number}", 0.0)
        health.finish(health.start("b", 2.0, f"m{number}"), WORKED, 2.0)
    assert len(health._states["b"].models) == 0


def test_clients_are_told_to_come_back_when_the_model_they_ask_for_can_be_tried() -> None:
    health = BackendHealth()
    fail_model(health, "m", 0.0, retry_after=40.0)
    assert health.retry_after(["b"], 0.0, "m") == 40
    assert health.retry_after(["b"], 0.0, "other") == 1
