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


def ask(batuta: Run, home: Path, work: Path, turns: Any, code: int) -> tuple[str, list[Any]]:
    with FaultServer(lambda *_: [response(chat_answer("6"))]) as server:
        file = home / "config" / "batuta" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'[backends.vllm]\nbase_url = "{server.base_url}"\nmodels = ["m"]\n')
        (work / "turns.json").write_text(json.dumps(turns))
        done = batuta("serve", "chat", "--model", "m", "--messages", "turns.json", "--no-stream", code=code)
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
