"""The worker process: renders one untrusted template, request after request, from stdin to stdout.

A template can loop without end, allocate without bound or crash the interpreter. Each request therefore sets limits of
the operating system: address space (RLIMIT_AS), and processor time of this request (ITIMER_PROF, whose signal ends the
process; RLIMIT_CPU would count the whole life of the worker). The process cannot open files or sockets
(RLIMIT_NOFILE). `isolation` starts it, enforces the wall deadline, and reports its end.

A request is eight bytes of length, then `marshal` data; the parent process is trusted. A response is eight bytes of
length, then one byte of kind and its data, which the parent must not trust (see `respond`). The process ends when
stdin ends.
"""

import contextlib
import datetime as dt
import importlib
import json
import marshal
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

from batuta_cli.serve.templates.render import Renderer, RenderError, environment

BASE_MEMORY = 512 * 1024 * 1024
"""Bytes of address space for Python, Jinja2 and a template of one megabyte."""

MEMORY_PER_BYTE = 20
"""Additional bytes for each byte of a request: its data, Python's objects (four bytes a character), two prompts."""

HEAD = struct.Struct(">Qcd")
"""The head of a response: bytes that follow the length, the kind, the processor seconds of the request."""

PROMPT, FAILURE, NAMES = b"p", b"f", b"n"
"""Kinds of responses: UTF-8 text; JSON `{"reason", "refused", "exhausted"}`; a JSON list."""


_LATER = ("encodings.unicode_escape", "jinja2.constants", "jinja2.debug", "pprint", "textwrap")
"""Modules that Jinja2 imports only when a template needs them."""


def main() -> None:
    """Serve requests until stdin ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    environment()  # imports Jinja2 while files can be opened
    for module in _LATER:
        importlib.import_module(module)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    source, renderer = "", None
    while (size := int.from_bytes(sys.stdin.buffer.read(8), "big")) > 0:
        _limit_memory(BASE_MEMORY + MEMORY_PER_BYTE * size)
        request = marshal.loads(sys.stdin.buffer.read(size))  # noqa: S302  written by `isolation`, which is trusted
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        source = request.get("template", source)
        try:
            renderer = renderer or Renderer(source)
            kind, data = _response(renderer, request)
        except RenderError as error:
            kind, data = FAILURE, _failure(error)
        except MemoryError:
            kind, data = FAILURE, _failure(RenderError("it needs too much memory", exhausted=True))
        except UnicodeEncodeError:
            kind, data = (
                FAILURE,
                _failure(RenderError("the prompt contains a lone surrogate, which is not Unicode text")),
            )
        left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        respond(sys.stdout.buffer, kind, data, request["seconds"] - left)


def _response(renderer: Renderer, request: dict[str, Any]) -> tuple[bytes, bytes]:
    if request["context"] is None:
        return NAMES, json.dumps(sorted(renderer.names())).encode()
    now = dt.datetime.fromisoformat(request["now"])
    return PROMPT, renderer.render(request["context"], now=now).encode()


def _failure(error: RenderError) -> bytes:
    fields = {"reason": error.reason, "refused": error.refused, "exhausted": error.exhausted}
    return json.dumps(fields).encode()


def respond(stream: BinaryIO, kind: bytes, data: bytes, seconds: float) -> None:
    """Write one response."""
    stream.write(HEAD.pack(len(data) + HEAD.size - 8, kind, seconds))
    stream.write(data)
    stream.flush()


def _limit_memory(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError, OSError):  # an inherited limit that is lower stays in force
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))
