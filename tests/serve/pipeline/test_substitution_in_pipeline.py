"""Aliases and fallbacks over real requests: the final model is what is sent, judged, reserved and charged."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config, ModelSection, Privacy
from batuta_cli.errors import BatutaError, CostError, ModelNotAllowedError, NoBackendError, PrivacyError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.client_account import ClientAccount
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import Script, chat_answer, response
from tests.serve.support_pipeline import request, servers

BIG = ModelSection(context_window=100_000, output_reserve=64)


def paid(price: str) -> ModelSection:
    return replace(BIG, input_usd_per_million=Decimal(price), output_usd_per_million=Decimal(price))


def by_model(answers: dict[str, Script]) -> Callable[..., Script]:
    """A script that answers by the model in the request, and lists these models."""
    return lambda path, headers, body: answers[body["model"]] if body else [response(b'{"data": []}')]


def refused(status: str) -> Script:
    return [response(b'{"error": {"message": "no"}}', status=status)]


OK: Script = [response(chat_answer("Hello", usage=(10, 10)))]


def asked(
    tmp_path: Path, answers: dict[str, Script], config: Config, model: str, profile: str = "vllm", **more: Any
) -> tuple[Response | BatutaError, list[str], Pipeline]:
    """The response (or error) to a request for `model`, the models that the server was sent, and the pipeline."""
    with servers(by_model(answers)) as [server]:
        tables = {"one": Table(profile=profile, base_url=server.base_url, models=tuple(answers))}
        made = Pipeline(
            replace(config, backends=tables, models={**dict.fromkeys(answers, BIG), **config.models}),
            breaker=CostCircuitBreaker(CircuitBreakerConfig()),
            audit=AuditLog(tmp_path / "audit"),
            failover=FailoverConfig(max_retries=0),
        )

        async def run() -> Response | BatutaError:
            async with made:
                try:
                    found = await made.start(
                        request(stream=False, model=model, max_tokens=50, **{"privacy": PrivacyTier.STANDARD, **more})
                    )
                    assert await found.text() == "Hello"
                    return found
                except BatutaError as error:
                    return error

        return asyncio.run(run()), [body["model"] for _, _, body in server.requests if body], made


def test_an_alias_is_sent_as_its_model(tmp_path: Path) -> None:
    config = Config(aliases={"gpt-4o-mini": "small"})
    found, sent, made = asked(tmp_path, {"small": OK}, config, "gpt-4o-mini")
    assert isinstance(found, Response)
    assert (sent, found.request.model, found.fallback) == (["small"], "small", "")
    assert made.models() == ["gpt-4o-mini", "small"]


def test_an_alias_does_not_hide_a_model_that_a_backend_has(tmp_path: Path) -> None:
    assert asked(tmp_path, {"a": OK, "b": OK}, Config(aliases={"a": "b"}), "a")[1] == ["a"]


def test_an_alias_is_not_followed_twice(tmp_path: Path) -> None:
    found, sent, _ = asked(tmp_path, {"c": OK}, Config(aliases={"a": "b", "b": "c"}), "a")
    assert isinstance(found, NoBackendError) and sent == []


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many", "500 Error", "503 Busy"])
def test_a_fallback_answers_for_a_model_that_fails(tmp_path: Path, status: str) -> None:
    config = Config(fallbacks={"big": ("gone", "small")})
    found, sent, _ = asked(tmp_path, {"big": refused(status), "small": OK}, config, "big")
    assert isinstance(found, Response)
    assert (sent, found.fallback) == (["big", "small"], "small")


@pytest.mark.parametrize("status", ["400 Bad", "401 Unauthorized", "403 Forbidden", "422 Wrong"])
def test_a_fallback_does_not_answer_for_a_request_or_key_that_is_wrong(tmp_path: Path, status: str) -> None:
    config = Config(fallbacks={"big": ("small",)})
    found, sent, _ = asked(tmp_path, {"big": refused(status), "small": OK}, config, "big")
    assert isinstance(found, BackendError) and found.status == int(status[:3])
    assert sent == ["big"]


def test_a_fallback_of_a_fallback_is_not_tried(tmp_path: Path) -> None:
    busy = refused("503 Busy")
    config = Config(fallbacks={"a": ("b",), "b": ("c",)})
    found, sent, _ = asked(tmp_path, {"a": busy, "b": busy, "c": OK}, config, "a")
    assert isinstance(found, BackendError) and sent == ["a", "b"]


def test_an_alias_s_model_has_its_fallbacks(tmp_path: Path) -> None:
    config = Config(aliases={"x": "big"}, fallbacks={"big": ("small",)})
    found, sent, _ = asked(tmp_path, {"big": refused("503 Busy"), "small": OK}, config, "x")
    assert isinstance(found, Response) and (sent, found.fallback) == (["big", "small"], "small")


def test_a_fallback_is_reserved_and_charged_at_its_own_price(tmp_path: Path) -> None:
    config = Config(fallbacks={"cheap": ("dear",)}, models={"cheap": paid("1"), "dear": paid("7")})
    answers = {"cheap": refused("503 Busy"), "dear": OK}
    found, _, made = asked(tmp_path, answers, config, "cheap", profile="groq")
    assert isinstance(found, Response) and found.summary is not None
    assert found.summary.cost == 20 * 7_000 == made.breaker.status().spent
    assert made.breaker.status().reserved == 0


def test_a_fallback_that_the_budget_refuses_does_not_answer(tmp_path: Path) -> None:
    config = Config(fallbacks={"cheap": ("dear",)}, models={"cheap": paid("1"), "dear": paid("900000")})
    answers = {"cheap": refused("503 Busy"), "dear": OK}
    found, sent, _ = asked(tmp_path, answers, config, "cheap", profile="groq")
    assert isinstance(found, BackendError) and sent == ["cheap"]


def test_the_budget_is_no_reason_for_a_fallback(tmp_path: Path) -> None:
    config = Config(fallbacks={"dear": ("cheap",)}, models={"cheap": paid("1"), "dear": paid("900000")})
    found, sent, _ = asked(tmp_path, {"cheap": OK, "dear": OK}, config, "dear", profile="groq")
    assert isinstance(found, CostError) and sent == []


def test_the_tier_is_no_reason_for_a_fallback(tmp_path: Path) -> None:
    """A model that its server forwards elsewhere is refused under sovereign; its fallback here does not answer."""
    config = Config(fallbacks={"m:cloud": ("m",)}, privacy=Privacy(tier="sovereign"))
    answers = {"m:cloud": OK, "m": OK}
    found, sent, _ = asked(tmp_path, answers, config, "m:cloud", profile="ollama", privacy=PrivacyTier.SOVEREIGN)
    assert isinstance(found, PrivacyError) and sent == []


def test_a_backend_that_is_down_is_answered_for(tmp_path: Path) -> None:
    with servers(by_model({"small": OK})) as [server]:
        tables = {
            "down": Table(profile="vllm", base_url="http://127.0.0.1:9/v1", models=("big",)),
            "empty": Table(),
            "up": Table(profile="vllm", base_url=server.base_url, models=("small",)),
        }
        config = Config(backends=tables, fallbacks={"big": ("small",)}, models={"big": BIG, "small": BIG})
        made = Pipeline(config, audit=AuditLog(tmp_path / "audit"), breaker=CostCircuitBreaker(CircuitBreakerConfig()))

        async def run() -> tuple[str, str, str | None]:
            async with made:
                found = await made.start(request(stream=False, model="big", privacy=PrivacyTier.STANDARD))
                text = await found.text()
                plan = await made.explain(request(model="big", privacy=PrivacyTier.STANDARD))
                return text, found.fallback, plan.backend

        assert asyncio.run(run()) == ("Hello", "small", "up")


def test_an_unknown_model_gets_the_nearest_name(tmp_path: Path) -> None:
    found, _, _ = asked(tmp_path, {"smollm2-135m": OK}, Config(), "smolm2-135m")
    assert isinstance(found, NoBackendError)
    assert str(found.hint).startswith("did you mean smollm2-135m?")


SMALL_ONLY = ClientAccount("ci", ("small*",))


def test_a_clients_models_are_judged_on_the_model_of_an_alias(tmp_path: Path) -> None:
    config = Config(aliases={"fast": "small", "small-alias": "big"})
    answers = {"small": OK, "big": OK}
    found, sent, made = asked(tmp_path, answers, config, "fast", client=SMALL_ONLY)
    assert isinstance(found, Response) and sent == ["small"]
    assert made.models(SMALL_ONLY) == ["fast", "small"]
    refused_one, sent, _ = asked(tmp_path, answers, config, "small-alias", client=SMALL_ONLY)
    assert isinstance(refused_one, ModelNotAllowedError) and sent == []


def test_a_fallback_that_the_client_may_not_use_does_not_answer(tmp_path: Path) -> None:
    config = Config(fallbacks={"small": ("big", "small-2")})
    answers = {"small": refused("503 Busy"), "big": OK, "small-2": OK}
    found, sent, _ = asked(tmp_path, answers, config, "small", client=SMALL_ONLY)
    assert isinstance(found, Response)
    assert (sent, found.fallback) == (["small", "small-2"], "small-2")


def test_no_model_is_suggested_that_the_client_may_not_use(tmp_path: Path) -> None:
    found, _, _ = asked(
        tmp_path, {"small-big": OK, "big": OK}, Config(), "small-bi", client=ClientAccount("c", ("small-bi",))
    )
    assert isinstance(found, NoBackendError)
    assert "small-big" not in f"{found.message} {found.hint}"


def test_tokens_are_counted_for_the_models_of_the_client_only(tmp_path: Path) -> None:
    config = Config(aliases={"fast": "small", "slow": "big"})
    _, _, made = asked(tmp_path, {"small": OK, "big": OK}, config, "small", client=SMALL_ONLY)

    async def count(model: str) -> int:
        async with made:
            return (await made.count(request(model=model, client=SMALL_ONLY, privacy=PrivacyTier.STANDARD))).tokens

    assert asyncio.run(count("fast")) > 0
    with pytest.raises(ModelNotAllowedError):
        asyncio.run(count("slow"))
