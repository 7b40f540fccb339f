"""A request for embeddings on the path of all requests: price, budget, tier, audit log, window, failover."""

import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Config, ModelSection, Privacy
from batuta_cli.errors import (
    ContextOverflowError,
    DailyBudgetExceeded,
    InvalidInputError,
    PrivacyError,
    UnknownPriceError,
    UsageError,
)
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import FaultServer, Script, response
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, refuser

SMALL = "text-embedding-3-small"
SOVEREIGN = Privacy(tier="sovereign")
PRICED = {MODEL: ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(9))}
TEXTS = ("Hello world", "one two three")


def answer(*embeddings: Any, tokens: int | None = 5) -> Script:
    data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(embeddings)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return [response(json.dumps({"object": "list", "data": data, "model": "m", **usage}).encode())]


def embedder(tokens: int | None = 5) -> Any:
    return lambda path, headers, body: answer(*([float(i), 0.5] for i, _ in enumerate(body["input"])), tokens=tokens)


def request(**more: Any) -> ChatRequest:
    fields: dict[str, Any] = {"model": MODEL, "inputs": TEXTS, "privacy": PrivacyTier.SOVEREIGN, "request_id": "r1"}
    return ChatRequest(**(fields | more))


def budget(usd: str = "10") -> CostCircuitBreaker:
    return CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=Decimal(usd)))


def test_a_local_server_embeds_the_texts_and_the_options_go_along(tmp_path: Path) -> None:
    with FaultServer(embedder()) as server:
        made = pipeline(tmp_path, backends(llamacpp=("llamacpp", server.base_url)))
        response, pieces = ask(made, request(options={"dimensions": 2, "encoding_format": "float"}))
    path, _, body = server.requests[-1]
    assert path == "/v1/embeddings"
    assert body == {"model": MODEL, "input": list(TEXTS), "dimensions": 2, "encoding_format": "float"}
    assert pieces[0].embeddings == ([0.0, 0.5], [1.0, 0.5])
    assert response.summary is not None
    assert (response.summary.input_tokens, response.summary.output_tokens, response.summary.cost) == (5, 0, 0)


def test_input_tokens_alone_are_charged_at_the_price_of_input(tmp_path: Path) -> None:
    breaker = budget()
    with FaultServer(embedder(5)) as server:
        made = pipeline(tmp_path, backends(openai=("openai", server.base_url)), breaker=breaker, models=PRICED)
        response, _ = ask(made, request())
    assert response.summary is not None
    assert response.summary.cost == 5 * 1000
    status = breaker.status()
    assert (status.spent, status.reserved) == (5 * 1000, 0)


def test_openais_embeddings_are_priced_by_the_table_and_counted_exactly(tmp_path: Path) -> None:
    """$0.02 a million tokens; "Hello world" has 2 tokens by cl100k, "one two three" 3."""
    breaker = budget()
    with FaultServer(embedder(tokens=1)) as server:  # reports less than it was sent
        made = pipeline(tmp_path, backends((SMALL,), openai=("openai", server.base_url)), breaker=breaker)
        ask(made, request(model=SMALL, privacy=PrivacyTier.STANDARD))
    assert breaker.status().spent == 5 * 20


def test_a_chat_with_a_model_that_only_embeds_has_no_price(tmp_path: Path) -> None:
    from tests.serve.support_pipeline import request as chat

    with FaultServer(embedder()) as server:
        made = pipeline(tmp_path, backends((SMALL,), openai=("openai", server.base_url)))
        with pytest.raises(UnknownPriceError):
            ask(made, chat(model=SMALL, max_tokens=10))
    assert server.requests == []


def test_a_lost_response_is_charged_in_full_and_a_missing_usage_by_the_bound(tmp_path: Path) -> None:
    """The texts have 5 tokens, of 1,000 nano-dollars each."""
    scripts: list[Any] = [lambda *_: [b""], embedder(None)]
    for script in scripts:
        breaker = budget()
        with FaultServer(script) as server:
            made = pipeline(
                tmp_path,
                backends((SMALL,), openai=("openai", server.base_url)),
                breaker=breaker,
                models={SMALL: PRICED[MODEL]},
            )
            with contextlib.suppress(BackendError):
                ask(made, request(model=SMALL))
        assert breaker.status().spent == 5 * 1000


def test_the_budget_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    with FaultServer(embedder()) as server:
        made = pipeline(
            tmp_path, backends(openai=("openai", server.base_url)), breaker=budget("0.000001"), models=PRICED
        )
        with pytest.raises(DailyBudgetExceeded):
            ask(made, request())
    assert server.requests == []


def test_the_privacy_tier_refuses_and_each_decision_is_in_the_audit_log(tmp_path: Path) -> None:
    made = pipeline(tmp_path, backends((SMALL,), openai=("openai", "https://api.openai.com/v1")))
    with pytest.raises(PrivacyError):
        ask(made, request(model=SMALL))
    with FaultServer(embedder()) as server:
        ask(pipeline(tmp_path, backends(llamacpp=("llamacpp", server.base_url))), request(request_id="audited"))
    files = (tmp_path / "audit").glob("*.jsonl")
    records = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    told = [(r["backend"], r["decision"]) for r in records if r.get("request") == "audited"]
    assert told == [("llamacpp", "allowed")]


