"""The official `openai`, `anthropic` and `ollama` clients, unchanged, against a running gateway."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.live import Live, live

CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
TEXT = "Zażółć gęślą jaźń"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = str(tmp_path_factory.mktemp("home"))
    with live({"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": home}) as running:
        yield running


def used(name: str, gateway: Live) -> Any:
    assert CLIENTS.exists(), f"{CLIENTS} is missing; run `make test`"
    done = subprocess.run(
        [CLIENTS, Path(__file__).parent / "clients" / name, gateway.url],
        capture_output=True,
        text=True,
        timeout=120,
        env={"LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def openai(gateway: Live) -> Any:
    return used("with_openai.py", gateway)


@pytest.fixture(scope="module")
def anthropic(gateway: Live) -> Any:
    return used("with_anthropic.py", gateway)


@pytest.fixture(scope="module")
def ollama(gateway: Live) -> Any:
    return used("with_ollama.py", gateway)


@pytest.fixture(scope="module")
def responses(gateway: Live) -> Any:
    return used("with_responses.py", gateway)


def test_openai_gets_an_answer_with_usage_and_cost(openai: Any) -> None:
    assert openai["chat"] == {
        "text": TEXT,
        "reason": "stop",
        "usage": [3, 3, 6],
        "cost": "0.001234",
        "request_id": True,
    }


def test_openai_reads_a_stream_to_its_end(openai: Any) -> None:
    assert openai["stream"] == {"text": TEXT, "role": "assistant", "reasons": ["stop"], "ids": 1, "usage": [6]}


def test_openai_calls_tools_streamed_and_whole_and_sends_their_results(openai: Any) -> None:
    calls = [["call_1", "weather", '{"city": "Łódź"}'], ["call_2", "time", "{}"]]
    assert openai["helper"] == {"text": "Let me look. ", "calls": calls}
    assert openai["tools"] == {"reason": "tool_calls", "names": ["weather", "time"], "then": "rain"}


def test_openai_gets_several_choices_completions_and_models(openai: Any) -> None:
    assert openai["several"] == ["choice 0", "choice 1", "choice 2"]
    assert openai["completions"] == ["Once upon", 4, "Once upon"]
    assert openai["models"] == [["echo", "tools", "org/model:q4"], "org/model:q4"]
    assert openai["tighter"] == "sovereign"


def test_openai_gets_embeddings_which_it_asks_for_as_base64(openai: Any) -> None:
    assert openai["embeddings"] == [[[0.0, 0.5], [1.0, 0.5]], 2, [0.0, 0.5]]


def test_openai_raises_the_class_that_each_refusal_is(openai: Any) -> None:
    assert openai["errors"] == {
        "over-budget": ["APIStatusError", 402, "budget_exceeded"],
        "private": ["PermissionDeniedError", 403, "privacy"],
        "queue-full": ["RateLimitError", 429, "queue_full"],
        "overflow": ["BadRequestError", 400, "context_length_exceeded"],
        "audit": ["InternalServerError", 503, "audit"],
        "ledger": ["InternalServerError", 503, "ledger"],
        "internal": ["InternalServerError", 500, "internal_error"],
        "backend-500": ["InternalServerError", 502, "backend_error"],
        "backend-400": ["BadRequestError", 400, "refused_by_backend"],
        "no-such-model": ["NotFoundError", 404, "model_not_found"],
        "n": ["BadRequestError", 400, "n"],
    }


def test_openai_does_not_repeat_what_money_and_privacy_refuse(openai: Any, gateway: Live) -> None:
    assert openai["retries"] == {"over-budget": 402, "private": 403, "overflow": 400}
    for name in openai["retries"]:
        assert sum(f'"retry-{name}"' in line for line in gateway.lines) == 1


def test_openai_raises_where_a_stream_breaks(openai: Any) -> None:
    assert openai["broken"] == {"text": "half of ", "error": "APIError", "code": "backend_error"}


def test_anthropic_gets_an_answer_with_usage(anthropic: Any) -> None:
    assert anthropic["chat"] == {"text": TEXT, "reason": "end_turn", "usage": [5, 3]}


def test_anthropic_reads_a_stream_to_its_end(anthropic: Any) -> None:
    assert anthropic["stream"] == {"text": TEXT, "same": True, "reason": "end_turn", "usage": [3, 3]}


def test_anthropic_calls_tools_streamed_and_whole_and_sends_their_results(anthropic: Any) -> None:
    assert anthropic["tools"] == {
        "blocks": ["text", "tool_use", "tool_use"],
        "input": {"city": "Łódź"},
        "reason": "tool_use",
        "then": "rain",
    }
    blocks = [["text", None], ["tool_use", {"city": "Łódź"}], ["tool_use", {}]]
    assert anthropic["tool_stream"] == {"blocks": blocks, "reason": "tool_use", "stops": 3}


def test_anthropic_lists_models(anthropic: Any) -> None:
    assert anthropic["models"] == [["echo", "tools", "org/model:q4"], "echo"]


def test_anthropic_raises_the_class_that_each_refusal_is(anthropic: Any) -> None:
    assert anthropic["errors"] == {
        "over-budget": ["PaymentRequiredError", 402, "billing_error"],
        "private": ["PermissionDeniedError", 403, "permission_error"],
        "queue-full": ["RateLimitError", 429, "rate_limit_error"],
        "overflow": ["BadRequestError", 400, "invalid_request_error"],
        "audit": ["ServiceUnavailableError", 503, "overloaded_error"],
        "internal": ["InternalServerError", 500, "api_error"],
        "backend-500": ["InternalServerError", 502, "api_error"],
        "no-such-model": ["NotFoundError", 404, "not_found_error"],
    }


def test_anthropic_raises_where_a_stream_breaks(anthropic: Any) -> None:
    assert anthropic["broken"] == {"text": "half of ", "error": True}


def test_ollama_gets_an_answer_with_counts_from_the_sync_and_the_async_client(ollama: Any) -> None:
    answer = {"text": TEXT, "done": True, "reason": "stop", "counts": [3, 3], "timed": True}
    assert ollama["chat"] == [answer, answer]
    assert ollama["generate"] == {"text": TEXT, "thinking": "hmm yes"}


def test_ollama_reads_a_stream_to_its_end(ollama: Any) -> None:
    answer = {"text": TEXT, "ends": [True], "counts": [3, 3]}
    assert ollama["stream"] == [answer, answer]


def test_ollama_calls_tools_and_sends_their_results(ollama: Any) -> None:
    assert ollama["tools"] == {
        "text": "Let me look. ",
        "calls": [["weather", {"city": "Łódź"}], ["time", {}]],
        "streamed": [["weather", {"city": "Łódź"}], ["time", {}]],
        "then": "rain",
    }


def test_ollama_gets_structured_output_thinking_and_logprobs(ollama: Any) -> None:
    assert ollama["structured"] == {"age": 22}
    assert ollama["thinking"] == {"thinking": "hmm yes", "text": "ab", "logprobs": [["a", -0.5]], "reason": "length"}


def test_ollama_gets_embeddings(ollama: Any) -> None:
    assert ollama["embeddings"] == [[[0.0, 0.5], [1.0, 0.5]], 2, [0.0, 0.5]]


def test_ollama_lists_and_shows_models(ollama: Any) -> None:
    assert ollama["models"] == {
        "list": ["echo", "tools", "org/model:q4"],
        "window": [8192],
        "capabilities": ["completion", "tools"],
        "running": [],
    }


def test_ollama_raises_each_refusal_with_its_status(ollama: Any) -> None:
    assert ollama["errors"] == {
        "over-budget": [402, "the budget of the day is spent"],
        "private": [403, "the tier forbids it"],
        "overflow": [400, "the conversation does not fit"],
        "no-such-model": [404, "no backend has this model; GET /v1/models lists them"],
        "pull": [403, "batuta does not change a server's models; ask the Ollama server itself for that"],
        "delete": [403, "batuta does not change a server's models; ask the Ollama server itself for that"],
    }


def test_ollama_raises_where_a_stream_breaks(ollama: Any) -> None:
    assert ollama["broken"] == {"text": "half of ", "error": "the backend's stream ended"}


def test_the_responses_client_gets_a_response_that_its_types_accept(responses: Any) -> None:
    usage = [5, 3, 8]
    expected = {"text": TEXT, "status": "completed", "store": False, "usage": usage, "cost": "0.001234"}
    assert responses["answer"] == expected
    assert responses["stream"] == {"text": TEXT, "last": ["response.completed", TEXT], "numbers": True}
    assert responses["image"] == TEXT
    assert responses["cut"] == ["incomplete", "max_output_tokens", "ab"]


def test_the_responses_client_reads_reasoning_and_calls_and_sends_their_results(responses: Any) -> None:
    assert responses["helper"] == {
        "kinds": ["reasoning", "message", "function_call", "function_call"],
        "summary": "I need the weather.",
        "calls": [["weather", '{"city":"Łódź"}'], ["time", "{}"]],
    }
    assert responses["tools"] == "time: rain"


def test_the_responses_client_calls_custom_tools_with_free_text(responses: Any) -> None:
    patch = '*** Begin Patch\n+Łódź "q"\n*** End Patch'
    assert responses["custom"] == {"input": patch, "streamed": patch, "deltas": 3, "then": "Success"}


def test_the_responses_client_parses_a_model(responses: Any) -> None:
    assert responses["parsed"] == [{"name": "Ada", "age": 36}] * 2


def test_the_responses_client_raises_the_class_that_each_refusal_is(responses: Any) -> None:
    assert responses["errors"] == {
        "over-budget": ["APIStatusError", 402, "budget_exceeded"],
        "private": ["PermissionDeniedError", 403, "privacy"],
        "queue-full": ["RateLimitError", 429, "queue_full"],
        "overflow": ["BadRequestError", 400, "context_length_exceeded"],
        "no-such-model": ["NotFoundError", 404, "model_not_found"],
        "previous_response_id": ["BadRequestError", 400, "previous_response_id"],
    }


def test_the_responses_client_notices_where_a_stream_breaks(responses: Any) -> None:
    assert responses["broken"] == {
        "kinds": ["response.output_text.delta", "response.failed"],
        "error": "APIConnectionError",
    }
