"""What a request is charged when a backend's report of usage cannot be true, and when the settlement itself fails."""

import asyncio
import concurrent.futures
import contextlib
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.config import ModelSection
from batuta_cli.errors import BatutaError, LedgerError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger.base import Moment, Settled, Use
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.operations import Alert
from batuta_cli.serve.budget.reservation import Renewer
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.pipeline.settlement import LONGEST_TOKEN, Transcript, least_tokens
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tokens.ranks import encoding
from batuta_cli.serve.tokens.tokenizer import TokenCount
from tests.serve.pipeline.test_attempt import A_TOKEN, BOUND, PRICED, delta
from tests.serve.support_backend import (
    FaultServer,
    Script,
    Step,
    chat_answer,
    chat_stream,
    chunk,
    response,
    stream_head,
)
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, request, servers, speaker, text_of

LEDGER_FAILURES = [LedgerError("locked"), MemoryError(), RecursionError(), OSError("disk full")]
WORDS = [f"word{number} " for number in range(20)]
END = chunk(finish="stop")
DONE = b"data: [DONE]\n\n"


class Bill:
    """One request to one priced backend, and what became of the budget."""

    def __init__(
        self,
        tmp_path: Path,
        script: Sequence[Step],
        asked: ChatRequest | None = None,
        *,
        model: ModelSection = PRICED,
        ledger: MemoryLedger | None = None,
        count: Any = None,
    ) -> None:
        self.alerts: list[Alert] = []
        self.breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger, on_alert=self.alerts.append)
        self.answer: Response | None = None
        self.pieces: list[Piece] = []
        asked = asked or request()
        with FaultServer(lambda *_: list(script)) as server:
            tables = backends(openai=("openai", server.base_url))
            tables["openai"] = replace(tables["openai"], models=(asked.model,))
            self.made: Pipeline = pipeline(tmp_path, tables, breaker=self.breaker, models={asked.model: model})
            if count:
                self.made.planner.counter = lambda model: count  # type: ignore[method-assign]
            with contextlib.suppress(BatutaError):
                self.answer, self.pieces = ask(self.made, asked)

    @property
    def spent(self) -> int:
        """Nano-dollars; nothing may be left reserved."""
        status = self.breaker.status()
        assert status.reserved == 0
        return status.spent


def streamed(usage: Any, texts: list[str] = WORDS) -> Script:
    """A complete stream with this JSON as its usage."""
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    return [stream_head(), b"".join(map(chunk, texts)) + END + last + DONE]


