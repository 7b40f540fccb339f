"""`batuta serve context`: what scripts and people get when a conversation fits, and when it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import answer, result
from tests.conftest import Run

TURNS = 40


def conversation(turns: int = TURNS, length: int = 100) -> list[dict[str, Any]]:
    """A long conversation that begins with a system message and ends with a question."""
    messages = [{"role": "system", "content": "You are terse."}]
    for number in range(turns):
        messages += [
            {"role": "user", "content": f"question {number} " + "why " * length},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    return [*messages, {"role": "user", "content": "And now?"}]


@pytest.fixture
def chat(work: Path) -> Path:
    """A file with a conversation of some 4,800 tokens: more than Llama 2 can read, less than GPT-4."""
    path = work / "chat.json"
    path.write_text(json.dumps(conversation()))
    return path


def report(text: str) -> dict[str, str]:
    """The lines of the report by their names."""
    return {name: value.strip() for name, value in (line.split(maxsplit=1) for line in text.splitlines())}


def test_a_conversation_that_fits_exits_0_and_shows_the_sums(batuta: Run, chat: Path) -> None:
    lines = report(batuta("serve", "context", "--model", "gpt-4", "--messages", chat, code=0).stdout)
    assert list(lines) == ["tokens", "window", "reserve", "limit", "fits"]
    assert lines["window"].startswith("8,192 (https://") and lines["reserve"] == "2,048" and lines["limit"] == "6,144"
    tokens = int(lines["tokens"].split()[0].replace(",", ""))
    assert lines["fits"] == f"yes, {6144 - tokens:,} left"
    assert "exact" in lines["tokens"]


def test_json_has_every_number_of_it(batuta: Run, chat: Path) -> None:
    found = result(batuta("serve", "context", "--model", "gpt-4", "--messages", chat, "--json", code=0))
    assert {key: found[key] for key in ("model", "window", "reserve", "limit", "fits", "exact")} == {
        "model": "gpt-4", "window": 8192, "reserve": 2048, "limit": 6144, "fits": True, "exact": True,
    }  # fmt: skip
    assert found["as_of"] and found["source"] and found["method"]
    assert (found["missing"], found["dropped"]) == (0, [])


def test_one_that_does_not_fit_exits_8_and_names_the_missing_tokens(batuta: Run, chat: Path) -> None:
    arguments = ["serve", "context", "--model", "gpt-4", "--window", "4096", "--reserve", "1024", "--messages", chat]
    done = batuta(*arguments, code=8)
    lines = report(done.stdout)
    missing = int(lines["tokens"].split()[0].replace(",", "")) - 3072
    assert lines["fits"] == f"no, {missing:,} too many"
    assert f"{missing:,} more than the 3,072" in done.stderr
    assert "--strategy sliding-window" in done.stderr
    failed = answer(batuta(*arguments, "--json", code=8))
    assert failed["error"]["kind"] == "context_overflow"
    found = failed["result"]
    assert found["fits"] is False and found["tokens"] - found["limit"] == found["missing"] == missing
    assert batuta(*arguments, "--quiet", code=8).stdout == ""


@pytest.mark.parametrize("strategy", ["sliding-window", "MiddleOut"])
def test_a_strategy_writes_the_messages_that_fit_and_they_do_fit(batuta: Run, chat: Path, strategy: str) -> None:
    model = ["serve", "context", "--model", "llama-2-70b"]
    done = batuta(*model, "--messages", chat, "--strategy", strategy, code=0)
    short, whole = json.loads(done.stdout), json.loads(chat.read_text())
    assert 0 < len(short) < len(whole)
    assert short[0] == whole[0] and short[-1] == whole[-1]
    assert short[1] == (whole[1] if strategy == "MiddleOut" else whole[1 + len(whole) - len(short)])
    assert f"dropped {len(whole) - len(short)} of {len(whole)} messages" in done.stderr
    again = batuta(*model, "--messages", "-", "--strategy", strategy, input=done.stdout, code=0)
    assert json.loads(again.stdout) == short
    assert "dropped" not in again.stderr
    batuta(*model, "--messages", "-", input=done.stdout, code=0)


def test_json_says_what_was_dropped(batuta: Run, chat: Path) -> None:
    arguments = ["--messages", chat, "--strategy", "sliding-window", "--json"]
    found = result(batuta("serve", "context", "--model", "llama-2-70b", *arguments, code=0))
    whole = json.loads(chat.read_text())
    assert found["dropped"] == list(range(2, 2 + len(found["dropped"])))
    assert found["messages"] == [m for number, m in enumerate(whole, 1) if number not in found["dropped"]]
    assert found["tokens"] <= found["limit"] < found["tokens_before"]
    assert found["fits"] is True and found["strategy"] == "sliding-window"


def test_what_fits_is_written_unchanged_under_every_strategy(batuta: Run, chat: Path) -> None:
    for strategy in ("sliding-window", "middle-out", "error"):
        done = batuta("serve", "context", "--model", "gpt-4", "--messages", chat, "--strategy", strategy, code=0)
        assert json.loads(done.stdout) == json.loads(chat.read_text())


def test_tool_calls_come_out_as_they_went_in(batuta: Run) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
    ]
    arguments = ["--messages", "-", "--strategy", "sliding-window"]
    done = batuta("serve", "context", "--model", "gpt-4", *arguments, input=json.dumps(messages), code=0)
    assert json.loads(done.stdout) == messages


def test_the_strategy_error_only_says_no(batuta: Run, chat: Path) -> None:
    done = batuta(
        "serve",
        "context",
        "--model",
        "gpt-4",
        "--window",
        "4096",
        "--reserve",
        "1024",
        "--messages",
        chat,
        "--strategy",
        "error",
        code=8,
    )
    assert done.stdout == ""
    assert "more than the 3,072" in done.stderr


def test_one_message_larger_than_the_window_is_an_error_under_every_strategy(batuta: Run) -> None:
    for strategy in ("sliding-window", "middle-out", "error"):
        arguments = ["--user", "-", "--strategy", strategy, "--json"]
        failed = answer(batuta("serve", "context", "--model", "gpt-4", *arguments, input="why " * 9000, code=8))
        assert failed["error"]["kind"] == "context_overflow"
        assert failed["result"]["missing"] == failed["result"]["tokens"] - 6144
        assert "why" not in json.dumps(failed)


def test_the_window_and_the_reserve_can_be_given(batuta: Run, chat: Path) -> None:
    arguments = ["serve", "context", "--model", "llama-2-70b", "--messages", chat, "--json"]
    found = result(batuta(*arguments, "--window", "32768", "--reserve", "100", code=0))
    assert (found["window"], found["reserve"], found["limit"]) == (32768, 100, 32668)
    assert found["source"] == "the caller" and found["as_of"] is None


def test_the_config_may_know_a_window(batuta: Run, chat: Path) -> None:
    batuta("config", "set", "models.gpt-4.context_window", "1000", code=0)
    failed = answer(batuta("serve", "context", "--model", "gpt-4", "--messages", chat, "--json", code=8))
    assert (failed["result"]["window"], failed["result"]["reserve"]) == (1000, 250)
    assert failed["result"]["source"] == "the config"


def test_a_gguf_file_brings_its_window_template_and_tokenizer(batuta: Run, gguf: Path, chat: Path) -> None:
    found = result(batuta("serve", "context", "--model", gguf, "--messages", chat, "--json", code=0))
    assert (found["window"], found["exact"], found["source"]) == (8192, True, str(gguf))


def test_a_tokenizer_of_another_file_makes_the_count_exact(batuta: Run, gguf: Path, chat: Path) -> None:
    arguments = ["serve", "context", "--model", "smollm2-135m-instruct", "--messages", chat, "--json"]
    named = result(batuta(*arguments, "--tokenizer", gguf, code=0))
    own = result(batuta("serve", "context", "--model", gguf, "--messages", chat, "--json", code=0))
    assert (named["tokens"], named["exact"]) == (own["tokens"], True)


def test_a_system_message_that_the_format_has_no_place_for_is_a_choice(batuta: Run) -> None:
    arguments = ["serve", "context", "--model", "gemma-2-9b-it", "--system", "Be brief.", "--user", "hello", "--json"]
    assert answer(batuta(*arguments, code=2))["error"]["kind"] == "template"
    merged = result(batuta(*arguments, "--system-fallback", "merge", code=0))
    dropped = result(batuta(*arguments, "--system-fallback", "drop", code=0))
    assert merged["tokens"] > dropped["tokens"]


def test_a_model_without_a_known_template_or_tokenizer_gets_an_upper_estimate(batuta: Run) -> None:
    found = result(batuta("serve", "context", "--model", "claude-3-opus", "--user", "hello", "--json", code=0))
    assert found["exact"] is False and "estimate" in found["method"]
    assert (found["window"], found["reserve"]) == (200_000, 4_096)
    said = batuta("serve", "context", "--model", "claude-3-opus", "--user", "hello", "--strategy", "error", code=0)
    assert "estimate" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "llama-2-7b-32k", "--user", "hello"], "--window"),
        (["--model", "gtp-4", "--user", "hello"], "did you mean gpt-4"),
        (["--model", "gpt-4", "--user", "hello", "--strategy", "sliding"], "sliding-window"),
        (["--model", "gpt-4", "--user", "hello", "--window", "0"], "window"),
        (["--model", "gpt-4", "--user", "hello", "--window", "-1"], "window"),
        (["--model", "gpt-4", "--user", "hello", "--window", "many"], "many"),
        (["--model", "gpt-4", "--user", "hello", "--reserve", "8192"], "reserve"),
        (["--model", "gpt-4"], "no messages were given"),
        (["--user", "hello"], "--model"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_type(batuta: Run, arguments: list[str], told: str) -> None:
    assert told in batuta("serve", "context", *arguments, code=2).stderr


@pytest.mark.parametrize(
    "text", ["", "hello", "{}", "[]", "3", '[{"role": "user"}]', '[{"role": "boss", "content": "x"}]', "[" * 100_000]
)
def test_messages_that_are_none_exit_2(batuta: Run, text: str) -> None:
    failed = answer(batuta("serve", "context", "--model", "gpt-4", "--messages", "-", "--json", input=text, code=2))
    assert failed["error"]["kind"] == "invalid_input"


def test_text_with_control_characters_never_drives_the_terminal(batuta: Run) -> None:
    messages = json.dumps([{"role": "user", "content": "\x1b[2J\u009b\u202e<|endoftext|>"}])
    arguments = ["--messages", "-", "--strategy", "sliding-window"]
    done = batuta("serve", "context", "--model", "gpt-4", *arguments, input=messages, code=0)
    assert not set(done.stdout) & set("\x1b\u009b\u202e")
    assert json.loads(done.stdout) == json.loads(messages)


def test_a_hundred_thousand_messages_are_shortened(batuta: Run, work: Path) -> None:
    whole = conversation(50_000, 3)
    (work / "large.json").write_text(json.dumps(whole))
    arguments = ["--messages", "large.json", "--strategy", "sliding-window", "--json"]
    found = result(batuta("serve", "context", "--model", "gpt-4", *arguments, code=0))
    assert found["limit"] - 60 < found["tokens"] <= found["limit"]
    assert found["messages"] == [whole[0], *whole[len(found["dropped"]) + 1 :]]


def test_an_upper_estimate_is_called_so_once(batuta: Run, chat: Path) -> None:
    arguments = ("serve", "context", "--model", "claude-3-opus", "--messages", chat)
    tokens = report(batuta(*arguments, code=0).stdout)["tokens"]
    assert tokens.endswith("(at most: the tokenizer of claude-3-opus is not known)")
    said = batuta(*arguments, "--strategy", "error", code=0).stderr
    assert said.splitlines() == ["an upper estimate: the tokenizer of claude-3-opus is not known"]


def test_the_tools_of_a_request_body_are_counted(batuta: Run, work: Path) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather of a city. " * 200}}
    (work / "plain.json").write_text(json.dumps(body))
    (work / "tools.json").write_text(json.dumps({**body, "tools": [tool]}))
    line = ("serve", "context", "--model", "gpt-4o", "--json", "--messages")
    plain = result(batuta(*line, "plain.json", code=0))
    tools = result(batuta(*line, "tools.json", code=0))
    assert plain["exact"] is True and tools["exact"] is False
    # "The weather of a city. " is 6 tokens, 200 times
    assert plain["tokens"] + 1200 < tools["tokens"] < plain["tokens"] + 2200


def test_an_estimate_that_exceeds_the_limit_is_a_warning_and_no_refusal(batuta: Run, chat: Path) -> None:
    line = ("serve", "context", "--model", "claude-3-opus", "--window", "3000", "--messages", chat)
    done = batuta(*line, code=0)
    assert report(done.stdout)["fits"].startswith("not known, at most ")
    assert "warning: " in done.stderr and "upper estimate" in done.stderr
    found = result(batuta(*line, "--json", code=0))
    assert (
        found["fits"] is None and found["exact"] is False and found["missing"] == found["tokens"] - found["limit"] > 0
    )
    kept = batuta(*line[:5], "40", *line[6:], "--strategy", "sliding-window", code=0)
    assert json.loads(kept.stdout) == [conversation()[0], conversation()[-1]] and "warning: " in kept.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--backend", "far", "--privacy", "sovereign"], 6, "sovereign does not admit 192.0.2.1:8000"),
        (["--backend", "dead"], 7, "dead: connection refused"),
        (["--backend", "groq"], 2, "have no route that counts a prompt"),
        (["--backend", "nonsense"], 2, "unknown backend nonsense"),
        (["--privacy", "sovereign"], 2, "--privacy is for --backend"),
        (["--backend", "dead", "--tokenizer", "x"], 2, "--tokenizer and --backend"),
    ],
)
def test_a_backend_that_cannot_count_is_an_error_with_its_own_exit_code(
    batuta: Run, home: Path, options: list[str], code: int, message: str
) -> None:
    (home / "config" / "batuta").mkdir(parents=True, exist_ok=True)
    (home / "config" / "batuta" / "config.toml").write_text(
        '[backends.far]\nprofile = "vllm"\nbase_url = "http://192.0.2.1:8000/v1"\n'
        '[backends.dead]\nprofile = "llamacpp"\nbase_url = "http://127.0.0.1:1/v1"\n'
    )
    assert message in batuta("serve", "context", "--model", "gpt-4", "--user", "hi", *options, code=code).stderr


def test_template_variables_and_thoughts_reach_the_template(batuta: Run, work: Path) -> None:
    talk = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "reasoning_content": "A " * 50},
    ]
    (work / "chat.json").write_text(json.dumps([*talk, {"role": "user", "content": "More"}]))
    line = ("serve", "context", "--model", "qwen3-8b", "--messages", "chat.json", "--json")
    thinking = result(batuta(*line, code=0))
    done = batuta(*line, "--var", "enable_thinking=false", "--var", "mood=1", code=0)
    without = result(done)
    # Qwen 3 writes an empty thought, "<think>\n\n</think>\n\n", where thinking is off.
    assert 4 <= without["tokens"] - thinking["tokens"] <= 40
    assert thinking["warnings"] == [] and without["warnings"] == ["the template does not read mood"]
    assert "warning: the template does not read mood" in done.stderr


def test_thoughts_and_the_system_field_come_out_of_a_strategy(batuta: Run, work: Path) -> None:
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi", "reasoning_content": "So."}]
    talk.append({"role": "user", "content": "More"})
    (work / "chat.json").write_text(json.dumps({"system": "Be brief.", "messages": talk}))
    line = ("serve", "context", "--model", "qwen3-8b", "--messages", "chat.json", "--strategy", "error")
    assert json.loads(batuta(*line, code=0).stdout) == [{"role": "system", "content": "Be brief."}, *talk]


def test_an_image_is_refused_in_words(batuta: Run, work: Path) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}
    (work / "chat.json").write_text(json.dumps([{"role": "user", "content": [part]}]))
    failed = batuta("serve", "context", "--model", "gpt-4o", "--messages", "chat.json", code=2)
    assert "message 1: has a content part of type image_url" in failed.stderr and "--backend" in failed.stderr
