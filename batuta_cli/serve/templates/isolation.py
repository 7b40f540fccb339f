"""Render untrusted templates in worker processes.

`Isolated` offers the interface of `render.Renderer`. A template that loops, recurses, allocates gigabytes or crashes
its process causes a `RenderError` within its time limit, and the next request starts a new worker. A worker keeps its
compiled template for the next prompts. It ends with `close`, with its `Isolated` object, with this process, or when
this process needs a fifth worker: at most `MAX_WORKERS` run, and the one idle longest ends.
"""

import contextlib
import datetime as dt
import fcntl
import importlib.util
import json
import marshal
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
from batuta_cli.serve.templates.worker import FAILURE, HEAD, NAMES, PROMPT

MAX_WORKERS = 4
"""Worker processes of this process at a time."""

SECONDS = 0.8
"""Processor seconds for compiling a template and rendering a small conversation; published templates need 0.05."""

# A fifth of the throughput of a worker on one slow core with a plain template, encoding included.
_BYTES_PER_SECOND = 20_000_000
_MESSAGES_PER_SECOND = 10_000
_LEAST = 0.05  # seconds; 0 would disable the timer
_PATIENCE = 8.0  # wall seconds per processor second, for a busy machine
_RESPONSE = 64 * 1024 * 1024  # bytes of a response beyond _GROWTH times the request
_GROWTH = 16
_PIECE = 1 << 20

_START = "import sys; sys.path += {paths!r}; from batuta_cli.serve.templates.worker import main; main()"
_KEPT_VARIABLES = ("LD_LIBRARY_PATH",)  # the interpreter may need it to start


@dataclass
class Allowance:
    """Processor seconds that several requests may use together. Waiting on a busy machine does not count."""

    seconds: float

    @classmethod
    def of(cls, size: int, messages: int) -> Self:
        """Return the allowance for rendering `size` bytes in `messages` messages once."""
        return cls(SECONDS + size / _BYTES_PER_SECOND + messages / _MESSAGES_PER_SECOND)