def reported(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


# Bounds of what is believed.


def test_a_backend_that_reports_no_tokens_is_paid_for_the_words_it_said(tmp_path: Path) -> None:
    bill = Bill(tmp_path, streamed(reported(0, 0)))
    assert 20 * A_TOKEN < bill.spent < 100 * A_TOKEN
    assert bill.answer and bill.answer.summary and bill.answer.summary.output_tokens == 20
    assert not bill.answer.summary.exact


def test_a_backend_that_reports_a_thousand_million_tokens_is_paid_at_most_twice_the_reservation(tmp_path: Path) -> None:
    bill = Bill(tmp_path, streamed(reported(10**9, 10**9)))
    assert BOUND <= bill.spent <= 2 * (BOUND + 100 * A_TOKEN)
    assert [alert.kind for alert in bill.alerts] == ["above_reservation"]
    summary = bill.answer and bill.answer.summary
    assert summary and summary.input_tokens < 100 and summary.output_tokens == 10_000


def test_a_report_above_the_reservation_is_believed_up_to_twice_and_the_owner_hears_of_it(tmp_path: Path) -> None:
    bill = Bill(tmp_path, streamed(reported(100, 15_000)))
    assert bill.spent == 15_100 * A_TOKEN
    assert [alert.kind for alert in bill.alerts] == ["above_reservation"]


def test_a_report_within_the_bounds_is_charged_as_it_is_though_our_estimate_is_higher(tmp_path: Path) -> None:
    text = ["antidisestablishmentarianism ", "你好世界" * 20]
    bill = Bill(tmp_path, streamed(reported(4, 9), text))
    assert bill.spent == 13 * A_TOKEN
    assert bill.answer and bill.answer.summary and bill.answer.summary.exact


def test_where_our_count_is_exact_it_is_the_least_that_is_charged(tmp_path: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog, 1234567890 times!"
    output = len(tiktoken_count(text))
    # OpenAI's rule: 3 tokens a message, the role and the content, 3 before the answer.
    prompt = 3 + len(tiktoken_count("user")) + len(tiktoken_count("Say it.")) + 3
    bill = Bill(tmp_path, streamed(reported(1, 2), [text]), request(model="gpt-4"))
    assert bill.spent == (prompt + output) * A_TOKEN


def tiktoken_count(text: str) -> list[int]:
    return encoding("cl100k_base").encode_ordinary(text)


def test_a_prompt_that_is_reported_too_short_is_filled_up_at_the_cheapest_reported_kind(tmp_path: Path) -> None:
    model = replace(PRICED, cached_input_usd_per_million=Decimal("0.1"))
    asked = request(model="gpt-4", messages=request().messages * 10)
    usage = reported(2, 1, prompt_tokens_details={"cached_tokens": 2})
    whole = Bill(tmp_path, streamed(usage, ["ok"]), asked, model=model)
    prompt = 10 * (3 + len(tiktoken_count("user")) + len(tiktoken_count("Say it."))) + 3
    assert whole.spent == prompt * A_TOKEN // 10 + A_TOKEN


@pytest.mark.parametrize(
    "usage",
    [
        reported(-1, -1),
        reported(7.0, 20.0),
        reported("7", "20"),
        reported(True, True),
        reported(None, None),
        reported(10**30, 10**30),
        reported(7, None),
        reported(None, 20),
        reported([7], {"n": 20}),
        {},
        [],
        "none",
        7,
        None,
    ],
)
def test_a_report_that_is_nonsense_is_no_report(tmp_path: Path, usage: Any) -> None:
    """Twenty words and a short prompt, counted here: more than their least, far less than the limit."""
    assert 20 * A_TOKEN < Bill(tmp_path, streamed(usage)).spent < 300 * A_TOKEN


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (reported(7, 30, total_tokens=5), 37),
        (reported(7, 30, total_tokens=37), 37),
        (reported(7, 30, total_tokens=337), 337),  # xAI: reasoning is in the total alone
        (reported(7, 30, total_tokens="x"), 37),
        (reported(7, 30, completion_tokens_details={"reasoning_tokens": 300}), 337),
        (reported(7, 30, completion_tokens_details={"reasoning_tokens": 30}), 37),
        (reported(7, 30, prompt_tokens_details={"cached_tokens": 900}), 37),
        (reported(7, 30, prompt_tokens_details={"cached_tokens": -5, "audio_tokens": 2.5}), 37),
        (reported(7, 30, prompt_tokens_details=[1], completion_tokens_details="x"), 37),
    ],
)
def test_sums_that_disagree_are_charged_at_the_larger_reading(tmp_path: Path, usage: Any, tokens: int) -> None:
    assert Bill(tmp_path, streamed(usage)).spent == tokens * A_TOKEN


def test_an_answer_without_a_report_is_charged_at_most_its_limit(tmp_path: Path) -> None:
    """The estimate of this text is far above the 120 tokens that the request allowed."""
    script = [stream_head(), b"".join(map(chunk, ["你好世界" * 30] * 3)) + END + DONE]
    bill = Bill(tmp_path, script, request(max_tokens=120))
    assert 120 * A_TOKEN < bill.spent < 220 * A_TOKEN
    assert bill.alerts == []


