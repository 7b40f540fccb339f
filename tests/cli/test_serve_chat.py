"""`batuta serve chat`: what of a file of messages reaches the backend."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.serve.support_backend import FaultServer, chat_answer, response

TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}], "name": "ann"},
    {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
    {"role": "user", "content": "And 3 + 3?"},
]


def ask(batuta: Run, home: Path, work: Path, turns: Any, code: int, *more: str) -> tuple[str, list[Any]]:
    with FaultServer(lambda *_: [response(chat_answer("6"))]) as server:
        file = home / "config" / "batuta" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'[backends.vllm]\nbase_url = "{server.base_url}"\nmodels = ["m"]\n')
        (work / "turns.json").write_text(json.dumps(turns))
        done = batuta("serve", "chat", "--model", "m", "--messages", "turns.json", "--no-stream", *more, code=code)
        return done.stdout + done.stderr, [body for path, _, body in server.requests if path.endswith("completions")]


def test_the_reasoning_and_names_of_earlier_turns_reach_the_backend(batuta: Run, home: Path, work: Path) -> None:
    said, requests = ask(batuta, home, work, TURNS, 0)
    assert said.startswith("6\n")
    assert requests[0]["messages"] == [
        {"role": "user", "content": "2 + 2?", "name": "ann"},
        {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
        {"role": "user", "content": "And 3 + 3?"},
    ]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]},
        {"role": "ipython", "content": "x"},
    ],
)
def test_other_content_than_text_and_unknown_roles_are_refused(
    batuta: Run, home: Path, work: Path, turn: dict[str, Any]
) -> None:
    said, requests = ask(batuta, home, work, [turn], 2)
    assert "message 1" in said
    assert requests == []


ASKED = [{"role": "user", "content": "3 + 3?"}]


def test_sampling_fields_of_the_file_reach_the_backend_and_options_of_the_command_win(
    batuta: Run, home: Path, work: Path
) -> None:
    fields = {
        "top_p": 0.5,
        "stop": ["\n"],
        "temperature": 1.5,
        "max_completion_tokens": 20,
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {"type": "json_object"},
        "seed": None,
    }
    said, requests = ask(batuta, home, work, {"messages": ASKED, **fields}, 0, "--temperature", "0")
    assert said.startswith("6\n")
    sent = requests[0]
    assert {
        name: sent[name] for name in ("top_p", "stop", "temperature", "chat_template_kwargs", "response_format")
    } == {
        "top_p": 0.5,
        "stop": ["\n"],
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {"type": "json_object"},
    }
    assert 20 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


def test_the_model_and_stream_of_the_file_are_not_used_and_a_warning_says_so(
    batuta: Run, home: Path, work: Path
) -> None:
    said, requests = ask(batuta, home, work, {"model": "other", "stream": True, "messages": ASKED}, 0)
    assert "not used from the file of messages: model, stream; use --model, --stream" in said
    assert requests[0]["model"] == "m"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"}, "tools, tool_choice"),
        ({"n": 2}, "n of"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"top_p": "high"}, "top_p"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ],
)
def test_fields_of_the_file_that_chat_cannot_take_are_refused_by_name(
    batuta: Run, home: Path, work: Path, fields: dict[str, Any], named: str
) -> None:
    said, requests = ask(batuta, home, work, {"messages": ASKED, **fields}, 2)
    assert named in said
    assert requests == []
