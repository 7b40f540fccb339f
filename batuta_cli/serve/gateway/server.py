"""Runs the gateway: listening socket, HTTP server, signals, worker processes.

SIGHUP reloads the configuration, or ends the gateway when its terminal was closed. SIGTERM and SIGINT drain: new
requests get 503, `/ready` is 503, the port stays open, and requests in progress have `drain_seconds` to finish before
they end with an error. A second signal ends them at once. Workers are forked before any event loop exists and share the
listening socket. A worker that dies is replaced, one that does not end in time is killed, and none outlives its parent.
"""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batuta_cli.errors import BatutaError, OperationError, UsageError
from batuta_cli.faults import as_typed
from batuta_cli.files import display, os_error
from batuta_cli.serve.gateway import METRICS_DIRECTORY
from batuta_cli.serve.gateway.logs import Log, describe, format_line
from batuta_cli.serve.gateway.standard_error import StandardError

if TYPE_CHECKING:
    from batuta_cli.serve.gateway.app import Gateway

_RESTART_AFTER = 1.0  # seconds between starts of a worker that dies at once
_BACKLOG = 2048
_DRAIN_GRACE = 10.0
"""Seconds after `drain_seconds` in which a worker must have ended; then it gets SIGKILL."""
_OTHER_DESCRIPTORS = 200
"""Descriptors for everything but connections: logs, ledger, pipes, and connections that are refused."""

MakeGateway = Callable[[Log], "Gateway"]


@dataclass(kw_only=True, frozen=True)
class Hosting:
    """How the gateway is run."""

    workers: int = 1
    drain_seconds: float = 30.0
    client_seconds: float = 60.0
    connections: int = 1000
    """Largest number of connections of one process."""
    quiet: bool = False
    """Log only errors."""


def _signals() -> tuple[signal.Signals, ...]:
    """The signals that end the gateway, without those that are ignored."""
    candidates = (signal.SIGTERM, signal.SIGINT)
    return tuple(number for number in candidates if signal.getsignal(number) is not signal.SIG_IGN)


class _HangUp:
    """Tells the two meanings of SIGHUP apart: a closed terminal ends the gateway, all else reloads it.

    Use it before the first fork, and before SIGHUP gets a handler. nohup ignores SIGHUP, so it then only reloads.
    """

    def __init__(self) -> None:
        self._ends = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def ends(self) -> bool:
        """Whether the gateway's terminal has been closed."""
        return self._ends and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether all addresses of `host` are loopback addresses. Raises `UsageError` when it has no address."""
    addresses = [ipaddress.ip_address(str(row[4][0])) for row in _addresses(host, 0)]
    return all((getattr(a, "ipv4_mapped", None) or a).is_loopback for a in addresses)


def _addresses(host: str, port: int) -> Sequence[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(
            f"--host: {display(host)} has no address", hint="use an address of this machine, such as --host 127.0.0.1"
        ) from None


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `OperationError` when the port is in use or may not be used."""
    family, kind, protocol, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OperationError(
                f"port {port} of {display(host)} is in use", hint="choose another --port; --port 0 takes a free one"
            ) from None
        raise os_error(error, f"{host}:{port}") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of the listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(make: MakeGateway, listener: socket.socket, hosting: Hosting) -> int:
    """Serve until a signal ends the gateway; returns the signal's number. The log line `listening` marks the start.

    Raises the pipeline's error when it cannot be opened.
    """
    if hosting.workers > 1:
        return _Supervisor(make, listener, hosting).run()
    hang_up = _HangUp()
    with StandardError(quiet=hosting.quiet) as captured:

        def announce() -> None:
            captured.log.write("info", "listening", **_listening(listener))

        return _run(_serve(make(captured.log), captured, listener, hosting, announce, hang_up))