def test_reasoning_that_is_sent_under_two_names_is_counted_once(tmp_path: Path) -> None:
    thought = [delta(reasoning_content="think ", reasoning="think ") for _ in range(50)]
    body = b"".join(thought) + chunk("ok") + END + chunk(usage=(0, 0)) + DONE
    assert 51 * A_TOKEN <= Bill(tmp_path, [stream_head(), body]).spent < 60 * A_TOKEN


@pytest.mark.parametrize("old", [False, True])
def test_the_arguments_of_a_tool_are_paid_for_though_no_tokens_are_reported(tmp_path: Path, old: bool) -> None:
    parts = [f"word{number} " for number in range(20)]
    calls = [{"index": 0, "id": "call one two three", "function": {"name": "f", "arguments": part}} for part in parts]
    said = [
        delta(function_call={"name": "f", "arguments": part}) if old else delta(tool_calls=[call])
        for part, call in zip(parts, calls, strict=True)
    ]
    body = b"".join(said) + END + chunk(usage=(0, 0)) + DONE
    assert Bill(tmp_path, [stream_head(), body]).spent == (20 + 2) * A_TOKEN


def test_choices_that_come_interleaved_are_counted_each_by_itself() -> None:
    transcript, exact = Transcript(), lambda text: TokenCount(len(tiktoken_count(text)), True, "cl100k")
    for one, other in zip("international", "understanding", strict=True):
        transcript.add(Piece(one, index=0))
        transcript.add(Piece(other, index=1))
    assert transcript.least(exact) == len(tiktoken_count("international")) + len(tiktoken_count("understanding"))


def test_a_text_that_is_given_back_at_the_beginning_is_not_charged_as_output() -> None:
    transcript, exact = Transcript(), lambda text: TokenCount(len(text.split()), True, "words")
    transcript.add(Piece("one two three four"))
    assert transcript.least(exact, prefix="one two ") == 2


ENCODINGS = ("p50k_base", "cl100k_base", "o200k_base")


@given(st.sampled_from(ENCODINGS), st.text())
def test_no_tokenizer_falls_below_the_least(name: str, text: str) -> None:
    text = text.encode(errors="ignore").decode()
    assert least_tokens(text) <= len(encoding(name).encode_ordinary(text))


@given(st.sampled_from(ENCODINGS), st.text("a1 _/\n\t;'\u00e9\u4f60\u00a0"))
def test_no_tokenizer_falls_below_the_least_on_code(name: str, text: str) -> None:
    assert least_tokens(text) <= len(encoding(name).encode_ordinary(text))


@pytest.mark.parametrize("name", ENCODINGS)
def test_no_vocabulary_has_a_token_of_two_words_or_one_longer_than_the_longest(name: str) -> None:
    tokens: list[bytes] = encoding(name).token_byte_values()
    texts = [token.decode(errors="replace") for token in tokens]
    assert max(map(len, texts)) <= LONGEST_TOKEN
    assert [text for text in texts if re.search(r"[^\W_]\S*\s+\S*[^\W_]", text)] == []


@given(st.integers(1, 200), st.sampled_from(["=", "-", " ", "a", "\u4f60"]))
def test_long_runs_of_one_character_do_not_fall_below_the_least(length: int, character: str) -> None:
    for name in ENCODINGS:
        text = character * length * 7
        assert least_tokens(text) <= len(encoding(name).encode_ordinary(text))


# What may fail.


