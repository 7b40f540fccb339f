"""The router: local first, then over, then away; never to where the privacy tier does not reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.config import Router as Table
from batuta_cli.errors import ConfigError, UsageError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.routing.health import AttemptOutcome
from batuta_cli.serve.routing.router import (
    Lane,
    Limits,
    Local,
    Reason,
    Reject,
    RouterConfig,
    RoutingDecision,
    Spillover,
    SpilloverRouter,
    decide,
)
from batuta_cli.serve.tiers import PrivacyTier


def told(decision: RoutingDecision) -> str:
    return f"{decision.decision} {decision.backend or decision.reason}"


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, "local Realizar"),
        (9, "local Realizar"),
        (10, "spillover Groq"),
        (49, "spillover Groq"),
        (99, "spillover Groq"),
    ],
)
def test_requests_spill_over_from_the_threshold_on(depth: int, expected: str) -> None:
    assert told(SpilloverRouter.with_defaults().route(depth)) == expected


@pytest.mark.parametrize(
    ("depth", "expected"), [(9, "local Realizar"), (10, "spillover Ollama"), (50, "spillover Ollama")]
)
def test_the_sovereign_router_stays_on_the_machine(depth: int, expected: str) -> None:
    assert told(SpilloverRouter(RouterConfig.sovereign()).route(depth)) == expected


@pytest.mark.parametrize(
    ("depth", "expected"), [(10, "local Realizar"), (49, "local Realizar"), (50, "reject queue_full")]
)
def test_without_spillover_the_local_backend_takes_all_until_it_is_full(depth: int, expected: str) -> None:
    assert told(SpilloverRouter(RouterConfig(spillover_enabled=False)).route(depth)) == expected


def test_what_the_tier_forbids_is_passed_over_even_when_all_else_is_full() -> None:
    config = RouterConfig(privacy=PrivacyTier.SOVEREIGN)  # Groq, Together and Fireworks are named, and forbidden
    assert told(SpilloverRouter(config).route(20)) == "local Realizar"
    assert told(SpilloverRouter(config).route(50)) == "reject queue_full"


def test_when_the_tier_forbids_everything_that_is_the_reason() -> None:
    config = RouterConfig(local_backend=ServingBackend.GROQ, privacy=PrivacyTier.PRIVATE)
    assert told(SpilloverRouter(config).route(0)) == "reject privacy_violation"


def test_a_failed_backend_is_passed_over_and_tried_again_with_one_request() -> None:
    router = SpilloverRouter.with_defaults()
    ticket = router.health.start("Groq", 100.0)
    router.health.finish(ticket, AttemptOutcome.FAILED, 100.0)
    assert told(router.route(10, now=100.5)) == "spillover Together"
    assert told(router.route(10, now=101.0)) == "spillover Groq"
    router.health.start("Groq", 101.0)
    assert told(router.route(10, now=101.0)) == "spillover Together"


def test_a_backend_where_the_model_cools_down_is_passed_over_for_this_model_alone() -> None:
    router = SpilloverRouter.with_defaults()
    ticket = router.health.start("Groq", 100.0, "m")
    router.health.finish(ticket, AttemptOutcome.MODEL_FAILED, 100.0)
    assert told(router.route(10, model="m")) == "spillover Together"
    assert told(router.route(10, model="other")) == "spillover Groq"


def test_a_failed_local_backend_is_replaced_below_the_threshold_too() -> None:
    router = SpilloverRouter(RouterConfig(spillover_enabled=False))
    router.health.finish(router.health.start("Realizar", 5.0), AttemptOutcome.FAILED, 5.0)
    assert told(router.route()) == "reject no_backends"
    router = SpilloverRouter.with_defaults()
    router.health.finish(router.health.start("Realizar", 5.0), AttemptOutcome.FAILED, 5.0)
    decision = router.route()
    assert (told(decision), decision.reason) == ("spillover Groq", Reason.LOCAL_UNAVAILABLE)


def test_the_depth_is_the_largest_of_what_is_known() -> None:
    router = SpilloverRouter.with_defaults()
    for _ in range(10):
        router.health.start("Realizar", 0.0)
    assert told(router.route(3)) == "spillover Groq"
    assert router.route(3).queue_depth == 10
    router.health.report("Realizar", 30, 1.0)
    assert router.route(3).queue_depth == 30
    for name in ("Groq", "Together", "Fireworks"):
        router.health.report(name, 50, 1.0)
    assert told(router.route(12)) == "local Realizar"
    assert told(router.route(50)) == "reject queue_full"


def test_requests_come_back_below_the_mark_and_not_before() -> None:
    router = SpilloverRouter(RouterConfig(return_depth=7))
    found = [router.route(depth).decision for depth in (9, 10, 9, 7, 6, 7, 9, 10)]
    assert found == ["local", "spillover", "spillover", "spillover", "local", "local", "local", "spillover"]


def test_without_a_mark_the_threshold_alone_decides() -> None:
    router = SpilloverRouter.with_defaults()
    assert [router.route(depth).decision for depth in (10, 9, 10)] == ["spillover", "local", "spillover"]


LANES = st.builds(
    Lane,
    st.sampled_from(["a", "b", "c", "d"]),
    depth=st.integers(0, 12),
    allowed=st.booleans(),
    ready=st.booleans(),
)
LIMITS = st.integers(1, 10).flatmap(lambda most: st.builds(Limits, st.integers(0, most), st.just(most), st.booleans()))


def by_hand(local: Lane | None, others: list[Lane], limits: Limits) -> str:
    """The rule of docs/gateway.md#local-spillover-or-reject."""
    local_may = local is not None and local.allowed and local.ready
    if local is not None and local_may and local.depth < limits.spillover_threshold:
        return f"local {local.backend}"
    if limits.spillover_enabled:
        awake = [x for x in others if x.allowed and x.ready and x.depth < limits.max_queue_depth]
        if awake:
            return f"spillover {awake[0].backend}"
    if local is not None and local_may and local.depth < limits.max_queue_depth:
        return f"local {local.backend}"
    asked = [x for x in [local, *(others if limits.spillover_enabled else [])] if x is not None]
    allowed = [x for x in asked if x.allowed]
    if asked and not allowed:
        return "reject privacy_violation"
    return "reject queue_full" if [x for x in allowed if x.ready] else "reject no_backends"


