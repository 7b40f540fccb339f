"""What runs in the worker process: templates that are not ours, one request after the other, on stdin and stdout.

A template can make minijinja allocate without bound, loop in its filters, or overflow its stack with a long chain of
operators; the last two end a process. So each request sets its own bound of memory (RLIMIT_AS) and of processor time
(ITIMER_PROF, whose signal ends the process), and whoever asked learns of the end from `isolation`.

A message is its length in eight bytes, then JSON. The process ends when stdin does.
"""

import contextlib
import datetime as dt
import json
import resource
import signal
import sys
from typing import Any, BinaryIO

from batuta_cli.serve.templates.render import Renderer, RenderError

BASE_MEMORY = 512 * 1024 * 1024
"""Bytes of address space that a worker may have for nothing: Python, minijinja, and a template of a megabyte."""

MEMORY_A_BYTE = 20
"""And for each byte of the request: its text, the JSON, Python's objects (four bytes a character), two prompts."""


def main() -> None:
    """Serve until stdin ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    renderer: Renderer | None = None
    while (size := int.from_bytes(sys.stdin.buffer.read(8), "big")) > 0:
        _limit_memory(BASE_MEMORY + MEMORY_A_BYTE * size)
        request = json.loads(sys.stdin.buffer.read(size))
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            renderer = renderer or Renderer(request["template"])
            answer: dict[str, Any] = {"prompt": _render(renderer, request)}
        except RenderError as error:
            answer = {"reason": error.reason, "refused": error.refused}
        except MemoryError:
            answer = {"reason": "it needs too much memory", "refused": False}
        left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        answer["seconds"] = request["seconds"] - left
        send(sys.stdout.buffer, answer)


def _render(renderer: Renderer, request: dict[str, Any]) -> str:
    now = dt.datetime.fromisoformat(request["now"])
    return renderer.render(request["context"], fuel=request["fuel"], now=now)


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message."""
    data = json.dumps(message, ensure_ascii=False).encode()
    stream.write(len(data).to_bytes(8, "big"))
    stream.write(data)
    stream.flush()


def _limit_memory(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError, OSError):  # a limit from outside may be tighter, and then holds
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))