def blank_tokenizer(path: Path) -> Path:
    """A tokenizer.json with Llama 3's pattern, whose engine panics at millions of blanks."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    made.save(str(path))
    return path


def test_an_answer_at_which_the_tokenizer_panics_is_charged_in_full(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = replace(PRICED, tokenizer=str(blank_tokenizer(tmp_path / "tokenizer.json")))
    script = [stream_head(), *[chunk(" " * 1_000_000)] * 11, END + DONE]
    bill = Bill(tmp_path, script, model=model)
    assert BOUND <= bill.spent < BOUND + 200 * A_TOKEN
    assert [alert.kind for alert in bill.alerts] == ["charged_in_full"]
    assert "could not be counted" in bill.alerts[0].message and "test-model" in bill.alerts[0].message
    assert bill.answer and bill.answer.summary and bill.answer.summary.cost == bill.spent
    capfd.readouterr()  # the engine's own report


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


@pytest.mark.parametrize("error", [Panic(), RecursionError(), MemoryError(), ValueError(), LedgerError("x")])
@pytest.mark.parametrize("usage", [None, reported(7, 20)])
def test_whatever_fails_in_counting_the_reservation_is_charged(
    tmp_path: Path, error: BaseException, usage: Any
) -> None:
    def count(_: str) -> TokenCount:
        raise error

    bill = Bill(tmp_path, streamed(usage), count=count)
    assert BOUND <= bill.spent < BOUND + 200 * A_TOKEN
    assert [alert.kind for alert in bill.alerts] == ["charged_in_full"]
    assert bill.answer and "".join(piece.text for piece in bill.pieces) == "".join(WORDS)


def test_an_answer_that_costs_nothing_is_complete_though_it_cannot_be_counted(tmp_path: Path) -> None:
    def count(_: str) -> TokenCount:
        raise Panic

    with FaultServer(lambda *_: streamed(None)) as server:
        made = pipeline(tmp_path, backends(near=("vllm", server.base_url)))
        made.planner.counter = lambda model: count  # type: ignore[method-assign]
        answer, pieces = ask(made)
    assert "".join(piece.text for piece in pieces) == "".join(WORDS)
    assert answer.summary and answer.summary.output_tokens == 20


class NoThreads(concurrent.futures.ThreadPoolExecutor):
    """Starts a few threads and then no more; what is submitted is queued all the same, as the real one does."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self.fails = False

    def submit(self, *work: Any, **more: Any) -> Any:
        future = super().submit(*work, **more)
        if self.fails:
            raise RuntimeError("can't start new thread")
        return future


@pytest.mark.parametrize("usage", [None, reported(7, 20)])
def test_when_no_thread_can_be_started_the_reservation_is_charged_once(tmp_path: Path, usage: Any) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(), on_alert=lambda alert: None)

    async def run() -> None:
        executor = NoThreads()
        asyncio.get_running_loop().set_default_executor(executor)
        with FaultServer(lambda *_: streamed(usage)) as server:
            tables = backends(openai=("openai", server.base_url))
            made = pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED})
            async with made:
                answer = await made.start(request())
                busy = threading.Event()
                executor.submit(busy.wait)
                executor.fails = True
                async for _ in answer:
                    pass
                executor.fails = False
                busy.set()

    asyncio.run(run())
    status = breaker.status()
    assert status.reserved == 0
    assert BOUND <= status.spent < BOUND + 200 * A_TOKEN
    assert sum(entry.requests for entry in breaker.history()) == 1


class Failing(MemoryLedger):
    """Its settlements fail until they may work."""

    def __init__(self, error: Exception, *, after: bool = False) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.after = after

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        settled = None
        if self.after or not self.error:
            settled = super().settle(moment, id, cost, use, requests=requests)
        if self.error:
            raise self.error
        return settled


@pytest.mark.parametrize("error", LEDGER_FAILURES)
def test_a_settlement_that_the_ledger_cannot_take_is_made_later_by_the_renewing_thread(
    tmp_path: Path, error: Exception
) -> None:
    ledger = Failing(error)
    bill = Bill(tmp_path, streamed(reported(7, 20)), ledger=ledger)
    assert bill.answer and bill.answer.summary and bill.answer.summary.cost == 27 * A_TOKEN
    assert bill.breaker.status().reserved >= BOUND and bill.breaker.status().spent == 0
    assert [alert.kind for alert in bill.alerts] == ["settled_later"]
    bill.breaker._operations.renew()  # as the thread does
    assert bill.breaker.status().reserved >= BOUND
    ledger.error = None
    bill.breaker._operations.renew()
    assert bill.spent == 27 * A_TOKEN
    bill.breaker._operations.renew()
    assert bill.spent == 27 * A_TOKEN


