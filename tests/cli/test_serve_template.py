"""`batuta serve template`: the prompt byte for byte, what it is made of, and what is said of bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.templates.formats import named_formats
from tests.cli.support import answer, on_a_terminal, result
from tests.conftest import Run

CHAT = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "I am an assistant."},
    {"role": "user", "content": "What is 2+2?"},
]
ROOT = Path(__file__).parents[2]
PROMPTS = json.loads((Path(__file__).parents[1] / "serve" / "templates" / "prompts.json").read_text())


def written(batuta: Run, *arguments: str | Path, **options: Any) -> str:
    """What went to stdout, to the byte."""
    done: Any = batuta("serve", "template", *arguments, code=0, text=False, **options)
    return str(done.stdout.decode())


def test_every_case_of_the_references_comes_out_to_the_byte(batuta: Run) -> None:
    for name in ("llama2", "mistral-v3", "chatml", "gpt-oss", "vicuna"):
        for case in PROMPTS["formats"][name]["cases"][:2]:
            messages = json.dumps(PROMPTS["conversations"][case["conversation"]])
            options = [] if case["add_generation_prompt"] else ["--no-generation-prompt"]
            options += ["--date", "2026-11-23"] if name == "gpt-oss" else []
            prompt = written(batuta, "--format", name.upper(), "--messages", "-", *options, input=messages.encode())
            assert prompt == case["prompt"]


def test_messages_come_from_a_file_stdin_or_options(batuta: Run, work: Path) -> None:
    (work / "chat.json").write_text(json.dumps({"messages": CHAT[:2]}))
    expected = "<|system|>\nYou are a helpful assistant.</s>\n<|user|>\nHello, who are you?</s>\n<|assistant|>\n"
    system, user = CHAT[0]["content"], CHAT[1]["content"]
    assert written(batuta, "--format", "zephyr", "--messages", "chat.json") == expected
    assert written(batuta, "--format", "zephyr", "--system", system, "--user", user) == expected
    assert written(batuta, "--format", "zephyr", "--system", system, "--user", "-", input=user.encode()) == expected


def test_a_model_is_rendered_by_its_own_template_its_name_or_the_config(batuta: Run, home: Path, gguf: Path) -> None:
    own = written(batuta, "--model", gguf, "--user", "Hi")
    assert own.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert written(batuta, "--model", "llama-2-70b", "--user", "Hi") == "<s>[INST] Hi [/INST]"
    config = home / "config" / "batuta" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[models."our/model"]\ntemplate = "phi4"\n')
    assert written(batuta, "--model", "our/model", "--user", "Hi").startswith("<|im_start|>user<|im_sep|>Hi")


def test_a_template_of_ones_own_gets_its_tokens(batuta: Run, work: Path) -> None:
    (work / "t.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    assert written(batuta, "--template", "t.jinja", "--bos", "<s>", "--eos", "</s>", "--user", "Hi") == "<s>Hi</s>"


def test_the_end_of_an_answer_can_be_left_open(batuta: Run) -> None:
    chat = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Sure: "}])
    prompt = written(batuta, "--format", "chatml", "--messages", "-", "--continue", input=chat.encode())
    assert prompt.endswith("<|im_start|>assistant\nSure: ")


def test_json_says_how_the_format_is_known_and_whether_the_prompt_has_its_bos(batuta: Run, gguf: Path) -> None:
    found = result(batuta("serve", "template", "--model", "llama-2-70b", "--user", "Hi", "--json", code=0))
    assert found["prompt"] == "<s>[INST] Hi [/INST]" and found["adds_bos"] is True and found["warnings"] == []
    assert (found["format"], found["name"]) == ("Llama2", "llama2") and found["confidence"] in ("high", "medium")
    assert "llama-2-70b" in found["evidence"]
    found = result(batuta("serve", "template", "--format", "qwen2.5", "--user", "Hi", "--json", code=0))
    assert found["adds_bos"] is False
    found = result(batuta("serve", "template", "--model", gguf, "--user", "Hi", "--json", code=0))
    assert (found["format"], found["name"]) == ("ChatML", "smollm2") and str(gguf) in found["evidence"]


def test_tokens_are_counted_exactly_where_the_tokenizer_is_known(batuta: Run, gguf: Path) -> None:
    counted = batuta("serve", "template", "--model", gguf, "--user", "Hi", "--count", code=0)
    found = result(batuta("serve", "template", "--model", gguf, "--user", "Hi", "--count", "--json", code=0))
    assert int(counted.stdout) == found["tokens"] == 31 and found["exact"] is True
    for meant in (["--model", "llama-2-70b"], ["--format", "chatml"]):
        found = result(batuta("serve", "template", *meant, "--user", "Hi", "--count", "--json", code=0))
        assert found["exact"] is False and found["tokens"] >= 10
        assert "estimate" in found["method"]


def test_the_list_has_every_format_with_what_it_can_express(batuta: Run) -> None:
    listed = {row["name"]: row for row in result(batuta("serve", "template", "--list", "--json", code=0))}
    templates = {path.stem for path in (ROOT / "batuta_cli" / "serve" / "templates").glob("*.jinja")}
    formats = named_formats()
    assert list(listed) == list(formats) and set(listed) >= set(PROMPTS["formats"])
    assert {format.file or format.name for format in formats.values()} == templates  # some formats share a template
    assert listed["gemma"]["system"] == "none" and listed["llama3.1"]["tools"] is True
    plain = batuta("serve", "template", "--list", code=0).stdout.splitlines()
    assert plain[0].split() == ["NAME", "FAMILY", "SYSTEM", "ORDER", "TOOLS", "STOP"]
    assert len(plain) == 1 + len(listed)


def test_detect_says_which_format_and_how_that_is_known_and_renders_nothing(batuta: Run, gguf: Path) -> None:
    found = result(batuta("serve", "template", "--model", gguf, "--detect", "--json", code=0))
    assert found["own_template"] is True and found["confidence"] == "high"
    lines = batuta("serve", "template", "--model", "llama-2-70b", "--detect", code=0).stdout.splitlines()
    assert lines[0].split() == ["format", "llama2"]
    failed = batuta("serve", "template", "--model", "nobody/knows-this", "--detect", code=2)
    assert "unknown model nobody/knows-this" in failed.stderr and "chatml" in failed.stderr
    assert failed.stdout == ""


def test_detect_shows_window_tokenizer_and_price_with_their_sources(batuta: Run, gguf: Path) -> None:
    found = result(batuta("serve", "template", "--model", "gpt-oss:120b", "--detect", "--json", code=0))
    assert found["name"] == "gpt-oss" and found["window"]["tokens"] == 128_000 and found["price"] is None
    assert found["window"]["source"].startswith("https://") and found["tokenizer"]["name"] == "tiktoken o200k_harmony"
    found = result(batuta("serve", "template", "--model", gguf, "--detect", "--json", code=0))
    assert found["window"]["tokens"] == 8192 and found["tokenizer"]["exact"] is True
    hosted = batuta("serve", "template", "--model", "openai/gpt-4o", "--detect", code=2)
    assert [line.split()[0] for line in hosted.stdout.splitlines()] == ["window", "tokenizer", "price"]
    assert "$2.50 for a million tokens of input, $10.00 of output (openai gpt-4o" in hosted.stdout
    assert "prompt format is not public" in hosted.stderr


def test_control_tokens_of_users_are_warned_of_refused_escaped_or_stripped(batuta: Run) -> None:
    meant = ["--format", "chatml", "--user", "a<|im_end|>b"]
    done = batuta("serve", "template", *meant, code=0)
    assert "warning: message 1 (user): control token <|im_end|> at character 1\n" in done.stderr
    assert "a<|im_end|>b" in done.stdout
    found = result(batuta("serve", "template", *meant, "--json", code=0))
    assert found["control_tokens"] == [
        {"message": 1, "role": "user", "field": "content", "offset": 1, "token": "<|im_end|>"}
    ]
    assert len(found["warnings"]) == 1
    failed = batuta("serve", "template", *meant, "--on-injection", "error", "--json", code=2)
    assert answer(failed)["error"]["kind"] == "control_tokens"
    assert written(batuta, *meant, "--on-injection", "strip").startswith("<|im_start|>user\nab<|im_end|>")
    assert written(batuta, *meant, "--on-injection", "escape").startswith(
        "<|im_start|>user\na<\u2060|im_end|>b<|im_end|>"
    )


def test_a_system_message_without_a_place_is_an_error_and_moving_it_is_reported(batuta: Run) -> None:
    meant = ["--format", "gemma", "--system", "Be brief.", "--user", "Hi"]
    failed = batuta("serve", "template", *meant, code=2)
    assert "message 1" in failed.stderr and "--system-fallback merge" in failed.stderr and failed.stdout == ""
    done = batuta("serve", "template", *meant, "--system-fallback", "merge", code=0)
    assert "<start_of_turn>user\nBe brief.\nHi<end_of_turn>" in done.stdout
    assert "merged into the first user message" in done.stderr
    found = result(batuta("serve", "template", *meant, "--system-fallback", "drop", "--json", code=0))
    assert "Be brief." not in found["prompt"] and "it was dropped" in found["warnings"][0]


def test_on_a_terminal_the_prompt_ends_its_line_and_cannot_drive_it(environment: dict[str, str], work: Path) -> None:
    arguments = ["serve", "template", "--format", "raw", "--user", "one\n\ttwo\x1b[31m\x9b"]
    status, shown = on_a_terminal(arguments, environment, work)
    assert (status, shown) == (0, "one\n\ttwo\\x1b[31m\\x9b\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--user", "Hi"], "exactly one of --model, --format and --template"),
        (["--model", "llama2", "--format", "llama2", "--user", "Hi"], "exactly one"),
        (["--format", "lama3", "--user", "Hi"], "did you mean llama3"),
        (["--format", "llama3", "--bos", "<s>", "--user", "Hi"], "--bos and --eos can be used only with --template"),
        (["--format", "llama3", "--detect"], "--detect needs a --model"),
        (["--format", "llama3"], "no messages were given"),
        (["--format", "llama3", "--system", "Hi"], "there are only system messages"),
        (["--format", "llama3", "--user", "Hi", "--continue"], "only an assistant's message can be continued"),
        (["--format", "llama3", "--user", "Hi", "--date", "soon\x1b"], "is not a date"),
        (["--format", "llama3", "--user", "Hi", "--date", "20261123"], "is not a date"),
        (["--format", "llama3", "--user", "Hi", "--on-injection", "ignore"], "unknown injection ignore"),
        (["--format", "llama3", "--user", "Hi", "--system-fallback", "no"], "unknown system fallback no"),
        (["--template", "broken.jinja", "--user", "Hi"], "the template cannot be rendered: syntax error, in line 1"),
        (["--template", "binary.jinja", "--user", "Hi"], "not UTF-8"),
        (["--template", "loop.jinja", "--user", "Hi"], "the template cannot be rendered: it needs too much memory"),
        (["--template", "abort.jinja", "--user", "Hi"], "the template cannot be rendered: it needs too much memory"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    batuta: Run, work: Path, arguments: list[str], expected: str
) -> None:
    (work / "broken.jinja").write_text("{% for ")
    (work / "binary.jinja").write_bytes(b"\xff\xfe")
    doubling = "{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l }}"
    (work / "loop.jinja").write_text(doubling)
    (work / "abort.jinja").write_text("{{ '{:>99999999999}'.format('x') }}")
    failed = batuta("serve", "template", *arguments, code=2)
    assert expected in failed.stderr
    assert failed.stdout == "" and "\x1b" not in failed.stderr and "Traceback" not in failed.stderr


def test_a_template_that_is_missing_exits_1(batuta: Run) -> None:
    assert "missing.jinja" in batuta("serve", "template", "--template", "missing.jinja", "--user", "Hi", code=1).stderr


def test_tools_fields_and_variables_reach_the_template_and_the_rest_is_reported(batuta: Run, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{{ tools | tojson }}{{ effort }}{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{% endfor %}"
    )
    (tmp_path / "chat.json").write_text(
        json.dumps(
            {
                "messages": [{"role": "user", "content": "Hi", "reasoning_content": "r", "extra": 1}],
                "tools": [{"name": "f"}],
                "documents": [],
                "chat_template_kwargs": {"effort": "low"},
            }
        )
    )
    arguments: list[Any] = [
        "--template",
        tmp_path / "t.jinja",
        "--messages",
        tmp_path / "chat.json",
        "--var",
        'effort="high"',
        "--var",
        "other=1",
    ]
    done = batuta("serve", "template", *arguments, code=0)
    assert done.stdout == '[{"name": "f"}]highHir'
    assert "the template does not read documents" in done.stderr
    assert "the template does not read other" in done.stderr
    assert "the template does not read extra (first in message 1)" in done.stderr
    assert len(result(batuta("serve", "template", *arguments, "--json", code=0))["warnings"]) == 3


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("enable_thinking", "--var takes NAME=JSON"),
        ("a b=1", "--var takes NAME=JSON"),
        ("effort=high", "the value of --var effort is not JSON"),
        ("messages=[]", "--var messages is not possible: use --messages"),
        ('x="\\ud800"', "lone surrogate"),
    ],
)
def test_a_malformed_variable_is_refused(batuta: Run, value: str, says: str) -> None:
    failed = batuta("serve", "template", "--format", "chatml", "--user", "Hi", "--var", value, code=2)
    assert says in failed.stderr and failed.stdout == ""


def test_a_family_that_is_plain_in_the_name_is_answered_with_low_confidence_and_strict_refuses_it(batuta: Run) -> None:
    arguments = ["serve", "template", "--model", "Josiefied-Qwen3-8B-abliterated-v1"]
    done = batuta(*arguments, "--user", "Hi", code=0)
    assert done.stdout == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert "low confidence in the format qwen3" in done.stderr
    for more in (["--user", "Hi"], ["--detect"]):
        refused = batuta(*arguments, *more, "--strict", code=2)
        assert "low confidence" in refused.stderr and "--format qwen3" in refused.stderr and refused.stdout == ""


def test_an_unknown_name_is_told_that_a_folder_with_a_template_is_enough(batuta: Run) -> None:
    refused = batuta("serve", "template", "--model", "made-up-model", "--user", "Hi", code=2)
    assert "a folder with its chat_template.jinja" in refused.stderr and "GGUF" in refused.stderr
