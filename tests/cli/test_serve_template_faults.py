"""`batuta serve template lint` and `diff`: exit codes, JSON, SARIF, and the tokenizer of a model's files."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.support import answer, result
from tests.conftest import Run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)
TWICE = "{{ bos_token }}<s>" + CHATML


@pytest.fixture
def twice(work: Path) -> Path:
    """A folder whose template writes two BOS."""
    (work / "model").mkdir()
    (work / "model" / "chat_template.jinja").write_text(TWICE)
    (work / "model" / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "<|im_end|>"}')
    return work / "model"


def test_a_fault_exits_3_and_notes_alone_exit_0(batuta: Run, twice: Path) -> None:
    done = batuta("serve", "template", "lint", "model", code=3)
    assert done.stdout.startswith(
        "error: double-bos: The prompt begins with two BOS tokens.\n  the prompt begins with <s><s>"
    )
    assert done.stderr == "error: model: 1 fault\n"
    done = batuta("serve", "template", "lint", "model", "--ignore", "double-bos", code=0)
    assert done.stdout.startswith("note: tools-unsupported") and done.stderr == ""
    assert batuta("serve", "template", "lint", "qwen3", code=0).stdout == "no faults: the format qwen3\n"
    assert batuta("serve", "template", "lint", "model", "--quiet", code=3).stdout == ""


def test_json_lists_the_faults_on_failure_too(batuta: Run, twice: Path) -> None:
    failed = answer(batuta("serve", "template", "lint", "model", "--json", code=3))
    assert failed["error"]["kind"] == "template_faults"
    found = failed["result"]
    assert found["template"] == "model" and found["compared_by"] == "characters"
    assert [(fault["rule"], fault["level"]) for fault in found["faults"]] == [
        ("double-bos", "error"),
        ("tools-unsupported", "note"),
    ]
    assert result(batuta("serve", "template", "lint", "qwen3", "--json", code=0))["faults"] == []


def test_sarif_is_printed_alone(batuta: Run, twice: Path) -> None:
    log = json.loads(batuta("serve", "template", "lint", "model", "--sarif", code=3).stdout)
    assert log["version"] == "2.1.0"
    (first, _) = log["runs"][0]["results"]
    assert first["ruleId"] == "double-bos" and first["level"] == "error"
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "model"
    assert (
        json.loads(batuta("serve", "template", "lint", "qwen3", "--sarif", code=0).stdout)["runs"][0]["results"] == []
    )


def test_the_tokenizer_of_a_model_is_used(batuta: Run, gguf: Path, work: Path) -> None:
    shutil.copy(gguf, work / "model.gguf")
    for arguments in (("model.gguf",), ("chatml", "--tokenizer", "model.gguf")):
        found = answer(batuta("serve", "template", "lint", *arguments, "--json"))["result"]
        assert found["compared_by"] != "characters"
    by_tokens = result(batuta("serve", "template", "diff", "model.gguf", "smollm2", "--json", code=0))
    assert by_tokens["differences"] == [] and by_tokens["conversations"] == 9


def test_templates_that_write_the_same_exit_0_and_others_3(batuta: Run, work: Path) -> None:
    (work / "chatml.jinja").write_text(CHATML)
    (work / "talk.jsonl").write_text('[{"role": "user", "content": "Hello"}]\n[{"role": "user", "content": "Bye"}]\n')
    line = ("serve", "template", "diff", "chatml.jinja")
    assert batuta(*line, "chatml", code=0).stdout == "the same prompts for 9 conversations\n"
    done = batuta(*line, "llama3", "--messages", "talk.jsonl", code=3)
    assert done.stdout.splitlines() == [
        "conversation 1 (1 message): control-token, character 3",
        '  first   "<|im_start|>user\\nHello<|im"…',
        '  second  "<|begin_of_text|><|start_h"…',
        "conversation 2 (1 message): control-token, character 3",
        '  first   "<|im_start|>user\\nBye<|im_e"…',
        '  second  "<|begin_of_text|><|start_h"…',
    ]
    assert done.stderr == "error: the prompts differ: 2 of 2 conversations\n"
    failed = answer(batuta(*line, "llama3", "--messages", "talk.jsonl", "--json", code=3))
    assert failed["error"]["kind"] == "templates_differ"
    found = failed["result"]["differences"]
    assert [(item["conversation"], item["kind"], item["offset"], item["token"]) for item in found] == [
        (1, "control-token", 2, None),
        (2, "control-token", 2, None),
    ]


def test_a_refusal_of_one_side_is_shown_with_its_reason(batuta: Run, work: Path) -> None:
    (work / "talk.json").write_text('{"system": "Whisper.", "messages": [{"role": "user", "content": "Hello"}]}')
    done = batuta("serve", "template", "diff", "gemma", "chatml", "--messages", "talk.json", code=3)
    assert done.stdout.splitlines() == [
        "conversation 1 (2 messages): refusal",
        "  first   message 1: the format gemma has no system messages",
        "  second  renders it",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("lint", "no-such-model"), 2, "unknown model"),
        (("lint", "./no-such-file"), 1, "no such file"),
        (("lint", "qwen3", "--ignore", "double-boss"), 2, "did you mean double-bos?"),
        (("lint", "qwen3", "--sarif", "--json"), 2, "--sarif and --json"),
        (("diff", "qwen3"), 2, "MODEL|FILE"),
        (("--model", "qwen3", "lint", "qwen3"), 2, "--model is an option of"),
        (("lintt", "qwen3"), 2, "did you mean 'lint'?"),
    ],
)
def test_wrong_usage_says_what_is_wrong(batuta: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = batuta("serve", "template", *arguments, code=code)
    assert told in done.stderr + done.stdout


def test_control_characters_of_a_template_never_reach_the_terminal(batuta: Run, work: Path) -> None:
    (work / "t.jinja").write_text("{{ raise_exception('\x1b[2J') }}")
    done = batuta("serve", "template", "lint", "t.jinja", code=3)
    assert "\x1b" not in done.stdout + done.stderr and "cannot-render" in done.stdout