def test_a_settlement_whose_success_was_not_heard_of_is_not_made_twice(tmp_path: Path) -> None:
    ledger = Failing(MemoryError(), after=True)
    bill = Bill(tmp_path, streamed(reported(7, 20)), ledger=ledger)
    ledger.error = None
    bill.breaker._operations.renew()
    assert bill.spent == 27 * A_TOKEN
    assert sum(entry.requests for entry in bill.breaker.history()) == 1


def test_a_release_that_the_ledger_cannot_take_is_made_later(tmp_path: Path) -> None:
    ledger = Failing(LedgerError("locked"))
    bill = Bill(tmp_path, [response(b"{}", status="401 Unauthorized")], ledger=ledger)
    assert bill.breaker.status().reserved >= BOUND
    ledger.error = None
    bill.breaker._operations.renew()
    assert bill.spent == 0


@pytest.mark.parametrize("dispatched", [False, True])
def test_a_context_at_whose_end_the_ledger_fails_is_closed_later(dispatched: bool) -> None:
    ledger = Failing(LedgerError("locked"))
    breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger, on_alert=lambda alert: None)
    with breaker.reserve("0.40") as reservation:
        if dispatched:
            reservation.dispatched()
    ledger.error = None
    breaker._operations.renew()
    assert breaker.status().reserved == 0
    assert breaker.status().spent == (400_000_000 if dispatched else 0)


def test_what_was_never_settled_is_charged_in_full_when_its_process_has_died(tmp_path: Path) -> None:
    now = [1_000_000_000.0]
    ledger = Failing(LedgerError("locked"))
    breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger, now=lambda: now[0], on_alert=lambda alert: None)
    reservation = breaker.reserve("0.40")
    reservation.dispatched()
    assert not reservation.settle_surely("0.10")
    now[0] += 61
    assert CostCircuitBreaker(CircuitBreakerConfig(), ledger, now=lambda: now[0]).status().spent == 400_000_000


def test_the_thread_settles_what_is_owed_and_outlives_every_error() -> None:
    settled, failures = threading.Event(), iter([OSError(), RecursionError(), LedgerError("locked")])

    def settle() -> None:
        for error in failures:
            raise error
        settled.set()

    def renew(owner: str) -> None:
        raise MemoryError

    renewer = Renewer(renew, interval=0.001)
    renewer.settle_later("a", settle)
    assert settled.wait(30)


def test_a_thread_that_cannot_be_started_leaves_nothing_reserved_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig())

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(LedgerError, match="thread"):
            breaker.reserve("0.40")
    assert breaker.status().reserved == 0
    before = set(threading.enumerate())
    with breaker.reserve("0.40"):
        assert "batuta-budget-renewal" in {thread.name for thread in set(threading.enumerate()) - before}


def test_an_alert_that_cannot_be_delivered_does_not_undo_a_settlement() -> None:
    def broken(alert: Alert) -> None:
        raise BrokenPipeError

    breaker = CostCircuitBreaker(CircuitBreakerConfig(), on_alert=broken)
    with breaker.reserve("0.40") as reservation:
        reservation.dispatched()
        reservation.settle("0.50")
    assert breaker.status().spent == 500_000_000 and breaker.status().reserved == 0


