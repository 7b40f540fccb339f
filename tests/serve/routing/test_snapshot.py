"""The snapshot: what the configuration and a look at the backends come to."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from ipaddress import ip_network
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config, ModelSection, Privacy, Router
from batuta_cli.errors import ConfigError
from batuta_cli.serve.backends import Backend, ServingBackend, configured_backends, default_backend
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.providers.probe import ProbeResult
from batuta_cli.serve.routing.gates import BackendState, PlanRequest, Snapshot
from batuta_cli.serve.routing.health import AttemptOutcome, BackendHealth
from batuta_cli.serve.routing.router import Limits
from batuta_cli.serve.routing.snapshot import Observer, Seen, expected_tier, take_snapshot, usual_backends
from batuta_cli.serve.tiers import LatencyTier, PrivacyTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier
DAY = dt.date(2026, 11, 23)
LOCAL = "http://127.0.0.1:8080/v1"
NEAR = Privacy(local_networks=(ip_network("10.0.0.0/8"),), private_networks=(ip_network("172.16.0.0/12"),))


def config(privacy: Privacy | None = None, router: Router | None = None, **backends: Table) -> Config:
    return Config(
        privacy=privacy or Privacy(),
        router=router or Router(),
        backends=backends,
        models={
            "priced": ModelSection(
                context_window=8192,
                output_reserve=1000,
                input_usd_per_million=Decimal(10),
                output_usd_per_million=Decimal(30),
            )
        },
    )


def snapshot(settings: Config, *, model: str = "", environ: dict[str, str] | None = None, **seen: Any) -> Snapshot:
    backends = configured_backends(settings, environ or {})
    return take_snapshot(
        settings, backends, PlanRequest(privacy=STANDARD, model=model), Seen(day=DAY, **{"probes": {}, **seen})
    )


def only(found: Snapshot) -> BackendState:
    (state,) = found.backends
    return state


@pytest.mark.parametrize(
    ("name", "base_url", "tier"),
    [
        ("llamacpp", LOCAL, SOVEREIGN),
        ("llamacpp", "http://localhost:8080/v1", SOVEREIGN),
        ("llamacpp", "http://10.1.2.3:8080/v1", SOVEREIGN),
        ("llamacpp", "http://172.16.0.9:8080/v1", PRIVATE),
        ("llamacpp", "http://192.0.2.1:8080/v1", STANDARD),
        ("llamacpp", "http://169.254.169.254/v1", STANDARD),
        ("vllm", "http://gpu.example:8000/v1", SOVEREIGN),  # may lie in a local network; the gate sees the address
        ("groq", "", STANDARD),
        ("groq", "https://api.groq.com/openai/v1", STANDARD),
        ("groq", "http://127.0.0.1:9/v1", SOVEREIGN),
        ("azureopenai", "https://mine.openai.azure.com/openai/v1", SOVEREIGN),  # as above
    ],
)
def test_the_tier_of_a_backend_is_that_of_its_address(name: str, base_url: str, tier: PrivacyTier) -> None:
    settings = Config(privacy=NEAR, backends={name: Table(base_url=base_url)})
    assert expected_tier(settings, configured_backends(settings, {})[0]).tier is tier


def test_without_declared_networks_no_host_name_is_near() -> None:
    settings = config(
        vllm=Table(base_url="http://gpu.example:8000/v1"),
        azureopenai=Table(base_url="https://mine.openai.azure.com/openai/v1"),
        plain=Table(profile="AzureOpenAI", base_url="http://mine.openai.azure.com/openai/v1"),
    )
    found = {b.name: expected_tier(settings, b).tier for b in configured_backends(settings, {})}
    assert found == {"vllm": STANDARD, "azureopenai": PRIVATE, "plain": STANDARD}


def test_a_public_service_is_never_near_whatever_networks_are_declared() -> None:
    for kind in ServingBackend:
        if kind.tier is STANDARD:
            assert expected_tier(config(NEAR), default_backend(kind, {})).tier is STANDARD


def test_of_several_addresses_the_farthest_counts_until_one_is_used() -> None:
    backend = Backend(name="b", kind=ServingBackend.LLAMA_CPP, base_urls=(LOCAL, "http://192.0.2.1/v1"))
    assert expected_tier(config(), backend).tier is STANDARD
    assert expected_tier(config(), backend, LOCAL).tier is SOVEREIGN


def test_a_local_backend_is_free_and_a_public_one_of_the_same_kind_is_not() -> None:
    settings = config(
        near=Table(profile="vllm", base_url=LOCAL), far=Table(profile="vllm", base_url="http://192.0.2.1")
    )
    near, far = snapshot(settings, model="llama-3-8b").backends
    assert near.price is not None and near.price.is_free
    assert far.price is None
    assert snapshot(settings, model="priced").backends[1].price is not None


def test_a_model_that_a_local_server_sends_elsewhere_is_not_free() -> None:
    settings = config(ollama=Table())
    (backend,) = configured_backends(settings, {})
    probe = ProbeResult(
        backend=backend, base_url=LOCAL, healthy=True, models=("big:cloud",), remote_models=("big:cloud",)
    )
    found = only(snapshot(settings, model="big:cloud", probes={"ollama": probe}))
    assert found.price is None and found.remote_models == {"big:cloud"}


def test_the_same_model_has_the_price_of_its_host() -> None:
    settings = config(groq=Table(), together=Table())
    groq, together = snapshot(settings, model="llama-3.1-8b-instant").backends
    assert groq.price is not None and not groq.price.is_free
    assert together.price is None


def test_the_window_is_the_model_s_or_the_server_s_when_that_is_smaller() -> None:
    settings = config(llamacpp=Table())
    (backend,) = configured_backends(settings, {})

    def found(model: str, served: int | None) -> tuple[int | None, int | None]:
        probe = ProbeResult(backend=backend, base_url=LOCAL, healthy=True, context_length=served)
        state = only(snapshot(settings, model=model, probes={"llamacpp": probe}))
        return state.window, state.reserve

    assert found("priced", None) == (8192, 1000)
    assert found("priced", 131072) == (8192, 1000)
    assert found("priced", 2048) == (2048, 512)
    assert found("nobody-knows-it", 2048) == (2048, 512)
    assert found("nobody-knows-it", None) == (None, None)


def test_what_was_seen_is_in_it() -> None:
    settings = config(llamacpp=Table(models=("mine",)), vllm=Table(), tgi=Table())
    backends = {b.name: b for b in configured_backends(settings, {})}
    probes = {
        "llamacpp": ProbeResult(
            backend=backends["llamacpp"], base_url=LOCAL, healthy=True, queue_depth=3, models=("theirs",)
        ),
        "vllm": ProbeResult(backend=backends["vllm"], base_url=LOCAL, healthy=True, queue_depth=1, models=("theirs",)),
        "tgi": ProbeResult(backend=backends["tgi"], base_url=LOCAL, error="connection refused"),
    }
    health = BackendHealth()
    for _ in range(2):
        health.start("vllm", 10.0)
    health.finish(health.start("llamacpp", 10.0), AttemptOutcome.FAILED, 10.0)
    llamacpp, vllm, tgi = snapshot(settings, probes=probes, health=health, now=10.25).backends
    assert (llamacpp.models, llamacpp.depth, llamacpp.cooldown, llamacpp.trouble) == (("mine",), 3, 0.75, "")
    assert (vllm.models, vllm.depth, vllm.cooldown) == (("theirs",), 2, None)
    assert (tgi.models, tgi.depth, tgi.trouble) == (None, 0, "connection refused")
    unseen = snapshot(settings).backends[0]
    assert (unseen.depth, unseen.cooldown, unseen.trouble) == (None, None, "")


def test_an_observer_remembers_the_tables_and_not_the_state_of_the_backends() -> None:
    settings = config(llamacpp=Table())
    backends = configured_backends(settings, {})
    observer, health = Observer(settings, backends), BackendHealth()
    request = PlanRequest(privacy=STANDARD, model="priced")
    seen = Seen(day=DAY, probes={}, health=health)
    assert only(observer.snapshot(request, seen)).depth == 0
    health.start("llamacpp", 0.0)
    assert only(observer.snapshot(request, seen)).depth == 1
    far = ProbeResult(backend=backends[0], base_url="http://192.0.2.1/v1", healthy=True, context_length=4096)
    found = only(observer.snapshot(request, replace(seen, probes={"llamacpp": far})))
    assert (found.tier, found.window) == (STANDARD, 4096)
    assert found.price is not None and not found.price.is_free


def test_what_is_left_of_the_budget_is_in_it() -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="5.00", max_request_cost_usd="0.50"))
    breaker.record("1.25")
    found = snapshot(config(groq=Table()), budget=breaker.status())
    assert (found.budget_remaining, found.max_request_cost) == (3_750_000_000, 500_000_000)
    assert snapshot(config(groq=Table())).budget_remaining is None


def test_a_ledger_that_is_ahead_leaves_nothing() -> None:
    breaker = CostCircuitBreaker(now=lambda: 1_900_000_000.0)
    breaker.record("1")
    behind = CostCircuitBreaker(ledger=breaker.ledger, now=lambda: 1_800_000_000.0)
    assert snapshot(config(groq=Table()), budget=behind.status()).budget_remaining == 0


def test_the_router_s_table_is_in_it_with_names_as_people_write_them() -> None:
    router = Router(spillover_threshold=5, max_queue_depth=9, local_backend="Llama-Cpp", spillover_backends=("GROQ",))
    found = snapshot(config(router=router, groq=Table(), llamacpp=Table()))
    assert (found.local_backend, found.spillover_backends) == ("llamacpp", ("groq",))
    assert found.limits == Limits(5, 9, True, 4)


@pytest.mark.parametrize("router", [Router(local_backend="grok"), Router(spillover_backends=("grok",))])
def test_a_router_s_table_that_names_nobody_is_refused(router: Router) -> None:
    with pytest.raises(ConfigError, match=r"^router\.\w+: unknown backend grok, did you mean groq"):
        snapshot(config(router=router, groq=Table()))
    with pytest.raises(ConfigError, match="did you mean Groq"):
        usual_backends(Config(router=router), PlanRequest(privacy=STANDARD), local=False)


def test_when_nothing_is_configured_there_is_always_a_local_backend_to_decide_for() -> None:
    for privacy in PrivacyTier:
        for latency in LatencyTier:
            request = PlanRequest(privacy=privacy, latency=latency)
            found = usual_backends(Config(), request, local=False)
            assert any(b.kind.is_local for b in found)
            assert all(privacy.admits(b.kind.tier) for b in found)
    local = usual_backends(
        Config(router=Router(spillover_backends=("groq",))), PlanRequest(privacy=STANDARD), local=True
    )
    assert [b.kind.is_local for b in local] == [True] * 8 + [False]


@pytest.mark.parametrize(
    "model", ["mine:latest", "mine", "Mine", "library/mine", "registry.ollama.ai/library/mine:latest", "mine@sha256:00"]
)
def test_a_model_that_the_server_sends_elsewhere_is_known_by_all_its_names(model: str) -> None:
    settings = config(ollama=Table(base_url="http://127.0.0.1:11434/v1", models=(model,)))
    (backend,) = configured_backends(settings, {})
    probe = ProbeResult(
        backend=backend, base_url=LOCAL, healthy=True, models=("mine:latest",), remote_models=("mine:latest",)
    )
    found = only(snapshot(settings, model=model, probes={"ollama": probe}))
    assert model in found.remote_models
    assert found.price is None


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "GPT-OSS:120b-Cloud", "glm:cloud", "x-cloud:latest"])
def test_a_cloud_model_is_known_by_its_name_before_the_server_was_asked(model: str) -> None:
    assert (
        model in only(snapshot(config(ollama=Table(base_url="http://127.0.0.1:11434/v1")), model=model)).remote_models
    )
    assert not only(snapshot(config(vllm=Table(base_url=LOCAL)), model=model)).remote_models


@pytest.mark.parametrize("privacy", [None, NEAR])
def test_a_private_cloud_is_never_free_whatever_its_profile_says(privacy: Privacy | None) -> None:
    cloud = config(privacy, vllm=Table(base_url="https://mine.openai.azure.com/openai/v1"))
    assert only(snapshot(cloud, model="test")).price is None


def test_a_host_name_that_may_lie_near_costs_what_its_owner_says() -> None:
    hosted = config(NEAR, vllm=Table(base_url="https://gpu.example/v1"))
    priced, other = only(snapshot(hosted, model="priced")).price, only(snapshot(hosted, model="other")).price
    assert priced is not None and not priced.is_free
    assert other is not None and other.is_free