def _connection_limit(wanted: int) -> int:
    """The limit of connections for which there are enough descriptors: two each, for the client and for the backend.

    Raises the process's soft limit of descriptors to its hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - _OTHER_DESCRIPTORS) // 2))


def _listening(listener: socket.socket) -> dict[str, Any]:
    return {"url": url_of(listener), "process": os.getpid()}


def _run(main: Coroutine[Any, Any, int]) -> int:
    """Run in uvloop's event loop, which serves a third more requests per second than asyncio's own."""
    import uvloop

    return uvloop.run(main)


async def _serve(
    gateway: "Gateway",
    captured: StandardError,
    listener: socket.socket,
    hosting: Hosting,
    announce: Callable[[], None],
    hang_up: _HangUp,
    lifeline: int | None = None,
) -> int:
    """Serve in this process. `lifeline` is a pipe that is closed when the parent process has ended."""
    import uvicorn

    from batuta_cli.serve.gateway.protocol import limited_protocol

    class GatewayServer(uvicorn.Server):
        """uvicorn without its signal handlers, which raise the signal again at the end."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # Loaded modules stay. Scanning them in every collection would be a tenth of the work.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 20)  # a few hundred open requests hold that many live objects
            announce()

    config = uvicorn.Config(
        gateway,
        http=limited_protocol(
            hosting.client_seconds, _connection_limit(hosting.connections), gateway.connection_closed
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,  # the access check needs the peer's address
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = GatewayServer(config)
    loop = asyncio.get_running_loop()
    received: list[int] = []
    draining: list[asyncio.Task[None]] = []

    captured.follow(loop)

    async def drain() -> None:
        try:
            await gateway.drain(hosting.drain_seconds)
        finally:
            server.should_exit = True

    def stop(number: int) -> None:
        received.append(number)
        if draining:
            gateway.cut()
        else:
            draining.append(loop.create_task(drain()))

    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if hang_up.ends():
            stop(signal.SIGHUP)
        else:
            reloads.add(task := loop.create_task(gateway.reload()))
            task.add_done_callback(reloads.discard)

    for number in _signals():
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))  # a new worker has it blocked until here

    def orphaned(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        stop(signal.SIGTERM)

    if lifeline is not None:
        loop.add_reader(lifeline, orphaned, lifeline)
    try:
        await server.serve(sockets=[listener])
    except SystemExit:  # raised by uvicorn when the application did not start
        if gateway.startup_error is None:
            raise
        raise gateway.startup_error from None
    return received[0] if received else signal.SIGTERM


class _Supervisor:
    """Starts and replaces the workers. Signals are blocked and read with `sigwait`, so that none is lost."""

    def __init__(self, make: MakeGateway, listener: socket.socket, hosting: Hosting) -> None:
        self._make = make
        self._listener = listener
        self._hosting = hosting
        self._workers: dict[int, float] = {}
        """Start times by process id."""
        self._end_signals = _signals()
        self._awaited_signals = {*self._end_signals, signal.SIGHUP, signal.SIGCHLD}
        self._hang_up = _HangUp()
        self._reloaded = False
        """New workers must read the configuration again."""
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._ready: int | None = None
        """Pipe in which a worker reports whether it started."""

    def run(self) -> int:
        """Run until a signal; returns its number."""
        directory = tempfile.mkdtemp(prefix="batuta-metrics-")
        os.environ[METRICS_DIRECTORY] = directory
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._awaited_signals)
        try:
            self._start_all()
            if not self._hosting.quiet:  # not `Log`, whose thread would not survive a later fork
                os.write(2, format_line("info", "listening", _listening(self._listener)))
            return self._watch()
        finally:
            self._end()
            while signal.sigtimedwait(self._awaited_signals, 0):
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            del os.environ[METRICS_DIRECTORY]
            shutil.rmtree(directory, ignore_errors=True)

    def _start_all(self) -> None:
        """Start the workers and wait for their reports. Raises `OperationError` when one could not start."""
        ready, self._ready = os.pipe()
        for _ in range(self._hosting.workers):
            self._start()
        os.close(self._ready)
        self._ready = None
        with os.fdopen(ready) as lines:
            for _ in range(self._hosting.workers):
                failure = json.loads(lines.readline() or '{"message": "a worker died while it started", "hint": null}')
                if failure:
                    raise OperationError(failure["message"], hint=failure["hint"])

    def _start(self) -> None:
        process = os.fork()
        if process == 0:
            os._exit(self._work())
        self._workers[process] = time.monotonic()

    def _work(self) -> int:
        """Run a worker; returns its exit status."""
        os.close(self._lifeline_write)
        for number in self._awaited_signals:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._awaited_signals - {signal.SIGHUP})
        with StandardError(quiet=self._hosting.quiet) as captured:
            try:
                gateway = self._make(captured.log)
                if self._reloaded:
                    os.kill(os.getpid(), signal.SIGHUP)  # blocked until the gateway has its handler
                serving = _serve(
                    gateway, captured, self._listener, self._hosting, self._report, self._hang_up, self._lifeline_read
                )
                _run(serving)
            except BaseException as error:
                captured.log.write("error", "worker", process=os.getpid(), **describe(error))
                known = error if isinstance(error, BatutaError) else as_typed(error)
                message = known.message if known else f"a worker could not start: {type(error).__name__}"
                self._report({"message": message, "hint": known.hint if known else None})
                return 1
        return 0

    def _report(self, failure: dict[str, Any] | None = None) -> None:
        if self._ready is not None:
            os.write(self._ready, json.dumps(failure).encode() + b"\n")
            os.close(self._ready)
            self._ready = None

    def _watch(self) -> int:
        while True:
            number = signal.sigwait(self._awaited_signals)
            if number == signal.SIGHUP and not self._hang_up.ends():
                self._reloaded = True
                for process in self._workers:
                    os.kill(process, signal.SIGHUP)
            elif number != signal.SIGCHLD:
                return number
            for lifetime in self._reap():
                time.sleep(max(0.0, _RESTART_AFTER - lifetime))
                self._start()

    def _reap(self) -> list[float]:
        """Remove the workers that have ended; returns their lifetimes in seconds."""
        from prometheus_client import multiprocess

        lifetimes = []
        for process, started in tuple(self._workers.items()):
            if os.waitpid(process, os.WNOHANG) != (0, 0):
                del self._workers[process]
                multiprocess.mark_process_dead(process)  # type: ignore[no-untyped-call]
                lifetimes.append(time.monotonic() - started)
        return lifetimes

    def _end(self) -> None:
        """Let the workers drain. Further signals are passed on to them."""
        number: int = signal.SIGTERM
        deadline = time.monotonic() + self._hosting.drain_seconds + _DRAIN_GRACE
        while self._workers:
            if number not in (signal.SIGCHLD, signal.SIGHUP):
                for process in self._workers:
                    os.kill(process, signal.SIGTERM if number != signal.SIGKILL else number)
            self._reap()
            if self._workers:
                received = signal.sigtimedwait(self._awaited_signals, max(0.0, deadline - time.monotonic()))
                number = received.si_signo if received else signal.SIGKILL
                deadline = deadline if received else time.monotonic() + _DRAIN_GRACE
        os.close(self._lifeline_read)
        os.close(self._lifeline_write)
