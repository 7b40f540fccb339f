"""A response: one text, one end and one usage, however many backends it took; or an error that one can see."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.providers.wire import BackendError, Usage
from batuta_cli.serve.retry import FailoverConfig
from tests.serve.support_backend import FaultServer, Script, chat_answer, chat_stream, chunk, response, stream_head
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


SHORT = 'Fü🦊 "x".'


def stream_length() -> int:
    script = speaker(SHORT)("", {}, {"messages": [{"role": "user"}]})
    return len(script[1])


def _priced(dollars: str = "1") -> ModelSection:
    from decimal import Decimal

    price = Decimal(dollars)
    return ModelSection(100_000, 64, input_usd_per_million=price, output_usd_per_million=price)


def test_an_answer_has_its_text_one_end_and_one_usage(tmp_path: Path) -> None:
    with servers(speaker(TEXT)) as [one]:
        answer, pieces = ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))))
    assert text_of(pieces) == TEXT
    assert [p.finish_reason for p in pieces if p.finish_reason] == ["stop"]
    assert [p.usage for p in pieces if p.usage] == [Usage(9, 15)]
    assert answer.summary is not None
    assert (answer.summary.backend, answer.summary.cost, answer.summary.exact) == ("one", 0, True)
    assert one.requests[0][2]["max_tokens"] == 10_000


@pytest.mark.parametrize("cut", range(stream_length()))
def test_a_stream_cut_after_any_byte_is_continued_without_a_byte_lost_or_repeated(tmp_path: Path, cut: int) -> None:
    with servers(speaker(SHORT, cut=cut), speaker(SHORT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        answer, pieces = ask(pipeline(tmp_path, tables))
    assert text_of(pieces) == SHORT
    assert [p.finish_reason for p in pieces if p.finish_reason] == ["stop"]
    assert [p.usage is not None for p in pieces] == [False] * (len(pieces) - 1) + [True]
    assert answer.summary is not None


@pytest.mark.parametrize("profile", ["llamacpp", "vllm", "tgi"])
@pytest.mark.parametrize("cut", [900, 1700])
def test_backends_continue_in_their_own_way(tmp_path: Path, profile: str, cut: int) -> None:
    echo = profile == "llamacpp"
    with servers(speaker(TEXT, cut=cut), speaker(TEXT, echo=echo)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=(profile, two.base_url))
        _answer, pieces = ask(pipeline(tmp_path, tables))
    assert text_of(pieces) == TEXT
    sent = two.requests[0][2]
    assert sent["messages"][-1]["role"] == "assistant"
    assert sent.get("continue_final_message") is (None if profile == "tgi" else True)
    assert sent["max_tokens"] < 10_000


def test_the_legs_are_told_afterwards(tmp_path: Path) -> None:
    with servers(speaker(TEXT, cut=900), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        answer, _ = ask(pipeline(tmp_path, tables))
    assert answer.summary is not None
    assert [(attempt.backend, attempt.failed) for attempt in answer.summary.attempts] == [
        ("one", "backend_error"),
        ("two", None),
    ]


def test_before_the_first_byte_a_request_starts_over_anywhere(tmp_path: Path) -> None:
    faults: tuple[Callable[..., Any], ...] = (
        refuser("500 Internal Server Error"),
        refuser("429 Too Many Requests", "Retry-After: 5"),
        lambda *_: [],
    )
    for fault in faults:
        with servers(fault, speaker(TEXT)) as [one, two]:
            tables = backends(one=("vllm", one.base_url), two=("realizar", two.base_url))
            _answer, pieces = ask(pipeline(tmp_path, tables))
        assert text_of(pieces) == TEXT
        assert two.requests[0][2]["messages"] == [{"role": "user", "content": "Say it."}]


def test_what_cannot_be_continued_exactly_is_an_error_and_never_a_clean_end(tmp_path: Path) -> None:
    with servers(speaker(TEXT, cut=900), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("candle", two.base_url))
        made = pipeline(tmp_path, tables)
        with pytest.raises(BackendError):
            ask(made)
    assert two.requests == []


def test_an_instruction_to_continue_only_when_the_owner_opted_in(tmp_path: Path) -> None:
    def obedient(path: str, headers: dict[str, str], body: Any) -> list[Any]:
        said = body["messages"][-2]["content"]
        assert body["messages"][-1]["role"] == "user"
        return [stream_head(), chat_stream([TEXT[len(said) :]])]

    with servers(speaker(TEXT, cut=900), obedient) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("openai", two.base_url))
        made = pipeline(tmp_path, tables, failover=FailoverConfig(prompted=True), models={MODEL: _priced()})
        answer, pieces = ask(made)
    assert text_of(pieces) == TEXT
    assert answer.summary is not None
    assert answer.summary.prompted


@pytest.mark.parametrize(
    "options", [{"response_format": {"type": "json_object"}}, {"n": 2}], ids=["json", "several choices"]
)
def test_answers_with_a_form_are_never_continued(tmp_path: Path, options: dict[str, Any]) -> None:
    with servers(speaker(TEXT, cut=900), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        with pytest.raises(BackendError):
            ask(pipeline(tmp_path, tables), request(options=options))
    assert two.requests == []


def test_attempts_are_limited(tmp_path: Path) -> None:
    fault = refuser("500 Internal Server Error")
    with servers(fault, fault, fault, speaker(TEXT)) as running:
        tables = backends(**{f"b{n}": ("vllm", server.base_url) for n, server in enumerate(running)})
        with pytest.raises(BackendError, match="HTTP 500"):
            ask(pipeline(tmp_path, tables))
    assert [len(server.requests) for server in running] == [1, 1, 1, 0]


def test_a_request_at_fault_is_not_tried_elsewhere(tmp_path: Path) -> None:
    with servers(refuser("400 Bad Request"), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        with pytest.raises(BackendError, match="HTTP 400"):
            ask(pipeline(tmp_path, tables))
    assert two.requests == []


def test_a_backend_that_stalls_is_left_for_another(tmp_path: Path) -> None:
    with servers(speaker(TEXT, cut=900, then=[STALL]), speaker(TEXT)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        _, pieces = ask(pipeline(tmp_path, tables, timeouts=Timeouts(idle=0.2)))
        assert text_of(pieces) == TEXT
        assert one.left.wait(10)


def test_a_client_that_leaves_frees_the_backend(tmp_path: Path) -> None:
    async def leave(made: Any) -> None:
        async with made:
            answer = await made.start(request())
            async for _ in answer:
                break
            await answer.aclose()
            assert made.monitor.health.depth("one", 0.0) == 0

    with servers(speaker(TEXT, cut=900, then=[STALL])) as [one]:
        asyncio.run(leave(pipeline(tmp_path, backends(one=("vllm", one.base_url)))))
        assert one.left.wait(10)


def test_a_whole_answer_comes_in_one(tmp_path: Path) -> None:
    with servers(lambda *_: [response(chat_answer(TEXT))]) as [one]:
        _, pieces = ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))), request(stream=False))
    assert text_of(pieces) == TEXT
    assert one.requests[0][2]["stream"] is False


def test_a_cut_response_says_so_and_a_takeover_without_a_limit_sends_none(tmp_path: Path) -> None:
    text = "It was a dark night, and the rain fell in torrents."
    cut: Script = [stream_head(), chunk("It was"), chunk(finish="length"), b"data: [DONE]\n\n"]
    with FaultServer(lambda *_: cut) as one:
        answer, _ = ask(pipeline(tmp_path, backends(one=("vllm", one.base_url))), request(max_tokens=2))
        assert (answer.finish_reason, answer.max_tokens) == ("length", 2)
    with servers(speaker(text, cut=300), speaker(text)) as (one, two):
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url), two=("vllm", two.base_url)))
        answer, pieces = ask(made, request(max_tokens=None))
    assert text_of(pieces) == text
    assert answer.finish_reason == "stop"
    assert "max_tokens" not in two.requests[0][2]


def test_text_of_a_stream_is_the_rest_of_the_first_choice(tmp_path: Path) -> None:
    async def run(url: str) -> tuple[str, str | None]:
        async with pipeline(tmp_path, backends(box=("vllm", url))) as made:
            answer = await made.start(request())
            return await answer.text(), answer.finish_reason

    with servers(lambda *_: [stream_head(), chat_stream(["Ray", "leigh", "."])]) as (server,):
        assert asyncio.run(run(server.base_url)) == ("Rayleigh.", "stop")