def test_a_backend_without_embeddings_never_gets_them(tmp_path: Path) -> None:
    with FaultServer(embedder()) as server:
        made = pipeline(tmp_path, backends(anthropic=("anthropic", server.base_url)), models=PRICED)
        with pytest.raises(InvalidInputError, match="its API has no embeddings"):
            ask(made, request())
    assert server.requests == []


def test_another_backend_of_the_same_model_is_tried_when_the_first_fails(tmp_path: Path) -> None:
    with FaultServer(refuser("503 Service Unavailable")) as first, FaultServer(embedder()) as second:
        tables = backends(vllm=("vllm", first.base_url), llamacpp=("llamacpp", second.base_url))
        response, pieces = ask(pipeline(tmp_path, tables), request())
    assert (len(first.requests), response.backend) == (1, "llamacpp")
    assert second.requests[-1][2]["model"] == MODEL
    assert len(pieces[0].embeddings) == 2


def test_a_fallback_to_another_model_never_answers_and_an_alias_does(tmp_path: Path) -> None:
    """Vectors of two models cannot be compared."""
    with FaultServer(refuser("503 Service Unavailable")) as down, FaultServer(embedder()) as up:
        tables = backends(("big",), one=("llamacpp", down.base_url)) | backends(two=("llamacpp", up.base_url))
        config = Config(backends=tables, fallbacks={"big": (MODEL,)}, aliases={"small": MODEL}, privacy=SOVEREIGN)
        made = Pipeline(config, breaker=budget(), audit=AuditLog(tmp_path / "audit"))
        with pytest.raises(BackendError):
            ask(made, request(model="big"))
        assert up.requests == []
        made = Pipeline(config, breaker=budget(), audit=AuditLog(tmp_path / "audit"))
        assert len(ask(made, request(model="small"))[1][0].embeddings) == 2
    assert up.requests[0][2]["model"] == MODEL


def test_each_text_must_fit_the_window_and_not_their_sum(tmp_path: Path) -> None:
    windows = {SMALL: ModelSection(8, 1, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))}
    with FaultServer(lambda path, headers, body: answer(*([0.5] for _ in body["input"]))) as server:
        made = pipeline(tmp_path, backends((SMALL,), openai=("openai", server.base_url)), models=windows)
        ask(made, request(model=SMALL, inputs=("one two three",) * 10))
        made = pipeline(tmp_path, backends((SMALL,), openai=("openai", server.base_url)), models=windows)
        with pytest.raises(ContextOverflowError):
            ask(made, request(model=SMALL, inputs=("one", "one two three four five six seven eight nine")))
    assert len(server.requests) == 1


def test_token_ids_are_counted_as_they_are_and_sent_unchanged(tmp_path: Path) -> None:
    breaker = budget()
    with FaultServer(embedder(tokens=0)) as server:
        made = pipeline(
            tmp_path,
            backends((SMALL,), openai=("openai", server.base_url)),
            breaker=breaker,
            models={SMALL: PRICED[MODEL]},
        )
        ask(made, request(model=SMALL, inputs=((9906, 1917, 0), (1,))))
    assert server.requests[-1][2]["input"] == [[9906, 1917, 0], [1]]
    assert breaker.status().spent == 4 * 1000


def test_where_an_estimate_exceeds_the_window_the_server_counts_the_longest_text(tmp_path: Path) -> None:
    """llama.cpp answers 500 for a text that is too long, which would make the model cool down."""
    seen: list[str] = []

    def llamacpp(path: str, headers: dict[str, str], body: Any) -> Script:
        if path == "/tokenize":
            seen.append(body["content"])
            return [response(json.dumps({"tokens": body["content"].split()}).encode())]
        return answer(*([0.5] for _ in body["input"]))

    windows = {MODEL: ModelSection(20, 1)}
    with FaultServer(llamacpp) as server:
        made = pipeline(tmp_path, backends(llamacpp=("llamacpp", server.base_url)), models=windows)
        fits = "word " * 19
        ask(made, request(inputs=("short", fits)))
        made = pipeline(tmp_path, backends(llamacpp=("llamacpp", server.base_url)), models=windows)
        with pytest.raises(ContextOverflowError):
            ask(made, request(inputs=("short", "word " * 21)))
    assert seen[0] == fits
    assert len([path for path, _, _ in server.requests if path == "/v1/embeddings"]) == 1


def test_a_request_has_either_messages_or_inputs_and_embeddings_are_not_streamed() -> None:
    from tests.serve.support_pipeline import request as chat

    for make, more in ((request, {"inputs": ()}), (chat, {"inputs": TEXTS}), (request, {"stream": True})):
        with pytest.raises(UsageError):
            make(**more)
