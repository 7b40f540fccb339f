"""A backend in a scripted conversation: a `FaultServer` that asks for one tool, then tells what it said.

It speaks OpenAI's chat completions, streamed and whole. What it answers depends on the request alone, so that the side
requests of an agent (a title, a summary) disturb nothing:

* a tool has answered: its last line, after `USED`;
* the user's last message names a file `….txt`, and a tool that can read it is offered: a call of it;
* the message begins with `Write` and names a file: the same with a tool that can write it;
* otherwise: `GREETING`.

To try a client by hand, this prints the server's base URL and ends with its stdin:

    python -m tests.real.support_script
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.serve.support_backend import FaultServer, Script, chat_answer, chunk, response, stream_head

MODEL = "my-model"
GREETING = "Zażółć gęślą jaźń, says the backend."
USED = "The note says: "
NOTE = "The secret word is Łódź-42."
"""The text of note.txt, where tests lay it for the tool."""

READING: dict[str, dict[str, Any]] = {
    "Bash": {"command": "cat FILE", "description": "Read the note"},  # Claude Code
    "exec_command": {"cmd": "cat FILE"},  # Codex
    "bash": {"command": "cat FILE", "description": "Read the note"},  # opencode
    "read_note": {"name": "FILE"},  # the programs of tests/real/clients
}
"""Tools that can read a file, with their arguments."""

WRITTEN = "Written by the agent."
WRITING: dict[str, dict[str, Any]] = {
    "apply_patch": {"input": f"*** Begin Patch\n*** Add File: FILE\n+{WRITTEN}\n*** End Patch\n"},
}
"""Tools that can write a file. Codex offers this one, a custom tool, to models that it knows, such as `CODEX_MODEL`."""
CODEX_MODEL = "gpt-5.5"

_USAGE = (70, 5)
_MODELS = [{"id": name, "object": "model"} for name in (MODEL, CODEX_MODEL)]


def converse(path: str, headers: Mapping[str, str], body: Any) -> Script:
    """The script: what is answered to a request."""
    if path == "/health":
        return [response(b"", "text/plain")]
    if path.endswith("/models"):
        return [response(json.dumps({"object": "list", "data": _MODELS}).encode())]
    if not path.endswith("/chat/completions"):
        return [response(b'{"error": {"message": "no such route"}}', status="404 Not Found")]
    stream = bool(body.get("stream"))
    said = _said(body["messages"])
    if said is None and (call := _call(body)):
        return _streamed_call(*call) if stream else [_whole_call(*call)]
    text = GREETING if said is None else USED + said
    if not stream:
        return [response(chat_answer(text, _USAGE))]
    words = (chunk(word) for word in re.findall(r"\S+\s*", text))
    return [stream_head(), *words, chunk(finish="stop"), chunk(usage=_USAGE), b"data: [DONE]\n\n"]


def results(bodies: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What tools have said, in all requests that a server has seen."""
    for body in bodies:
        for message in body["messages"]:
            if message["role"] == "tool":
                yield _text(message["content"])


def configured(folder: Path, backend: str, base_url: str) -> dict[str, str]:
    """The environment of a gateway with one backend, under the tier sovereign."""
    file = folder / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[backends.{backend}]\nbase_url = "{base_url}"\n[privacy]\ntier = "sovereign"\n')
    places = {f"XDG_{name.upper()}_HOME": str(folder / name) for name in ("config", "state", "data", "cache")}
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder)} | places


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or [])


def _said(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The last line of a tool that has answered since the assistant's last turn."""
    for message in reversed(messages):
        if message["role"] == "assistant":
            return None
        if message["role"] == "tool":
            return _text(message["content"]).strip().rpartition("\n")[2]
    return None


def _call(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The name and the arguments of the tool that the user's last message needs."""
    asked = [_text(message["content"]) for message in body["messages"] if message["role"] == "user"]
    found = re.search(r"[\w-]+\.txt", asked[-1]) if asked else None
    offered = {tool["function"]["name"] for tool in body.get("tools") or []}
    tools = WRITING if found and re.search(r"^\W*Write ", asked[-1], re.MULTILINE) else READING
    for name, arguments in tools.items():
        if found and name in offered:
            return name, json.dumps(arguments).replace("FILE", found[0])
    return None


def _whole_call(name: str, arguments: str) -> bytes:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    document: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    document |= {"usage": {"prompt_tokens": _USAGE[0], "completion_tokens": _USAGE[1]}}
    return response(json.dumps(document).encode())


def _streamed_call(name: str, arguments: str) -> Script:
    middle = len(arguments) // 2
    deltas: list[dict[str, Any]] = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}},
        {"index": 0, "function": {"arguments": arguments[:middle]}},
        {"index": 0, "function": {"arguments": arguments[middle:]}},
    ]
    events = [_delta({"tool_calls": [delta]}) for delta in deltas]
    return [stream_head(), *events, chunk(finish="tool_calls"), chunk(usage=_USAGE), b"data: [DONE]\n\n"]


def _delta(delta: Mapping[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    document = {"id": "u", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


if __name__ == "__main__":
    with FaultServer(converse) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
