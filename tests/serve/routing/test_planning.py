"""The plan: no gate is passed by, no tier or budget is stretched, and the rule is the router's."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batuta_cli.errors import NoBackendError, PrivacyError, QueueFullError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.models.pricing import FREE, TokenPricing
from batuta_cli.serve.routing.gates import BackendState, Candidate, GateName, Need, PlanRequest, Snapshot
from batuta_cli.serve.routing.planning import Plan, plan
from batuta_cli.serve.routing.router import Lane, Limits, Reason, decide
from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier
from batuta_cli.serve.tokens.tokenizer import TokenCount

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier
DEAR = TokenPricing.usd(input=10, output=30)
LLAMA = BackendState(name="llama", kind=ServingBackend.LLAMA_CPP, tier=SOVEREIGN, price=FREE)
VLLM = BackendState(name="vllm", kind=ServingBackend.VLLM, tier=SOVEREIGN, price=FREE)
GROQ = BackendState(name="groq", kind=ServingBackend.GROQ, tier=STANDARD, price=DEAR)
AZURE = BackendState(name="azure", kind=ServingBackend.AZURE_OPENAI, tier=PRIVATE, price=DEAR)
TOGETHER = BackendState(name="together", kind=ServingBackend.TOGETHER, tier=STANDARD, price=DEAR)


def asked(**about: object) -> PlanRequest:
    return PlanRequest(**{"privacy": STANDARD, "model": "m", **about})  # type: ignore[arg-type]


def tokens(count: int) -> TokenCount:
    return TokenCount(count, True, "by hand")


def refused(found: Plan, name: str) -> dict[str, str]:
    """The gates that refused a backend, with what they said."""
    candidate = next(c for c in found.candidates if c.backend == name)
    return {str(gate.name): gate.detail for gate in candidate.gates if not gate.passed}


def number(found: Plan, name: str, gate: GateName) -> int | float | None:
    candidate = next(c for c in found.candidates if c.backend == name)
    return next(g.number for g in candidate.gates if g.name is gate)


def test_the_local_backend_comes_first_and_the_others_can_take_over() -> None:
    found = plan(asked(), Snapshot(backends=(GROQ, LLAMA, VLLM)))
    assert (found.decision, found.backend, found.reason) == ("local", "llama", "below_threshold")
    assert found.fallbacks == ("vllm", "groq")
    assert [c.backend for c in found.candidates] == ["llama", "vllm", "groq"]


def test_a_busy_local_backend_spills_over_to_what_is_free_first() -> None:
    busy = replace(LLAMA, depth=12)
    found = plan(asked(), Snapshot(backends=(GROQ, busy, VLLM)))
    assert (found.decision, found.backend, found.queue_depth) == ("local", "vllm", 0)
    found = plan(asked(), Snapshot(backends=(GROQ, busy, VLLM), local_backend=busy.name))
    assert (found.decision, found.backend, found.queue_depth) == ("spillover", "vllm", 12)
    snapshot = Snapshot(backends=(GROQ, busy, VLLM), local_backend=busy.name)
    assert plan(asked(latency=LatencyTier.REAL_TIME), snapshot).backend == "groq"


@pytest.mark.parametrize(
    ("depths", "slots", "first"),
    [
        ((0, 0), (None, None), "llama"),
        ((1, 0), (None, None), "vllm"),
        ((2, 2), (2, 4), "vllm"),
        ((3, 5), (2, 4), "vllm"),
        ((1, 2), (2, 4), "llama"),
        ((3, 1), (8, None), "llama"),
        ((None, 0), (2, 2), "llama"),
    ],
)
def test_of_equal_local_backends_the_one_with_the_fewest_requests_a_slot_is_first(
    depths: tuple[int | None, ...], slots: tuple[int | None, ...], first: str
) -> None:
    states = [
        replace(state, depth=depth, slots=number)
        for state, depth, number in zip((LLAMA, VLLM), depths, slots, strict=True)
    ]
    assert plan(asked(), Snapshot(backends=(GROQ, *states))).backend == first


def test_the_load_orders_neither_hosted_backends_nor_those_of_the_configuration() -> None:
    other = replace(GROQ, name="other", depth=0)
    found = plan(asked(), Snapshot(backends=(replace(GROQ, depth=5), other)))
    assert found.backend == "groq"
    busy = replace(LLAMA, depth=5)
    order = (busy.name, VLLM.name)
    found = plan(asked(), Snapshot(backends=(VLLM, busy), local_backend=busy.name, spillover_backends=order))
    assert found.backend == busy.name


def test_a_server_of_a_local_kind_that_costs_money_comes_after_the_free_ones() -> None:
    """Such as a vLLM or a server without profile at a public address, while the user's own server is a little busy."""
    rented = replace(LLAMA, name="rented", tier=STANDARD, price=DEAR)
    busy = replace(VLLM, depth=3)
    found = plan(asked(), Snapshot(backends=(rented, busy, GROQ)))
    assert (found.decision, found.backend, found.fallbacks) == ("local", "vllm", ("rented", "groq"))
    found = plan(asked(), Snapshot(backends=(rented, replace(busy, cooldown=1.0))))
    assert (found.decision, found.backend, found.reason) == ("spillover", "rented", "local_unavailable")
    without = Limits(spillover_enabled=False)
    found = plan(asked(), Snapshot(backends=(rented, replace(busy, cooldown=1.0)), limits=without))
    assert found.decision == "reject"
    found = plan(asked(), Snapshot(backends=(rented,), limits=without))
    assert (found.decision, found.backend) == ("local", "rented")


