"""Two gateways in two network namespaces with one Redis: one budget, whatever happens to one of them.

The namespaces are hosts with addresses of their own on one bridge; Redis and a paid model server are on a third.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unpacked import libraries

IP = shutil.which("ip") or "/usr/sbin/ip"
CORE, BACKEND_PORT, REDIS_PORT, GATEWAY_PORT = "10.99.0.1", 9000, 6379, 8484
DAY_USD, COST, BOUND = 2_000_000, 20_000, 300_000  # nano-dollars: of a day, of one answer, and at most reserved for one
PATIENCE = 60.0  # seconds until a test gives up; nothing is measured by it

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(IP), reason="network namespaces need root and iproute2"
)


def ip(*arguments: str) -> None:
    subprocess.run([IP, *arguments], check=True, capture_output=True)


class Host:
    """A network namespace with one address on the bridge."""

    def __init__(self, name: str, address: str, home: Path) -> None:
        self.name, self.address, self.home = name, address, home

    def run(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            **options.pop("env", {}),
        }
        return subprocess.Popen(
            [IP, "netns", "exec", self.name, *command], env=environment, text=True, start_new_session=True, **options
        )

    def link(self, state: str) -> None:
        """Connect or disconnect it."""
        ip("-n", self.name, "link", "set", "eth0", state)


class Fleet:
    """Redis and the backend on one host, and two hosts with a gateway each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        tag = f"bt{os.getpid() % 10_000}"
        self.core = self._host(f"{tag}c", CORE)
        self.hosts = [self._host(f"{tag}{letter}", f"10.99.0.{n}") for n, letter in ((2, "a"), (3, "b"))]
        ip("-n", self.core.name, "link", "add", "br0", "type", "bridge")
        ip("-n", self.core.name, "addr", "add", f"{CORE}/24", "dev", "br0")
        ip("-n", self.core.name, "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts):
            ip("-n", self.core.name, "link", "add", f"v{number}", "type", "veth", "peer", "eth0", "netns", host.name)
            ip("-n", self.core.name, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            host.link("up")
        self.served_file = folder / "served"
        self.served_file.touch()
        redis = ["redis-server", "--bind", CORE, "--protected-mode", "no", "--save", "", "--dir", str(folder)]
        self.redis = self.start(self.core, *redis, env=libraries("redis-server"), stdout=subprocess.DEVNULL)
        script = [sys.executable, "-m", "tests.real.support_fleet"]
        arguments = ["backend", CORE, str(BACKEND_PORT), str(self.served_file)]
        self.backend = self.start(self.core, *script, *arguments, stdin=subprocess.PIPE)
        self.gateways = [self.gateway(host) for host in self.hosts]

    def _host(self, name: str, address: str) -> Host:
        ip("netns", "add", name)
        self._stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
        home = self.folder / name
        home.mkdir()
        config = home / ".config/batuta/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            f"""
[budget]
daily_budget_usd = "0.002"
ledger = "redis://{CORE}:{REDIS_PORT}/0"
reservation_wait = 60
[privacy]
tier = "standard"
[backends.core]
profile = "vllm"
base_url = "http://{CORE}:{BACKEND_PORT}/v1"
models = ["m"]
[models.m]
context_window = 100000
output_reserve = 64
input_usd_per_million = 1
output_usd_per_million = 1
"""
        )
        config.chmod(0o600)
        return Host(name, address, home)

    def start(self, host: Host, *command: str, **options: Any) -> "subprocess.Popen[str]":
        process = host.run(*command, **options)
        self._stack.callback(self.kill, process)
        return process

    @staticmethod
    def kill(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def gateway(self, host: Host) -> "subprocess.Popen[str]":
        """A gateway that is ready: it takes paid requests."""
        with open(host.home / "gateway.log", "ab") as log:
            process = self.start(host, "batuta", "serve", "gateway", stderr=log)
        while self.ask(host, "/ready") != 200:
            assert process.poll() is None, (host.home / "gateway.log").read_text()
        return process

    def ask(self, host: Host, path: str) -> int:
        """The status of a GET request to a host's gateway, 0 for none."""
        code = (
            "import http.client,sys\nc=http.client.HTTPConnection('127.0.0.1',8484,timeout=10)\n"
            f"c.request('GET',{path!r})\nprint(c.getresponse().status)"
        )
        done = host.run(sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        out, _ = done.communicate(timeout=PATIENCE)
        return int(out or 0)

    def clients(self, host: Host, count: int, name: str) -> "subprocess.Popen[str]":
        """Clients on a host, which ask its gateway at once."""
        command = [sys.executable, "-m", "tests.real.support_fleet", "clients", str(GATEWAY_PORT), str(count), name]
        return self.start(host, *command, stdout=subprocess.PIPE)

    def results(self, process: "subprocess.Popen[str]") -> list[tuple[str, int, str | None]]:
        assert process.stdout is not None
        return [tuple(row) for row in json.loads(process.stdout.read())]

    def served(self) -> list[str]:
        """The texts of the requests that the backend has answered."""
        return self.served_file.read_text().split()

    def status(self, host: Host) -> dict[str, Any]:
        """`serve budget status` on a host."""
        done = host.run("batuta", "serve", "budget", "status", "--json", stdout=subprocess.PIPE)
        out, _ = done.communicate(timeout=PATIENCE)
        document: dict[str, Any] = json.loads(out)
        return document


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


@contextmanager
def disconnected(host: Host) -> Iterator[None]:
    host.link("down")
    try:
        yield
    finally:
        host.link("up")


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9])


def test_two_hundred_clients_of_two_gateways_spend_one_budget_and_what_it_can_pay_is_served(fleet: Fleet) -> None:
    running = [fleet.clients(host, 100, name) for host, name in zip(fleet.hosts, "ab", strict=True)]
    rows = [row for process in running for row in fleet.results(process)]
    statuses = Counter(status for _, status, _ in rows)
    assert set(statuses) <= {200, 402, 429}, statuses
    spent = fleet.status(fleet.hosts[0])["result"]
    assert nano(spent["spent_usd"]) == statuses[200] * COST <= DAY_USD
    assert nano(spent["reserved_usd"]) == 0
    assert statuses[200] >= (DAY_USD - BOUND) // COST
    answered = [text for text, status, _ in rows if status == 200]
    assert sorted(fleet.served()) == sorted(answered)  # none answered twice, none paid and not delivered


def test_a_gateway_that_is_cut_off_refuses_paid_requests_and_the_other_goes_on(fleet: Fleet) -> None:
    cut_off, other = fleet.hosts
    with disconnected(cut_off):
        refused = fleet.results(fleet.clients(cut_off, 3, "cut"))
        assert all(status in (500, 502, 503, 429) for _, status, _ in refused), refused
        assert [status for _, status, _ in fleet.results(fleet.clients(other, 3, "other"))] == [200] * 3
    assert nano(fleet.status(other)["result"]["spent_usd"]) == 3 * COST
    deadline = time.monotonic() + PATIENCE
    while fleet.results(fleet.clients(cut_off, 1, "again"))[0][1] != 200:
        assert time.monotonic() < deadline, "the gateway did not come back"


def test_a_killed_gateway_leaves_a_reservation_that_the_others_see_and_no_fresh_money(fleet: Fleet) -> None:
    host, other = fleet.hosts
    code = (
        "import http.client,json\nc=http.client.HTTPConnection('127.0.0.1',8484,timeout=60)\n"
        "c.request('POST','/v1/chat/completions',json.dumps({'model':'m','max_tokens':100,'stream':True,"
        "'messages':[{'role':'user','content':'stream'}]}),{'content-type':'application/json'})\n"
        "r=c.getresponse()\nprint(r.read1(65536),flush=True)\nr.read()"
    )
    client = fleet.start(host, sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    client.stdout.readline()  # the first event: the answer is on its way
    fleet.kill(fleet.gateways[0])
    found = fleet.status(other)["result"]
    assert nano(found["reserved_usd"]) > 0
    assert [status for _, status, _ in fleet.results(fleet.clients(other, 2, "other"))] == [200] * 2


def test_a_rolling_restart_ends_open_streams_and_loses_no_money(fleet: Fleet) -> None:
    host, other = fleet.hosts
    code = (
        "import http.client,json\nc=http.client.HTTPConnection('127.0.0.1',8484,timeout=60)\n"
        "c.request('POST','/v1/chat/completions',json.dumps({'model':'m','max_tokens':100,'stream':True,"
        "'messages':[{'role':'user','content':'stream'}]}),{'content-type':'application/json'})\n"
        "r=c.getresponse()\nprint(r.read1(65536),flush=True)\nprint(r.read().decode().replace('\\n',' '))"
    )
    client = fleet.start(host, sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert client.stdout is not None and fleet.backend.stdin is not None
    client.stdout.readline()
    os.killpg(fleet.gateways[0].pid, signal.SIGTERM)
    assert [status for _, status, _ in fleet.results(fleet.clients(other, 2, "other"))] == [200] * 2
    fleet.backend.stdin.write("\n")
    fleet.backend.stdin.flush()
    rest = client.stdout.read()
    assert "three" in rest and "[DONE]" in rest
    fleet.gateways[0].wait(PATIENCE)
    fleet.gateway(host)
    assert [status for _, status, _ in fleet.results(fleet.clients(host, 1, "back"))] == [200]
    found = fleet.status(host)["result"]
    assert (nano(found["spent_usd"]), nano(found["reserved_usd"])) == (4 * COST, 0)


def test_a_flushed_redis_stops_both_gateways_until_an_operator_repairs_it(fleet: Fleet) -> None:
    assert [status for _, status, _ in fleet.results(fleet.clients(fleet.hosts[0], 2, "a"))] == [200] * 2
    flush = ["redis-cli", "-h", CORE, "flushall"]
    assert fleet.core.run(*flush, env=libraries("redis-cli"), stdout=subprocess.DEVNULL).wait() == 0
    for host in fleet.hosts:
        assert fleet.results(fleet.clients(host, 1, "flushed"))[0][1] >= 500
        document = fleet.status(host)
        assert "the ledger that was kept here is gone" in document["error"]["message"]
    assert len(fleet.served()) == 2
