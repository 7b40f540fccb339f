"""Aim: on one core the gateway answers at least 3,000 requests a second with budget, audit and metrics on, and adds
less than 1 ms at the median. Measured beside a direct call and a bare relay that only passes bytes on.

    python -m benchmarks.bench_gateway [--seconds 2] [--connections 1,16,64] [--runs 5] [--dir DIRECTORY] [--json]

Each server under test has the first core of the machine to itself; the load and the backend, which answers from memory,
share the others. A connection asks again as soon as it has its answer. "batuta, free" is a backend without a price,
"batuta, paid" one whose every request is reserved and settled in the ledger. vLLM's router and litellm's proxy take
part where `make bench-vllm-router` and `make bench-litellm` have installed them. Contestants take turns. The added time
is the difference of medians to the direct call within a round. --size is not used.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare import BenchmarkError, Report, Spread, benchmark, parser
from benchmarks.programs import Programs

_PATIENCE = 30.0  # seconds for a server to start

CONFIG = """
[budget]
daily_budget_usd = "1000000"
[router]
spillover_threshold = 10000
max_queue_depth = 10000
[backends.{name}]
base_url = "{url}/v1"
models = ["m"]
{key}
[models.m]
context_window = 100000
output_reserve = 1000
input_usd_per_million = "1"
output_usd_per_million = "2"
"""


@dataclass(frozen=True)
class Result:
    """One run."""

    rate: float
    """Requests a second, or events."""
    latencies: tuple[float, float]
    """Median and 99th percentile, in seconds."""
    seconds: float
    """How long the run took."""


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, latencies: list[float]) -> None:
        self._request, self._latencies = request, latencies
        self._data = b""
        self._end = -1
        self._began = 0.0
        self._stopping = False
        self._transport: Any = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping = True

    def _ask(self) -> None:
        self._data, self._end = b"", -1
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data = self._data[-7:] + data if self._end == -2 else self._data + data
        if self._end == -1:
            self._read_head()
        if (self._data.endswith(b"\r\n0\r\n\r\n")) if self._end == -2 else 0 <= self._end <= len(self._data):
            self._latencies.append(time.perf_counter() - self._began)
            if self._stopping:
                self._transport.close()
            else:
                self._ask()

    def _read_head(self) -> None:
        head, found, _ = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(BenchmarkError(f"a server answered: {self._data[:500]!r}"))
            self._transport.abort()
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        self._end = len(head) + 4 + int(length) if length else -2

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            if self._stopping:
                self.done.set_result(None)
            else:
                self.done.set_exception(BenchmarkError("a server closed the connection"))


async def load(port: int, *, streamed: bool, connections: int, seconds: float) -> list[float]:
    """Ask with so many connections at once; the seconds that each answer took."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 100}
    body = json.dumps(asked | {"stream": streamed}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(request, latencies), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.wait([caller.done for caller in callers], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for caller in callers:
        caller.stop()
    await asyncio.gather(*(caller.done for caller in callers))
    return latencies


def measure(port: int, *, streamed: bool, connections: int, options: argparse.Namespace) -> Result:
    """One run. Raises `BenchmarkError` for a response that is not a completion."""
    began = time.perf_counter()
    taken = asyncio.run(load(port, streamed=streamed, connections=connections, seconds=options.seconds))
    seconds = time.perf_counter() - began
    taken.sort()
    each = options.events if streamed else 1
    return Result(len(taken) * each / seconds, (taken[len(taken) // 2], taken[int(len(taken) * 0.99)]), seconds)


@contextlib.contextmanager
def server(arguments: Sequence[str], log: Path, cores: set[int], environment: dict[str, str]) -> Iterator[str]:
    """A server on some cores; its first line on stdout, or the port in the log of a gateway."""
    with open(log, "w+b") as errors:
        process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        os.sched_setaffinity(process.pid, cores)
        try:
            yield _port(process, log)
        finally:
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _port(process: "subprocess.Popen[bytes]", log: Path) -> str:
    assert process.stdout is not None
    if not (isinstance(process.args, list) and "gateway" in process.args):
        return process.stdout.readline().decode().strip()
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"event":"listening"' in line:
                return str(json.loads(line)["url"]).rpartition(":")[2]
        time.sleep(0.05)
    raise BenchmarkError(f"a gateway did not start: {log.read_text()[-2000:]}")


def gateway_environment(directory: Path, name: str, url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a separate home, configured for one backend."""
    home = directory / name
    (home / "config" / "batuta").mkdir(parents=True)
    key = 'api_key_env = "BENCH_KEY"' if name == "groq" else ""
    (home / "config" / "batuta" / "config.toml").write_text(CONFIG.format(name=name, url=url, key=key))
    places = {f"XDG_{what.upper()}_HOME": str(home / what) for what in ("config", "data", "state", "cache")}
    return dict(environment) | places | {"HOME": str(home), "BENCH_KEY": "none"}


PEERS = Path(__file__).resolve().parent.parent / ".venv"
"""Each peer has a separate virtual environment here."""


def free_port() -> int:
    """A port that no server uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def litellm_command(directory: Path, url: str, port: int) -> list[str]:
    """litellm's proxy before the backend at `url`, with one worker."""
    parameters = {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "none"}
    config = directory / "litellm.json"  # JSON is YAML
    config.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": parameters}]}))
    return ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]


def vllm_router_command(directory: Path, url: str, port: int) -> list[str]:
    """vLLM's router, written in Rust: one worker address, no budget, no audit log."""
    limits = ["--max-concurrent-requests", "10000", "--policy", "round_robin", "--log-level", "error"]
    places = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    return ["--worker-urls", url, *places, *limits]


PEER_COMMANDS = {"vllm-router": vllm_router_command, "litellm": litellm_command}


def start_peer(servers: contextlib.ExitStack, name: str, directory: Path, url: str, cores: set[int]) -> int | None:
    """Start a peer before the backend at `url`; returns its port, or None when it is not installed."""
    program = PEERS / name / "bin" / name
    if not program.exists():
        return None
    port = free_port()
    command = [str(program), *PEER_COMMANDS[name](directory, url, port)]
    path = directory / f"{name}.log"
    with open(path, "w+b") as log:
        unlocked = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # batuta needs no key here either
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ) | unlocked)
    os.sched_setaffinity(process.pid, cores)
    servers.callback(process.wait)
    servers.callback(process.terminate)
    end = time.monotonic() + 4 * _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, BenchmarkError):
            asyncio.run(load(port, streamed=False, connections=1, seconds=0))
            return port
        time.sleep(0.2)
    raise BenchmarkError(f"{name} did not start: {path.read_text()[-2000:]}")


def race(
    report: Report, ports: dict[str, int], options: argparse.Namespace, *, streamed: bool, connections: int
) -> None:
    """Let the servers take turns, and report medians and what each adds to a direct call."""
    samples: dict[str, list[Result]] = {name: [] for name in ports}
    for number in range(options.runs + 1):
        order = list(ports)
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            result = measure(ports[name], streamed=streamed, connections=connections, options=options)
            if number:
                samples[name].append(result)
    unit = "events/s" if streamed else "requests/s"
    title = f"{'streamed' if streamed else 'whole'}, {connections} connection{'s' * (connections > 1)}"
    table = report.section(title, streamed=streamed, connections=connections, servers=[])
    rows = []
    for name, series in samples.items():
        rate = Spread.of([s.rate for s in series])
        added = [
            Spread.of([s.latencies[k] - d.latencies[k] for s, d in zip(series, samples["direct"], strict=True)])
            for k in (0, 1)
        ]
        rows.append(
            [
                name,
                f"{rate.median:,.0f}",
                f"{rate.least:,.0f}-{rate.greatest:,.0f}",
                *("" if name == "direct" else f"{a.median * 1000:.2f}" for a in added),
            ]
        )
        entry = {
            "name": name,
            unit: rate.as_dict(),
            "added p50 s": added[0].as_dict(),
            "added p99 s": added[1].as_dict(),
        }
        table["servers"].append(entry)
    report.table(["", unit, "range", "added p50 ms", "added p99 ms"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser(__doc__, size="0")
    made.add_argument("--seconds", type=float, default=2.0, help="length of a run (default: 2)")
    made.add_argument("--connections", default="1,16,64", help="how many at once (default: 1,16,64)")
    made.add_argument("--events", type=int, default=200, help="events of a stream (default: 200)")
    options = made.parse_args(arguments)
    counts = [int(count) for count in options.connections.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    rest = set(cores[1:]) or set(cores)
    with benchmark("gateway", options) as (report, directory), contextlib.ExitStack() as servers:
        batuta = Programs(report, directory).batuta()
        os.sched_setaffinity(0, rest)
        script = [sys.executable, "-m", "benchmarks.http_servers"]
        own = dict(os.environ)

        def start(name: str, command: list[str], place: set[int], environment: dict[str, str]) -> int:
            return int(servers.enter_context(server(command, directory / f"{name}.log", place, environment)))

        backend = start("backend", [*script, "backend", "--events", str(options.events)], rest, own)
        url = f"http://127.0.0.1:{backend}"
        ports = {"direct": backend, "relay": start("relay", [*script, "relay", url], {cores[0]}, own)}
        for label, name in (("batuta, free", "llamacpp"), ("batuta, paid", "groq")):
            environment = gateway_environment(directory, name, url, batuta.environment)
            ports[label] = start(name, [str(batuta.path), "serve", "gateway", "--port", "0"], {cores[0]}, environment)
        for name in PEER_COMMANDS:
            port = start_peer(servers, name, directory, url, {cores[0]})
            if port is None:
                report.skip(name, f"not installed; `make bench-{name}` installs it")
            else:
                ports[name] = port
        for streamed in (False, True):
            for count in counts:
                race(report, ports, options, streamed=streamed, connections=count)


if __name__ == "__main__":
    main()