def test_of_free_backends_each_takes_over_before_one_of_a_local_kind_that_costs_money() -> None:
    rented = replace(LLAMA, name="rented", tier=STANDARD, price=DEAR)
    found = plan(asked(), Snapshot(backends=(rented, replace(VLLM, depth=3), replace(LLAMA, depth=4))))
    assert (found.backend, found.fallbacks) == ("vllm", ("llama", "rented"))


def test_the_first_local_backend_that_can_serve_is_the_local_one() -> None:
    assert plan(asked(), Snapshot(backends=(replace(LLAMA, models=("x",)), VLLM))).decision == "local"
    resting = plan(asked(), Snapshot(backends=(replace(LLAMA, cooldown=3.0), VLLM)))
    assert (resting.decision, resting.backend) == ("local", "vllm")


def test_the_configured_order_is_kept_and_nothing_else_is_asked() -> None:
    snapshot = Snapshot(
        backends=(GROQ, AZURE, TOGETHER, LLAMA, VLLM), local_backend="vllm", spillover_backends=("together", "groq")
    )
    found = plan(asked(), snapshot)
    assert (found.backend, found.fallbacks) == ("vllm", ("together", "groq"))
    busy = replace(snapshot, queue_depth=10)
    assert plan(asked(), busy).backend == "together"
    assert [c.backend for c in plan(asked(backend="azure"), snapshot).candidates] == ["azure"]


def test_of_several_local_backends_only_the_named_ones_are_spilled_over_to() -> None:
    ollama = BackendState(name="ollama", kind=ServingBackend.OLLAMA, tier=SOVEREIGN, price=FREE)
    snapshot = Snapshot(backends=(LLAMA, ollama, GROQ, VLLM), spillover_backends=("vllm",))
    found = plan(asked(), snapshot)
    assert (found.backend, found.fallbacks) == ("llama", ("vllm",))
    resting = replace(snapshot, backends=(replace(LLAMA, cooldown=1.0), ollama, GROQ, VLLM))
    found = plan(asked(), resting)
    assert (found.decision, found.backend, found.fallbacks) == ("local", "ollama", ("vllm",))
    assert plan(asked(), replace(snapshot, backends=(GROQ, VLLM))).decision == "local"


def test_without_spillover_nothing_takes_over_either() -> None:
    found = plan(asked(), Snapshot(backends=(LLAMA, GROQ), limits=Limits(spillover_enabled=False)))
    assert (found.backend, found.fallbacks) == ("llama", ())


def test_to_name_a_backend_is_to_allow_it_within_the_tier() -> None:
    snapshot = Snapshot(backends=(LLAMA, GROQ), limits=Limits(spillover_enabled=False))
    assert plan(asked(backend="groq"), snapshot).backend == "groq"
    assert plan(asked(backend="groq", privacy=PRIVATE), snapshot).reason == "privacy_violation"
    assert plan(asked(backend="nobody"), snapshot).reason == "no_backends"
    assert plan(asked(backend="groq"), replace(snapshot, queue_depth=50)).reason == "queue_full"


def test_a_queue_figure_is_the_local_backend_s_even_when_it_cannot_serve() -> None:
    found = plan(asked(), Snapshot(backends=(replace(LLAMA, models=("x",)), GROQ), queue_depth=12))
    assert (found.backend, found.reason, found.queue_depth) == ("groq", "local_unavailable", 12)


