"""A backend in a scripted conversation: `FaultServer` with a script that asks for one tool, then tells what it said.

It speaks OpenAI's chat completions, streamed and whole. What it answers depends on the request alone, so that the side
requests of an agent (a title, a summary) disturb nothing:

* the last message is a tool's result: text that repeats the result;
* the last user message has `use TOOL {…}` in it and TOOL is offered: a call of the tool with these arguments;
* otherwise: `GREETING`.

    python -m tests.real.support_script            # runs it and prints its base URL, to try an agent by hand
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tests.serve.support_backend import FaultServer, Script, chat_answer, chunk, response, stream_head

MODEL = "scripted"
GREETING = "Zażółć gęślą jaźń: hello from the backend."
USED = "The tool said: "

_USE = re.compile(r"use (\w+) (\{.*?\})(?:\s|$)")
_USAGE = (70, 5)
_MODEL = {"id": MODEL, "object": "model", "owned_by": "vllm"}  # identified as the backend of profile `vllm`


def converse(path: str, headers: Mapping[str, str], body: Any) -> Script:
    """The script: what is answered to a request."""
    if path == "/health":
        return [response(b"", "text/plain")]
    if path.endswith("/models"):
        return [
            response(
                json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}).encode()
            )
        ]
    if not path.endswith("/chat/completions"):
        return [response(b'{"error": {"message": "no such route"}}', status="404 Not Found")]
    name, arguments = _call(body)
    if name:
        return _call_answer(name, arguments, stream=bool(body.get("stream")))
    text = _text(body["messages"])
    if not body.get("stream"):
        return [response(chat_answer(text, _USAGE))]
    words = (chunk(word) for word in re.findall(r"\S+\s*", text))
    return [stream_head(), *words, chunk(finish="stop"), chunk(usage=_USAGE), b"data: [DONE]\n\n"]


def text_of(content: Any) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or [])


def results(requests: list[tuple[str, dict[str, str], Any]]) -> Iterator[str]:
    """The results of tools that the requests to the server carry."""
    for _, _, body in requests:
        for message in (body or {}).get("messages", []):
            if message["role"] == "tool":
                yield text_of(message["content"])


def _call(body: Mapping[str, Any]) -> tuple[str | None, str]:
    messages = body["messages"]
    asked = [text_of(message["content"]) for message in messages if message["role"] == "user"]
    found = _USE.search(asked[-1]) if asked and messages[-1]["role"] != "tool" else None
    offered = {tool["function"]["name"] for tool in body.get("tools") or []}
    return (found[1], found[2]) if found and found[1] in offered else (None, "")


def _text(messages: list[dict[str, Any]]) -> str:
    last = messages[-1]
    return USED + text_of(last["content"]) if last["role"] == "tool" else GREETING


def _call_answer(name: str, arguments: str, *, stream: bool) -> Script:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        document: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
        document |= {"usage": {"prompt_tokens": _USAGE[0], "completion_tokens": _USAGE[1]}}
        return [response(json.dumps(document).encode())]
    middle = len(arguments) // 2
    deltas: list[dict[str, Any]] = [call | {"index": 0, "function": {"name": name, "arguments": ""}}]
    deltas += [{"index": 0, "function": {"arguments": part}} for part in (arguments[:middle], arguments[middle:])]
    events = [_delta({"tool_calls": [delta]}) for delta in deltas]
    return [stream_head(), *events, chunk(finish="tool_calls"), chunk(usage=_USAGE), b"data: [DONE]\n\n"]


def _delta(delta: Mapping[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    document = {"id": "u", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


if __name__ == "__main__":
    with FaultServer(converse) as server:
        print(server.base_url, flush=True)
        for number, _ in enumerate(sys.stdin):  # a line on stdin shows what was asked since
            print(json.dumps(server.requests, indent=1) if number >= 0 else "", flush=True)