class _Workers:
    """The `Isolated` objects that have a process, and the limit of their number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owners: dict[weakref.ref[Isolated], None] = {}  # the least recently used first

    def admit(self, owner: "Isolated") -> None:
        """Wait until `owner` may start a process; end an idle worker if `MAX_WORKERS` run."""
        with self._changed:
            while len(self._living()) >= MAX_WORKERS and not self._evict():
                self._changed.wait(1.0)
            self._owners[weakref.ref(owner)] = None

    def used(self, owner: "Isolated") -> None:
        """Note that `owner` has finished a request."""
        with self._changed:
            reference = weakref.ref(owner)
            if reference in self._owners:
                del self._owners[reference]
                self._owners[reference] = None
            self._changed.notify_all()

    def left(self, owner: "Isolated") -> None:
        """Note that the process of `owner` has ended."""
        with self._changed:
            self._owners.pop(weakref.ref(owner), None)
            self._changed.notify_all()

    def _living(self) -> list["Isolated"]:
        owners = {reference: reference() for reference in self._owners}
        self._owners = {reference: None for reference, owner in owners.items() if owner is not None}
        return [owner for owner in owners.values() if owner is not None]

    def _evict(self) -> bool:
        for owner in self._living():
            if owner.end_if_idle():
                self._owners.pop(weakref.ref(owner), None)
                return True
        return False


class Isolated:
    """A template in a worker process. Threads may share it; their requests run one after the other."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def render(self, context: Mapping[str, Any], *, now: dt.datetime, allowance: Allowance) -> str:
        """Return the text for the variables in `context`, which must be JSON values, and reduce the allowance.

        Raises `RenderError`; `OperationError` if no process can be started.
        """
        kind, data = self._request({"context": context, "now": now.isoformat()}, allowance)
        if kind != PROMPT:
            raise RenderError("the worker process sent an unexpected response")
        return str(data, "utf-8")

    def names(self, allowance: Allowance) -> frozenset[str]:
        """Return `Renderer.names` of the template; empty if the template cannot be compiled."""
        try:
            kind, data = self._request({"context": None}, allowance)
            return frozenset(map(str, json.loads(bytes(data)))) if kind == NAMES else frozenset()
        except RenderError:
            return frozenset()

    def close(self) -> None:
        """End the worker process; the next request starts another."""
        with self._lock:
            self._end(patience=0)

    def end_if_idle(self) -> bool:
        """End the worker process unless a request is running; return whether it has ended."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            process, self._process = self._process, None
            self._reap(process, patience=0)
            return True
        finally:
            self._lock.release()

    def _request(self, request: dict[str, Any], allowance: Allowance) -> tuple[bytes, memoryview]:
        request["seconds"] = max(allowance.seconds, _LEAST)
        with self._lock:
            deadline = _PATIENCE * max(allowance.seconds, 1.0)
            try:
                kind, seconds, data = self._ask(request, deadline)
            finally:
                _WORKERS.used(self)
        allowance.seconds -= max(seconds, 0.0)
        if kind == FAILURE:
            failure = json.loads(bytes(data))
            refused, exhausted = bool(failure["refused"]), bool(failure["exhausted"])
            raise RenderError(str(failure["reason"]), refused=refused, exhausted=exhausted)
        return kind, data

    def _ask(self, request: dict[str, Any], patience: float) -> tuple[bytes, float, memoryview]:
        if self._process is not None and self._process.poll() is not None:  # it was killed while it was idle
            self._end(patience=0)
        process = self._process
        if process is None:
            process = self._start()
            request["template"] = self._source
        try:
            return _exchange(process, marshal.dumps(request), time.monotonic() + patience)
        except (OSError, EOFError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            status = self._end(patience=0 if late else 0.1)  # the exit status shows which limit ended it
            if late or -status in (signal.SIGPROF, signal.SIGXCPU):
                raise RenderError("it takes too long", exhausted=True) from None
            raise RenderError("it needs too much memory, or nests too deeply", exhausted=True) from None
        except BaseException:  # Ctrl-C: the next request must not read this response
            self._end(patience=0)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        _WORKERS.admit(self)
        paths = list(dict.fromkeys(map(_home_of, ("batuta_cli", "jinja2", "markupsafe"))))
        try:
            # -I: neither the environment nor the working directory decides what is imported.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START.format(paths=paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a traceback could quote messages
                cwd="/",
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                bufsize=0,
            )
        except OSError as error:
            _WORKERS.left(self)
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
        status = self._reap(process, patience=patience)
        _WORKERS.left(self)
        return status

    def _reap(self, process: "subprocess.Popen[bytes] | None", *, patience: float) -> int:
        if process is None:
            return 0
        if self._finalizer is not None:
            self._finalizer.detach()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        return _kill(process)


_WORKERS = _Workers()


def _kill(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    for stream in _pipes(process):
        with contextlib.suppress(OSError):
            stream.close()
    return process.wait()


def _exchange(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> tuple[bytes, float, memoryview]:
    """Send a request and read the response: kind, seconds and data. Raises `TimeoutError` at the deadline."""
    stdin, stdout = _pipes(process)
    limit = _RESPONSE + _GROWTH * len(data)
    head, body = memoryview(len(data).to_bytes(8, "big")), memoryview(data)
    received, at, length = memoryview(b""), 0, HEAD.size
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while at < length:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    sent = os.writev(key.fd, [head, body[:_PIECE]])
                    head, body = head[sent:], body[max(sent - len(head), 0) :]
                    if not body:
                        selector.unregister(stdin)
                    continue
                if at >= HEAD.size:  # the buffer has its final size, so that a large response is copied once
                    count = os.readv(key.fd, [received[at:]])
                else:
                    received = memoryview(bytes(received) + (piece := os.read(key.fd, _PIECE)))
                    count = len(piece)
                if not count:
                    raise EOFError
                if at < HEAD.size <= at + count:
                    length = 8 + int.from_bytes(received[:8], "big")
                    if not HEAD.size <= length <= limit:
                        raise EOFError
                    if len(received) < length:
                        whole = memoryview(bytearray(length))
                        whole[: len(received)] = received
                        received = whole
                at += count
    _, kind, seconds = HEAD.unpack_from(received)
    return kind, seconds, received[HEAD.size : length]


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    return cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)


def _home_of(package: str) -> str:
    """Return the directory that a package is imported from."""
    spec = cast(ModuleSpec, importlib.util.find_spec(package))
    return str(Path(cast(str, spec.origin)).parent.parent)