@given(local=st.none() | LANES, others=st.lists(LANES, max_size=4), limits=LIMITS)
def test_the_rule_is_the_design_s(local: Lane | None, others: list[Lane], limits: Limits) -> None:
    assert told(decide(local, others, limits)) == by_hand(local, others, limits)


@given(local=st.none() | LANES, others=st.lists(LANES, max_size=4), limits=LIMITS, spilling=st.booleans())
def test_no_request_goes_where_it_may_not_or_where_the_queue_is_full(
    local: Lane | None, others: list[Lane], limits: Limits, spilling: bool
) -> None:
    decision = decide(local, others, limits, spilling=spilling)
    if isinstance(decision, Reject):
        assert decision.backend is None
        return
    lanes = [local] if isinstance(decision, Local) else others
    found = [x for x in lanes if x is not None and x.backend == decision.backend]
    assert any(x.allowed and x.ready and x.depth < limits.max_queue_depth for x in found)
    assert isinstance(decision, Local) or limits.spillover_enabled


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"spillover_threshold": 51}, "spillover_threshold must be from 0 to max_queue_depth, which is 50"),
        ({"spillover_threshold": -1}, "spillover_threshold must be from 0"),
        ({"max_queue_depth": 0, "spillover_threshold": 0}, "max_queue_depth must be at least 1"),
        ({"return_depth": 11}, "return_depth must be from 0 to spillover_threshold, which is 10"),
        ({"local_backend": "Grok"}, "unknown backend Grok, did you mean Groq"),
        ({"spillover_backends": ("Ollama", "olama")}, "unknown backend olama, did you mean Ollama"),
        ({"privacy": "publik"}, "unknown privacy tier publik"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(limits: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        RouterConfig(**limits)  # type: ignore[arg-type]


def test_names_are_read_as_people_write_them() -> None:
    config = RouterConfig(local_backend="llama-cpp", spillover_backends=["GROQ"], privacy="Private")  # type: ignore[arg-type]
    assert config.local_backend is ServingBackend.LLAMA_CPP
    assert config.spillover_backends == (ServingBackend.GROQ,)
    assert config.privacy is PrivacyTier.PRIVATE


def test_the_local_backend_does_not_spill_over_to_itself() -> None:
    config = RouterConfig(spillover_backends=(ServingBackend.REALIZAR,))
    decision = SpilloverRouter(config).route(20)
    assert (told(decision), decision.reason) == ("local Realizar", Reason.NO_SPILLOVER)


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(UsageError, match="must be 0 or more"):
        SpilloverRouter.with_defaults().route(-1)


def test_the_configured_router_comes_back_at_four_fifths_and_names_its_table_when_it_is_wrong() -> None:
    assert Limits.configured(Table()) == Limits(10, 50, True, 8)
    with pytest.raises(ConfigError, match=r"^router: spillover_threshold"):
        Limits.configured(Table(spillover_threshold=10, max_queue_depth=5))


def test_decisions_can_be_told_apart_by_their_type() -> None:
    router = SpilloverRouter.with_defaults()
    assert isinstance(router.route(0), Local)
    assert isinstance(router.route(10), Spillover)
    assert router.route(10).backend is ServingBackend.GROQ