def test_the_reason_of_a_refusal_tells_whether_waiting_helps() -> None:
    elsewhere = plan(asked(privacy=SOVEREIGN), Snapshot(backends=(replace(LLAMA, models=("x",)), GROQ)))
    assert elsewhere.reason == "privacy_violation"
    assert isinstance(elsewhere.error(), PrivacyError)
    nowhere = plan(
        asked(privacy=SOVEREIGN), Snapshot(backends=(replace(LLAMA, models=("x",)), replace(GROQ, models=())))
    )
    assert nowhere.reason == "no_backends"
    full = plan(asked(privacy=SOVEREIGN), Snapshot(backends=(replace(LLAMA, depth=50), GROQ)))
    error = full.error()
    assert isinstance(error, QueueFullError) and "llama: 50 requests" in error.message
    resting = plan(asked(), Snapshot(backends=(replace(LLAMA, cooldown=1.0),))).error()
    assert isinstance(resting, NoBackendError) and not isinstance(resting, QueueFullError)
    assert plan(asked(), Snapshot(backends=(LLAMA,))).error() is None


def test_a_message_names_five_backends_at_most() -> None:
    states = tuple(replace(LLAMA, name=f"b{n}", trouble="connection refused") for n in range(8))
    error = plan(asked(), Snapshot(backends=states)).error()
    assert error is not None and error.message.endswith("b4: connection refused, and 3 more")


def test_json_has_the_documented_keys() -> None:
    found = plan(asked(), Snapshot(backends=(LLAMA,))).to_json()
    assert set(found) == {"decision", "backend", "reason", "queue_depth", "plan"}
    assert set(found["plan"][0]) == {"backend", "kind", "passed", "gates"}


NAMES = ("a", "b", "c", "d", "e")
PRICES = (
    st.none()
    | st.just(FREE)
    | st.builds(TokenPricing, input_per_million=st.integers(0, 10**9), output_per_million=st.integers(1, 10**9))
)
STATES = st.builds(
    BackendState,
    name=st.just(""),
    kind=st.sampled_from(ServingBackend),
    tier=st.sampled_from(PrivacyTier),
    models=st.none() | st.just(("m",)) | st.just(("x",)),
    remote_models=st.sampled_from([frozenset(), frozenset({"m"})]),
    window=st.none() | st.integers(1, 3000),
    reserve=st.none() | st.integers(0, 500),
    price=PRICES,
    depth=st.none() | st.integers(0, 12),
    cooldown=st.none() | st.floats(0, 60),
    trouble=st.sampled_from(["", "", "", "connection refused"]),
)
BACKENDS = st.lists(STATES, max_size=5).map(
    lambda found: tuple(replace(state, name=name) for state, name in zip(found, NAMES, strict=False))
)
LIMITS = st.integers(1, 10).flatmap(lambda most: st.builds(Limits, st.integers(0, most), st.just(most), st.booleans()))
MONEY = st.none() | st.integers(0, 10**6)
SNAPSHOTS = st.builds(
    Snapshot,
    backends=BACKENDS,
    limits=LIMITS,
    spilling=st.booleans(),
    queue_depth=st.none() | st.integers(0, 12),
    local_backend=st.sampled_from(["", "", *NAMES]),
    spillover_backends=st.just(()) | st.permutations(NAMES).map(lambda names: tuple(names[:3])),
    budget_remaining=MONEY,
    max_request_cost=MONEY,
)
REQUESTS = st.builds(
    PlanRequest,
    privacy=st.sampled_from(PrivacyTier),
    model=st.sampled_from(["", "m"]),
    backend=st.sampled_from(["", "", "", "a", "e"]),
    latency=st.sampled_from(LatencyTier),
    throughput=st.sampled_from(ThroughputTier),
    cost=st.sampled_from(CostTier),
    input_tokens=st.none() | st.integers(0, 3000).map(tokens),
    max_output_tokens=st.none() | st.integers(0, 500),
    needs=st.frozensets(st.sampled_from(Need)),
    allow_unpriced=st.booleans(),
)


def surviving(found: Plan) -> set[str]:
    return {c.backend for c in found.candidates if c.passed}


@given(REQUESTS, SNAPSHOTS)
def test_a_backend_that_any_gate_refused_is_never_planned(request_: PlanRequest, snapshot: Snapshot) -> None:
    found = plan(request_, snapshot)
    planned = [name for name in (found.backend, *found.fallbacks) if name is not None]
    assert len(set(planned)) == len(planned) and set(planned) <= surviving(found)
    assert (found.backend is None) == (found.decision == "reject") == (found.error() is not None)