def test_an_answer_that_is_nested_too_deeply_is_an_error_and_what_came_before_is_charged(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [{"a": deep}]
    body = b"".join(map(chunk, WORDS)) + delta(tool_calls=deep) + END + chunk(usage=(7, 20)) + DONE
    assert 20 * A_TOKEN < Bill(tmp_path, [stream_head(), body]).spent < 300 * A_TOKEN


def test_an_answer_in_one_piece_is_bounded_as_a_stream_is(tmp_path: Path) -> None:
    script = [response(chat_answer("".join(WORDS), (0, 0)))]
    assert 20 * A_TOKEN < Bill(tmp_path, script, request(stream=False)).spent < 100 * A_TOKEN


def test_counting_for_a_settlement_leaves_the_event_loop_to_others(tmp_path: Path) -> None:
    threads: set[threading.Thread] = set()

    def count(text: str) -> TokenCount:
        threads.add(threading.current_thread())
        return TokenCount(len(text), False, "characters")

    Bill(tmp_path, streamed(None), count=count)
    Bill(tmp_path, streamed(reported(7, 20)), count=count)
    assert threads and threading.main_thread() not in threads


def test_a_stream_is_continued_though_what_it_said_cannot_be_counted(tmp_path: Path) -> None:
    text, threads = "One sentence that is said by two backends in turn.", set()

    def count(_: str) -> TokenCount:
        threads.add(threading.current_thread())
        raise Panic

    with servers(speaker(text, cut=400), speaker(text)) as (one, two):
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        made = pipeline(tmp_path, tables)
        made.planner.counter = lambda model: count  # type: ignore[method-assign]
        answer, pieces = ask(made)
    assert text_of(pieces) == text
    assert answer.summary and len(answer.summary.attempts) == 2
    assert threads and threading.main_thread() not in threads


def test_half_a_character_does_not_stop_the_count() -> None:
    transcript, exact = Transcript(), lambda text: TokenCount(len(text.encode()), True, "bytes")
    for half in ("\ud83d", "\ude00", "\ud83d"):
        transcript.add(Piece(half))
    assert transcript.text == "\U0001f600\ufffd"
    assert transcript.least(exact) == transcript.most(exact) == 7


def test_a_request_that_asks_for_cache_writes_reserves_their_price(tmp_path: Path) -> None:
    model = ModelSection(100_000, 64, input_usd_per_million=Decimal(100), output_usd_per_million=Decimal(0))

    def reserved(control: dict[str, Any]) -> int:
        breaker, found = CostCircuitBreaker(CircuitBreakerConfig()), []

        def script(*_: Any) -> Script:
            found.append(breaker.status().reserved)
            return streamed(reported(7, 20))

        tool = {"type": "function", "function": {"name": "f"}, "cache_control": control}
        with FaultServer(script) as server:
            tables = backends(openai=("openai", server.base_url))
            ask(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: model}), request(options={"tools": [tool]}))
        return found[0]

    plain, minutes, hour = reserved({}), reserved({"ttl": "5m"}), reserved({"ttl": "1h"})
    # The control itself is a part of the prompt, so each prompt is a few bytes longer.
    assert plain * 1.25 <= minutes <= plain * 1.3 < plain * 2 <= hour <= plain * 2.1


@pytest.mark.parametrize("paid", [True, False], ids=["paid", "free"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_tokens_of_a_long_response_are_counted_once_and_outside_the_event_loop(
    tmp_path: Path, paid: bool, stream: bool
) -> None:
    texts: list[str] = []
    threads: set[threading.Thread] = set()

    def count(text: str) -> TokenCount:
        texts.append(text)
        threads.add(threading.current_thread())
        return TokenCount(len(text.split()), True, "words")

    text = "word " * 120_001
    script = [stream_head(), chat_stream([text], usage=None)] if stream else [response(chat_answer(text, usage=None))]
    with FaultServer(lambda *_: list(script)) as server:
        made = pipeline(
            tmp_path,
            backends(one=("openai" if paid else "vllm", server.base_url)),
            models={MODEL: PRICED} if paid else {},
        )
        made.planner.counter = lambda model: count  # type: ignore[method-assign]
        answer, _ = ask(made, request(stream=stream))
    assert answer.summary and answer.summary.output_tokens == 120_001
    assert [each for each in texts if each] == [text]
    assert threading.main_thread() not in threads
