"""What was said and the keys stay between the user and the backend, whatever fails: no output and no file has them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.serve.support_backend import (
    FaultServer,
    Script,
    chat_answer,
    chat_stream,
    chunk,
    response,
    stream_head,
)
from tests.serve.support_server import free_port

SENTENCE = "My cat is called PURRSECRET and she is nine."
KEY = "sk-KEYSECRET0123456789"
SECRETS = ("PURRSECRET", "KEYSECRET", "NETRCSECRET")

_TAIL = f"{SENTENCE} {KEY}"


def line(text: bytes) -> bytes:
    return text + b"\r\n"


def event(document: Any) -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"


_STATUSES: dict[str, Script] = {
    f"status {status}": [
        response(json.dumps({"error": {"message": _TAIL}}).encode(), "application/json", f"{status} No")
    ]
    for status in (204, 206, 301, 400, 401, 403, 404, 413, 429, 500, 503)
}
ANSWERS: dict[str, Script] = _STATUSES | {
    "a reason that quotes": [response(b"{}", "application/json", f"400 {_TAIL}")],
    "a location that quotes": [response(b"", "text/plain", "302 Found", f"Location: http://192.0.2.1/?q={_TAIL}")],
    "HTML": [response(f"<html>{_TAIL}</html>".encode(), "text/html")],
    "no HTTP": [line(_TAIL.encode()) * 3],
    "a bad header": [line(b"HTTP/1.1 200 OK") + line(f"{_TAIL}".encode()) + b"\r\n"],
    "a huge header": [line(b"HTTP/1.1 200 OK") + line(f"X-Say: {_TAIL * 4000}".encode()) + b"\r\n"],
    "a bad chunk": [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + line(_TAIL.encode())
        + b"\r\n"
    ],
    "a bad coding": [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        + _TAIL.encode()
    ],
    "an event that is no JSON": [stream_head(), event(_TAIL.encode())],
    "an event that is half JSON": [stream_head(), event(f'{{"error": "{_TAIL}'.encode())],
    "an error in the stream": [stream_head(), event({"error": {"message": _TAIL, "code": SENTENCE, "type": SENTENCE}})],
    "an error of another form": [stream_head(), event({"error": _TAIL})],
    "an error event": [stream_head(), b"event: error\n" + event({"detail": _TAIL})],
    "a cut stream": [stream_head(), chunk()],
    "an empty answer": [],
    "an end that is strange": [stream_head(), chunk(finish="abort")],
    "choices of another form": [stream_head(), event({"choices": [_TAIL, [_TAIL], {"delta": _TAIL}]})],
}


@pytest.fixture
def output(batuta: Run, home: Path) -> Callable[..., str]:
    """All that a command wrote, on its outputs and in its home, with a traceback where there is one."""
    (home / ".netrc").write_text("default login someone password NETRCSECRET\n")

    def run(config: str, *arguments: str | Path, code: int | None = None, **more: Any) -> str:
        file = home / "config" / "batuta" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config)
        env = {"SOME_KEY": KEY, "OPENAI_API_KEY": KEY, "BATUTA_DEBUG": "1"} | more.pop("env", {})
        done = batuta("serve", *arguments, env=env, code=code, **more)
        assert done.returncode != 0
        return "".join([done.stdout, done.stderr, *written(home)])

    return run


def written(home: Path) -> Iterator[str]:
    for file in home.rglob("*"):
        if file.is_file() and file.name != ".netrc":
            yield file.read_bytes().decode("latin-1")


def config(*servers: FaultServer, tier: str = "sovereign", profile: str = "vllm") -> str:
    lines = [f'[privacy]\ntier = "{tier}"\n[models.test-model]\ncontext_window = 8000\noutput_reserve = 64\n']
    lines += ["input_usd_per_million = 1\noutput_usd_per_million = 1\n"]
    for number, server in enumerate(servers):
        lines.append(f'[backends.b{number}]\nprofile = "{profile}"\nbase_url = "{server.base_url}"\n')
        lines.append('models = ["test-model"]\napi_key_env = "SOME_KEY"\n')
    return "".join(lines)


def healthy(answer: Script) -> Callable[..., Script]:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        return [response(b'{"data": [{"id": "test-model"}]}')] if body is None else answer

    return script


def assert_silent(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text


CHAT = ("chat", SENTENCE, "--model", "test-model")


@pytest.mark.parametrize("more", [(), ("--json",), ("--no-stream",)], ids=["stream", "json", "no-stream"])
@pytest.mark.parametrize("case", ANSWERS)
def test_a_failure_says_nothing_of_what_was_said(output: Callable[..., str], case: str, more: tuple[str, ...]) -> None:
    with FaultServer(healthy(ANSWERS[case])) as server:
        text = output(config(server), *CHAT, *more)
        assert any(SENTENCE in json.dumps(body) and KEY in str(headers) for _, headers, body in server.requests)
    assert "internal error" not in text
    assert_silent(text)


def test_a_probe_that_is_answered_with_a_quotation_does_not_repeat_it(output: Callable[..., str]) -> None:
    for answer in (ANSWERS["no HTTP"], ANSWERS["a bad header"], ANSWERS["status 500"], ANSWERS["HTML"]):
        with FaultServer(lambda *_, answer=answer: answer) as server:
            text = output(config(server), *CHAT)
        assert "internal error" not in text
        assert_silent(text)


def test_a_failover_that_fails_says_nothing_either(output: Callable[..., str]) -> None:
    with (
        FaultServer(healthy([stream_head(), chunk("The PURR")])) as one,
        FaultServer(healthy(ANSWERS["status 400"])) as two,
    ):
        assert_silent(output(config(one, two), *CHAT))
        assert len(one.requests) + len(two.requests) > 2


REFUSALS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "privacy": ("sovereign", ("--backend", "far"), 6),
    "no such backend": ("sovereign", ("--backend", "fra"), 2),
    "nobody answers": ("standard", ("--backend", "near"), 7),
    "too long": ("standard", ("--backend", "near", "--max-tokens", "9000000"), 8),
    "too dear": ("standard", ("--backend", "dear", "--max-tokens", "7000"), 5),
    "a wrong number": ("standard", ("--temperature", "nine"), 2),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_nothing_of_what_was_said(output: Callable[..., str], case: str) -> None:
    tier, more, exit_code = REFUSALS[case]
    with FaultServer(healthy([stream_head(), chat_stream(["Hi"])])) as server:
        tables = (
            f'[budget]\nmax_request_cost_usd = "0.0001"\n{config(tier=tier)}'
            '[backends.far]\nprofile = "vllm"\nbase_url = "http://192.0.2.1:8000/v1"\nmodels = ["test-model"]\n'
            f'[backends.near]\nprofile = "vllm"\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n'
            f'[backends.dear]\nprofile = "openai"\nbase_url = "{server.base_url}"\nmodels = ["test-model"]\n'
        )
        text = output(tables, *CHAT, *more, code=exit_code)
    assert "error" in text
    assert_silent(text)


@pytest.mark.parametrize(
    "messages",
    [
        f'[{{"role": "user", "content": "{SENTENCE}"',
        [{"role": "user", "content": {"text": SENTENCE}}],
        [{"role": "user", "content": SENTENCE}, {"role": "tool", "content": SENTENCE}],
        [{"role": "user", "content": SENTENCE + "\0"}],
        [{"role": "user", "content": SENTENCE + "\ud800"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SENTENCE}}]}],
        [{"role": "user", "content": SENTENCE, "tool_calls": [SENTENCE]}],
        [{"content": SENTENCE}],
    ],
    ids=str,
)
def test_messages_that_are_wrong_are_not_quoted(output: Callable[..., str], work: Path, messages: Any) -> None:
    file = work / "chat.json"
    file.write_text(messages if isinstance(messages, str) else json.dumps(messages))
    assert_silent(output(config(), "chat", "--messages", file, "--model", "test-model", code=2))


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY} two", f"{KEY}é", "KEYSECRET\x7f"], ids=ascii)
def test_a_key_that_cannot_be_sent_is_not_quoted(output: Callable[..., str], key: str) -> None:
    with FaultServer(healthy([stream_head(), chat_stream(["Hi"])])) as server:
        text = output(config(server), *CHAT, env={"SOME_KEY": key})
    assert "SOME_KEY" in text
    assert_silent(text)


def test_an_answer_that_is_given_leaves_nothing_in_files(batuta: Run, home: Path) -> None:
    """Of a paid request, so that the ledger has something of it too."""
    with FaultServer(healthy([stream_head(), chat_stream([SENTENCE])])) as server:
        file = home / "config" / "batuta" / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(config(server, tier="standard", profile="openai"))
        done = batuta("serve", *CHAT, env={"SOME_KEY": KEY, "BATUTA_DEBUG": "1"}, code=0)
    assert done.stdout == SENTENCE + "\n"
    assert_silent(done.stderr)
    files = list(written(home / "state"))
    assert len(files) >= 2  # the audit log and the ledger
    assert_silent("".join(files))


def test_a_whole_answer_is_never_in_an_error(output: Callable[..., str]) -> None:
    broken = chat_answer(SENTENCE).replace(b'"stop"', b'"error"')
    with FaultServer(healthy([response(broken)])) as server:
        assert_silent(output(config(server), *CHAT, "--no-stream"))