@given(REQUESTS, SNAPSHOTS)
def test_what_is_planned_is_admitted_by_the_tier(request_: PlanRequest, snapshot: Snapshot) -> None:
    tiers = {s.name: STANDARD if request_.model in s.remote_models else s.tier for s in snapshot.backends}
    found = plan(request_, snapshot)
    order = [SOVEREIGN, PRIVATE, STANDARD]
    for name in (found.backend, *found.fallbacks):
        assert name is None or order.index(tiers[name]) <= order.index(request_.privacy)


@given(REQUESTS, SNAPSHOTS)
def test_the_decision_is_the_router_s_on_the_backends_that_can_serve(request_: PlanRequest, snapshot: Snapshot) -> None:
    assume(not request_.backend and snapshot.queue_depth is None)
    found = plan(request_, snapshot)
    depths = {state.name: state.depth or 0 for state in snapshot.backends}

    def lane(c: Candidate) -> Lane:
        said = {str(gate.name): gate.passed for gate in c.gates}
        return Lane(c.backend, depths[c.backend], said["tier"], said["cooldown"])

    def serves(c: Candidate) -> bool:
        said = {str(gate.name): gate.passed for gate in c.gates}
        forbidden = not said["tier"] and said["capability"]
        return forbidden or (said["capability"] and said["context"] and said["budget"])

    # The candidates are in the router's order: the local one, where there is one, leads.
    head = found.candidates[:1]
    is_local = bool(head) and (
        head[0].backend == snapshot.local_backend or (not snapshot.local_backend and head[0].kind.is_local)
    )
    lanes = [lane(c) for c in found.candidates if serves(c)]
    first = lane(head[0]) if is_local and serves(head[0]) else None
    others = [x for x in lanes if first is None or x.backend != first.backend]
    expected = decide(first, others, snapshot.limits, spilling=snapshot.spilling)
    assert (found.decision, found.backend, found.reason) == (
        expected.decision, expected.backend, str(expected.reason),
    )  # fmt: skip


def test_a_backend_that_the_tier_forbids_is_a_privacy_violation_whatever_it_would_cost() -> None:
    state = BackendState(name="far", kind=ServingBackend.VLLM, tier=STANDARD, price=None)
    found = plan(PlanRequest(privacy=SOVEREIGN, model="m"), Snapshot(backends=(state,)))
    assert (found.decision, found.reason) == ("reject", "privacy_violation")
    error = found.error()
    assert error is not None
    assert error.exit_code == 6


@given(REQUESTS, SNAPSHOTS)
def test_a_stricter_tier_never_adds_a_backend(request_: PlanRequest, snapshot: Snapshot) -> None:
    found = [surviving(plan(replace(request_, privacy=tier), snapshot)) for tier in (SOVEREIGN, PRIVATE, STANDARD)]
    assert found[0] <= found[1] <= found[2]


@given(REQUESTS, SNAPSHOTS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_smaller_budget_never_adds_a_backend(request_: PlanRequest, snapshot: Snapshot, left: int, most: int) -> None:
    rich = replace(snapshot, budget_remaining=left + 10**5, max_request_cost=most + 10**5)
    poor = replace(snapshot, budget_remaining=left, max_request_cost=most)
    assert surviving(plan(request_, poor)) <= surviving(plan(request_, rich))


@given(REQUESTS, SNAPSHOTS)
def test_what_is_free_needs_no_budget(request_: PlanRequest, snapshot: Snapshot) -> None:
    free = {state.name for state in snapshot.backends if state.price == FREE}
    bankrupt = replace(snapshot, budget_remaining=0, max_request_cost=0)
    assert surviving(plan(request_, snapshot)) & free == surviving(plan(request_, bankrupt)) & free


@given(REQUESTS, SNAPSHOTS)
def test_the_same_question_has_the_same_answer_whatever_else_is_configured_last(
    request_: PlanRequest, snapshot: Snapshot
) -> None:
    found = plan(request_, snapshot)
    assert plan(request_, snapshot) == found
    useless = BackendState(name="z", kind=ServingBackend.MODAL, tier=SOVEREIGN, models=())
    if request_.model and not isinstance(found.error(), PrivacyError):
        wider = plan(request_, replace(snapshot, backends=(*snapshot.backends, useless)))
        assert (wider.routing, wider.fallbacks) == (found.routing, found.fallbacks)


def test_the_words_of_reasons_are_fixed() -> None:
    assert [reason.value for reason in Reason][-3:] == ["queue_full", "no_backends", "privacy_violation"]
