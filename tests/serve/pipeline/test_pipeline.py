"""The path of a request, over backends that do what they are told: its cost, its backends, and who may not take it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Config, FailoverSection, ModelSection, Privacy, Router, TimeoutsSection
from batuta_cli.errors import (
    BatutaError,
    ContextOverflowError,
    DailyBudgetExceeded,
    NoBackendError,
    PrivacyError,
    QueueFullError,
    RequestTooExpensive,
    UnknownPriceError,
    UsageError,
)
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import FaultServer, Script, chat_answer, chat_stream, response, stream_head
from tests.serve.support_pipeline import (
    MODEL,
    STALL,
    ask,
    backends,
    pipeline,
    refuser,
    request,
    servers,
    speaker,
    text_of,
)

TEXT = 'Füchse 🦊 laufen.\n\nThey  run, "fast" and far.'
"""With characters of two and four bytes, blanks in a row, and what JSON escapes."""


def _priced(dollars: str = "1") -> ModelSection:
    from decimal import Decimal

    price = Decimal(dollars)
    return ModelSection(100_000, 64, input_usd_per_million=price, output_usd_per_million=price)


# Money


def paying(
    tmp_path: Path, script: Callable[..., Any], *, budget: str = "10", most: str = "1", price: str = "1"
) -> tuple[CostCircuitBreaker, Any]:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=budget, max_request_cost_usd=most))
    with servers(script) as [one]:
        made = pipeline(
            tmp_path, backends(one=("openai", one.base_url)), breaker=breaker, models={MODEL: _priced(price)}
        )
        try:
            return breaker, ask(made)
        except BatutaError as error:
            return breaker, error


def test_a_paid_answer_costs_what_its_usage_says(tmp_path: Path) -> None:
    breaker, (answer, _) = paying(tmp_path, lambda *_: [stream_head(), chat_stream(["Hi"], usage=(30, 12))], price="2")
    assert answer.summary.cost == (30 + 12) * 2_000
    status = breaker.status()
    assert (status.spent, status.reserved) == (84_000, 0)
    assert answer.summary.budget_left == 10**10 - 84_000


def test_usage_that_is_missing_is_counted_and_not_zero(tmp_path: Path) -> None:
    breaker, (answer, _) = paying(tmp_path, lambda *_: [stream_head(), chat_stream(["Hello there"], usage=None)])
    assert breaker.status().spent == answer.summary.cost > 0
    assert not answer.summary.exact


def test_a_refusal_by_status_costs_nothing(tmp_path: Path) -> None:
    breaker, error = paying(tmp_path, refuser("500 Internal Server Error"))
    assert isinstance(error, BackendError)
    assert (breaker.status().spent, breaker.status().reserved) == (0, 0)


def test_an_answer_that_broke_off_is_charged_for_what_was_seen(tmp_path: Path) -> None:
    breaker, error = paying(tmp_path, speaker(TEXT, cut=900))
    assert isinstance(error, BackendError)
    assert breaker.status().spent > 0
    assert breaker.status().reserved == 0


@pytest.mark.parametrize(
    ("budget", "most", "kind"), [("0.005", "1", DailyBudgetExceeded), ("10", "0.005", RequestTooExpensive)]
)
def test_the_bound_of_a_request_must_fit_the_budget(tmp_path: Path, budget: str, most: str, kind: type) -> None:
    # 10,000 tokens of answer at one dollar a million are a cent.
    breaker, error = paying(tmp_path, speaker(TEXT), budget=budget, most=most)
    assert isinstance(error, kind) and isinstance(error, BatutaError)
    assert error.exit_code == 5
    assert breaker.status().spent == 0


def test_a_price_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with servers(speaker(TEXT)) as [one], pytest.raises(UnknownPriceError):
        ask(pipeline(tmp_path, backends(one=("openai", one.base_url))))
    assert one.requests == []


def test_two_hundred_at_once_never_overspend_and_none_is_refused_wrongly(tmp_path: Path) -> None:
    # Each is bounded at 10,000 + 20 nano-dollars a token; the budget has room for all when they are settled in turn.
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="2.1"))

    async def run(made: Any) -> list[Any]:
        async with made:

            async def one(number: int) -> Any:
                answer = await made.start(request(request_id=f"r{number}"))
                return [piece async for piece in answer]

            return await asyncio.gather(*(one(n) for n in range(200)), return_exceptions=True)

    with servers(lambda *_: [stream_head(), chat_stream(["Hi"], usage=(10, 10))]) as [server]:
        tables = backends(one=("openai", server.base_url))
        made = pipeline(
            tmp_path, tables, breaker=breaker, models={MODEL: _priced()}, router=Router(max_queue_depth=1000)
        )
        results = asyncio.run(run(made))
    assert [r for r in results if isinstance(r, BaseException)] == []
    assert breaker.status().spent == 200 * 20 * 1_000


def test_a_small_budget_is_never_overspent_by_many_at_once(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="0.055"))  # room for five bounds of a cent each

    async def run(made: Any) -> list[Any]:
        async with made:

            async def one(number: int) -> Any:
                answer = await made.start(request(request_id=f"r{number}"))
                return [piece async for piece in answer]

            return await asyncio.gather(*(one(n) for n in range(40)), return_exceptions=True)

    # Each answer costs all that was reserved for it.
    with servers(lambda *_: [stream_head(), chat_stream(["Hi"], usage=(1, 10_000))]) as [server]:
        tables = backends(one=("openai", server.base_url))
        results = asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: _priced()})))
    done = [r for r in results if isinstance(r, list)]
    assert 1 <= len(done) <= 5
    assert all(isinstance(r, DailyBudgetExceeded) for r in results if not isinstance(r, list))
    assert breaker.status().spent <= breaker.config.daily_budget


# Who may not take it


def test_a_tier_that_admits_nobody_is_a_privacy_error(tmp_path: Path) -> None:
    tables = backends(far=("vllm", "http://192.0.2.1:8000/v1"))
    with pytest.raises(PrivacyError) as caught:
        ask(pipeline(tmp_path, tables))
    assert caught.value.exit_code == 6


def test_failover_never_crosses_the_tier(tmp_path: Path) -> None:
    with servers(speaker(TEXT, cut=900)) as [one]:
        tables = backends(one=("vllm", one.base_url), far=("vllm", "http://192.0.2.1:8000/v1"))
        with pytest.raises(BackendError):
            ask(pipeline(tmp_path, tables))


def test_a_long_conversation_is_a_context_error_where_it_is_counted_exactly(tmp_path: Path, gguf: Path) -> None:
    long = (ChatMessage.user("word " * 20_000),)
    models = {MODEL: ModelSection(context_window=16_384, tokenizer=str(gguf))}
    with servers(speaker(TEXT)) as [one], pytest.raises(ContextOverflowError) as caught:
        ask(pipeline(tmp_path, backends(one=("vllm", one.base_url)), models=models), request(messages=long))
    assert caught.value.exit_code == 8


def test_an_estimate_refuses_nothing_for_context_and_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = (ChatMessage.user("word " * 200_000),)
    with servers(speaker(TEXT)) as [one]:
        pieces = ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))), request(messages=long))[1]
    assert text_of(pieces) == TEXT
    assert any("one: the prompt may not fit" in record.message for record in caplog.records)


def test_full_queues_are_told_with_the_time_to_wait(tmp_path: Path) -> None:
    async def run(made: Any) -> QueueFullError:
        async with made:
            first = await made.start(request(request_id="a"))
            with pytest.raises(QueueFullError) as caught:
                await made.start(request(request_id="b"))
            await first.aclose()
            answer = await made.start(request(request_id="c"))
            await answer.aclose()
            return caught.value

    with servers(speaker(TEXT, cut=900, then=[STALL])) as [one]:
        router = Router(spillover_threshold=1, max_queue_depth=1)
        error = asyncio.run(run(pipeline(tmp_path, backends(one=("vllm", one.base_url)), router=router)))
    assert error.exit_code == 7
    assert error.retry_after is not None
    assert error.retry_after >= 1


def test_past_the_threshold_requests_spill_over(tmp_path: Path) -> None:
    async def run(made: Any) -> list[str]:
        async with made:
            answers = [await made.start(request(request_id=f"r{n}")) for n in range(4)]
            names = [answer.backend for answer in answers]
            for answer in answers:
                await answer.aclose()
            return names

    with servers(*[speaker(TEXT, cut=900, then=[STALL])] * 2) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        router = Router(spillover_threshold=2, max_queue_depth=5, local_backend="one", spillover_backends=("two",))
        assert asyncio.run(run(pipeline(tmp_path, tables, router=router))) == ["one", "one", "two", "two"]


def test_a_failed_backend_rests(tmp_path: Path) -> None:
    async def run(made: Any) -> None:
        async with made:
            for n in range(3):
                answer = await made.start(request(request_id=f"r{n}"))
                assert answer.backend == "two"
                await answer.aclose()

    with servers(refuser("503 Service Unavailable"), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        asyncio.run(run(pipeline(tmp_path, tables)))
    assert len(one.requests) == 1


def test_a_backend_that_is_not_configured_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown backend oen, did you mean one"):
        ask(pipeline(tmp_path, backends(one=("vllm", "http://127.0.0.1:1/v1"))), request(backend="oen"))


def test_all_down_is_no_backend_or_what_went_wrong_first(tmp_path: Path) -> None:
    with pytest.raises(BatutaError) as caught:
        ask(pipeline(tmp_path, backends(one=("vllm", "http://127.0.0.1:1/v1"))))
    assert isinstance(caught.value, BackendError | NoBackendError)


def test_the_tier_of_the_configuration_is_the_default(tmp_path: Path) -> None:
    made = pipeline(tmp_path, {}, privacy=Privacy(tier="private"))
    assert made.tier is PrivacyTier.PRIVATE


def test_several_choices_are_bounded_together(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="10", max_request_cost_usd="0.025"))
    with servers(lambda *_: [stream_head(), chat_stream(["Hi"])]) as [one]:
        tables = backends(one=("openai", one.base_url))
        for n, kind in ((2, None), (3, RequestTooExpensive)):  # a cent each
            made = pipeline(tmp_path, tables, breaker=breaker, models={MODEL: _priced()})
            if kind is None:
                ask(made, request(options={"n": n}))
            else:
                with pytest.raises(kind):
                    ask(made, request(options={"n": n}))


@pytest.mark.parametrize("stream", [True, False])
def test_no_output_limit_is_sent_to_a_free_backend_unless_the_client_sets_one(tmp_path: Path, stream: bool) -> None:
    script: Script = [stream_head(), chat_stream(["Hi"])] if stream else [response(chat_answer("Hi"))]
    with FaultServer(lambda *_: script) as one:
        for limit in (None, 17):
            ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))), request(stream, max_tokens=limit))
    without, limited = (body for _, _, body in one.requests)
    assert not {"max_tokens", "max_completion_tokens"} & set(without)
    assert limited["max_tokens"] == 17


def test_an_output_limit_is_sent_where_money_needs_it(tmp_path: Path) -> None:
    with FaultServer(lambda *_: [stream_head(), chat_stream(["Hi"])]) as one:
        made = pipeline(tmp_path, backends(one=("openai", one.base_url)), models={MODEL: _priced()})
        ask(made, request(max_tokens=None))
    [(_, _, body)] = one.requests
    assert body["max_completion_tokens"] == 64  # the model's usual reserve


def counting(tokens: int, window: int | None = None) -> Callable[..., Any]:
    """A vLLM that also counts: every prompt has so many tokens."""

    def script(path: str, headers: dict[str, str], body: Any) -> Any:
        if path == "/tokenize":
            return [response(json.dumps({"count": tokens, "max_model_len": window}).encode())]
        return speaker(TEXT)(path, headers, body)

    return script


@pytest.mark.parametrize(
    ("tokens", "window", "fits"), [(99_936, None, True), (99_937, None, False), (9_000, 8_192, False)]
)
def test_a_server_that_can_count_decides_where_an_estimate_exceeds_the_window(
    tmp_path: Path, tokens: int, window: int | None, fits: bool
) -> None:
    long = request(messages=(ChatMessage.user("word " * 100_000),), max_tokens=64)
    with servers(counting(tokens, window)) as [one]:
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url)))
        if fits:
            assert text_of(ask(made, long)[1]) == TEXT
        else:
            with pytest.raises(
                ContextOverflowError, match=f"{tokens + 64:,} tokens in a window of {window or 100_000:,}"
            ):
                ask(made, long)
    assert [path for path, _, _ in one.requests].count("/tokenize") == 1


def test_a_small_request_is_not_counted_by_the_server(tmp_path: Path) -> None:
    with servers(counting(5)) as [one]:
        assert text_of(ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))))[1]) == TEXT
    assert "/tokenize" not in [path for path, _, _ in one.requests]


def test_a_pipeline_takes_its_limits_and_timeouts_from_the_configuration() -> None:
    section = FailoverSection(max_retries=5, prompted=True, cooldown=0.5, max_cooldown=2.0, max_retry_after=9.0)
    made = Pipeline(Config(failover=section, timeouts=TimeoutsSection(first_token=600.0)))
    assert made.timeouts.first_token == 600.0
    assert (made.failover.max_retries, made.failover.prompted, made.failover.max_retry_after) == (5, True, 9.0)
    assert [made.failover.cooldown_after(failures, 0.0) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 2.0]
