"""`batuta serve chat` with the real model on the real llama.cpp, and what happens when its server is killed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.tiers import PrivacyTier
from tests.conftest import Run
from tests.serve.support_pipeline import pipeline, request, text_of
from tests.serve.support_server import llamacpp_process, running_llamacpp

MODEL = "smollm2-135m"
QUESTION = "What is the capital of France? Answer in one sentence."


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[str]:
    with running_llamacpp(gguf) as base_url:
        yield base_url


@pytest.fixture
def configured(home: Path, server: str) -> None:
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[backends.llamacpp]\nbase_url = "{server}"\n[privacy]\ntier = "sovereign"\n')


@pytest.mark.usefixtures("configured")
def test_a_question_gets_its_answer_and_a_line_that_says_who_gave_it(batuta: Run) -> None:
    done = batuta("serve", "chat", QUESTION, "--model", MODEL, "--temperature", "0", code=0)
    assert "Paris" in done.stdout
    assert done.stdout.endswith("\n")
    assert "llamacpp" in done.stderr
    assert "free" in done.stderr


@pytest.mark.usefixtures("configured")
def test_json_tells_all_and_tokens_grow_with_the_prompt(batuta: Run, work: Path) -> None:
    found = []
    for question in (QUESTION, f"{QUESTION} Think of its river, its towers and its kings before you answer."):
        messages = work / "chat.json"
        messages.write_text(json.dumps([{"role": "user", "content": question}]))
        done = batuta("serve", "chat", "--messages", messages, "--model", MODEL, "--max-tokens", "8", "--json", code=0)
        result = json.loads(done.stdout)["result"]
        assert result["output_tokens"] <= 8
        assert result["exact"] is True
        assert (result["backend"], result["cost_usd"]) == ("llamacpp", "0.00")
        found.append(result["input_tokens"])
    assert found[1] >= found[0] + 10


@pytest.mark.usefixtures("configured")
def test_stdin_is_a_prompt(batuta: Run) -> None:
    done = batuta("serve", "chat", "--model", MODEL, "--no-stream", "--max-tokens", "30", input=QUESTION, code=0)
    assert done.stdout.strip()


@pytest.mark.usefixtures("configured")
def test_nothing_is_sent_for_an_empty_prompt_or_when_the_answer_would_be_thrown_away(batuta: Run) -> None:
    for empty in ("", " \n"):
        assert "the prompt is empty" in batuta("serve", "chat", "--model", MODEL, input=empty, code=2).stderr
        assert "the prompt is empty" in batuta("serve", "chat", empty or " ", "--model", MODEL, code=2).stderr
    assert (
        "would suppress the response" in batuta("serve", "chat", QUESTION, "--model", MODEL, "--quiet", code=2).stderr
    )


@pytest.mark.usefixtures("configured")
def test_a_standard_request_without_an_audit_log_is_answered_with_a_warning(batuta: Run, home: Path) -> None:
    audit = home / "state/batuta/audit"
    audit.parent.mkdir(parents=True)
    audit.touch()
    arguments = ("serve", "chat", QUESTION, "--model", MODEL, "--max-tokens", "3", "--privacy")
    assert f"warning: {audit}: cannot write the audit log" in batuta(*arguments, "standard", code=0).stderr
    assert "nothing was sent" in batuta(*arguments, "sovereign", code=1).stderr


@pytest.mark.usefixtures("configured")
def test_exit_codes_say_why_there_is_no_answer(batuta: Run, home: Path) -> None:
    chat = ("serve", "chat", QUESTION)
    assert "it does not have nothing-7b" in batuta(*chat, "--model", "nothing-7b", code=7).stderr
    batuta("config", "set", "models.smollm2-135m.context_window", "200", code=0)
    long = "word " * 400
    assert "does not fit" in batuta("serve", "chat", long, "--model", MODEL, "--max-tokens", "10", code=8).stderr
    batuta("config", "set", "backends.far.base_url", "http://192.0.2.1:8000/v1", code=0)
    batuta("config", "set", "backends.far.profile", "vllm", code=0)
    assert "sovereign" in batuta(*chat, "--model", MODEL, "--backend", "far", code=6).stderr
    for wrong in (["--max-tokens", "0"], ["--temperature", "3"], ["--privacy", "soverein"], ["--backend", "fra"]):
        assert batuta(*chat, "--model", MODEL, *wrong, code=2).stdout == ""
    assert "no model is given" in batuta(*chat, code=2).stderr


def test_a_server_that_is_killed_in_mid_sentence_is_continued_by_another(
    tmp_path: Path, gguf: Path, server: str
) -> None:
    asked = request(
        model=MODEL,
        messages=(ChatMessage.user("Tell a long story about a fox."),),
        max_tokens=80,
        options={"temperature": 0, "seed": 1},
        privacy=PrivacyTier.SOVEREIGN,
    )

    async def undisturbed() -> str:
        async with pipeline(tmp_path, {"second": Table(profile="llamacpp", base_url=server)}) as made:
            await made.monitor.refresh(tier=PrivacyTier.SOVEREIGN)
            answer = await made.start(asked)
            return text_of([piece async for piece in answer])

    async def killed() -> tuple[str, int, Summary]:
        tables = {
            "first": Table(profile="llamacpp", base_url=base_url),
            "second": Table(profile="llamacpp", base_url=server),
        }
        async with pipeline(tmp_path, tables) as made:
            await made.monitor.refresh(tier=PrivacyTier.SOVEREIGN)
            answer = await made.start(asked)
            assert answer.backend == "first"
            pieces, before = [], 0
            async for piece in answer:
                pieces.append(piece)
                if len(pieces) == 20:
                    first.kill()
                    before = len(text_of(pieces))
            assert answer.summary is not None
            return text_of(pieces), before, answer.summary

    expected = asyncio.run(undisturbed())
    with llamacpp_process(gguf) as (first, base_url):
        text, before, summary = asyncio.run(killed())
    # The text before the cut is unchanged, and the response continues as one that was not interrupted.
    assert 0 < before < len(text)
    assert text[: before + 30] == expected[: before + 30]
    assert [(attempt.backend, attempt.failed) for attempt in summary.attempts] == [
        ("first", "backend_error"),
        ("second", None),
    ]
    assert 60 <= summary.output_tokens <= 81


@pytest.mark.usefixtures("configured")
def test_a_response_that_an_output_limit_cut_says_so(batuta: Run) -> None:
    cut = batuta("serve", "chat", "Tell a long story.", "--model", MODEL, "--max-tokens", "5", code=0)
    assert "warning: the response was cut at 5 tokens; to allow more: --max-tokens N" in cut.stderr
    whole = batuta("serve", "chat", QUESTION, "--model", MODEL, "--temperature", "0", code=0)
    assert "was cut" not in whole.stderr
    result = batuta("serve", "chat", "Tell a long story.", "--model", MODEL, "--max-tokens", "5", "--json", code=0)
    assert json.loads(result.stdout)["result"]["finish_reason"] == "length"
