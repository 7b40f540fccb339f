"""Templates that are not ours, rendered in a process of their own.

`Isolated` has the interface of `render.Renderer`. Whatever a template does (loop, recurse, allocate gigabytes, overflow
a stack), the worst that happens here is a `RenderError` within the time that was given, and a new worker for the next
request. The worker starts with the first request, stays for the next ones, and ends with `close`, with this object, or
with this process.
"""

import contextlib
import datetime as dt
import fcntl
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import IO, Any, Self, cast

from batuta_cli.errors import OperationError
from batuta_cli.serve.templates.render import RenderError

SECONDS = 1.0
"""Processor time for a small conversation; real templates take milliseconds."""

# A fifth of what a worker does on one slow core with a plain template, the JSON of request and answer included.
_BYTES_A_SECOND = 20_000_000
_MESSAGES_A_SECOND = 30_000
_LEAST = 0.05  # seconds; zero would mean no limit
_PATIENCE = 8.0  # seconds of the clock for one of the processor, on a machine that is busy with other work
_ANSWER = 64 * 1024 * 1024  # bytes of an answer beyond what the messages make of it
_GROWTH = 16
_PIECE = 1 << 20

_START = "import sys; sys.path += {paths!r}; from batuta_cli.serve.templates.worker import main; main()"


@dataclass
class Allowance:
    """The processor time that several requests may take together. Time that a busy machine waits is not counted."""

    seconds: float

    @classmethod
    def of(cls, size: int, messages: int) -> Self:
        """For rendering so many bytes in so many messages once."""
        return cls(SECONDS + size / _BYTES_A_SECOND + messages / _MESSAGES_A_SECOND)


class Isolated:
    """A template in a process of its own. Threads may share it; they wait for each other."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def render(self, context: Mapping[str, Any], *, fuel: int, now: dt.datetime, allowance: Allowance) -> str:
        """The text for the variables in `context`. What it took of the processor's time is taken off the allowance.

        Raises `RenderError`, and `OperationError` when no process can be started.
        """
        request = {
            "template": self._source,
            "context": context,
            "fuel": fuel,
            "now": now.isoformat(),
            "seconds": max(allowance.seconds, _LEAST),
        }
        data = json.dumps(request, ensure_ascii=False).encode()
        with self._lock:
            answer = self._ask(data, time.monotonic() + _PATIENCE * max(allowance.seconds, 1.0))
        allowance.seconds -= answer["seconds"]
        if "prompt" not in answer:
            raise RenderError(answer["reason"], refused=answer["refused"])
        return str(answer["prompt"])

    def close(self) -> None:
        """End the worker; the next request starts another."""
        with self._lock:
            self._end(patience=0)

    def _ask(self, data: bytes, deadline: float) -> dict[str, Any]:
        if self._process is not None and self._process.poll() is not None:  # ended by somebody while it was idle
            self._end(patience=0)
        process = self._process or self._start()
        try:
            return _exchange(process, data, deadline)
        except (OSError, EOFError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            status = self._end(patience=0 if late else 0.1)  # its own end says why, when it has come to one
            if late or -status in (signal.SIGPROF, signal.SIGXCPU):
                raise RenderError("it takes too long") from None
            raise RenderError("it needs too much memory, or nests too deeply") from None
        except BaseException:  # Ctrl-C: the next request must not read the answer to this one
            self._end(patience=0)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [_home_of("batuta_cli"), _home_of("minijinja")]
        try:
            # -I: neither the environment nor the working directory say what is imported.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START.format(paths=paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # where a crash of minijinja could quote messages
                cwd="/",
                bufsize=0,
            )
        except OSError as error:
            raise OperationError(f"the template's worker process cannot be started: {error.strerror}") from error
        for stream in _pipes(process):
            os.set_blocking(stream.fileno(), False)
            with contextlib.suppress(OSError):  # the limit for ordinary users may be lower
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIECE)
        self._process = process
        self._finalizer = weakref.finalize(self, _kill, process)
        return process

    def _end(self, *, patience: float) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if self._finalizer is not None:
            self._finalizer.detach()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        return _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    for stream in _pipes(process):
        with contextlib.suppress(OSError):
            stream.close()
    return process.wait()


def _exchange(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> dict[str, Any]:
    """Send a request and read its answer, without waiting for a process that does neither."""
    stdin, stdout = _pipes(process)
    limit = _ANSWER + _GROWTH * len(data)
    unsent = memoryview(len(data).to_bytes(8, "big") + data)
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while len(received) < 8 or len(received) < 8 + int.from_bytes(received[:8], "big"):
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    unsent = unsent[os.write(key.fd, unsent[:_PIECE]) :]
                    if not unsent:
                        selector.unregister(stdin)
                elif piece := os.read(key.fd, _PIECE):
                    received += piece
                else:
                    raise EOFError
            if len(received) >= 8 and int.from_bytes(received[:8], "big") > limit:
                raise EOFError
    answer: dict[str, Any] = json.loads(memoryview(received)[8:].tobytes())
    return answer


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    return cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)


def _home_of(package: str) -> str:
    """The directory that a package is imported from."""
    found = cast(ModuleSpec, importlib.util.find_spec(package))
    return str(Path(cast(str, found.origin)).parent.parent)
