"""`batuta serve gateway`: how it starts, refuses to start, works with several processes, and ends."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.serve.gateway import keys
from tests.conftest import Run
from tests.serve.gateway.live import ROOT, Control, Live, live
from tests.serve.gateway.support import CHAT, chat
from tests.serve.support_server import free_port


def test_it_tells_its_address_answers_and_ends_well(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", gateway.url)
        status, _, body = gateway.ask(CHAT, chat(text="hello"))
        assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "hello")
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0
        assert gateway.process.stdout is not None
        assert gateway.process.stdout.read() == b""
        assert not any("Traceback" in line for line in gateway.lines)


def test_ctrl_c_ends_it_as_interrupted(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        gateway.send(signal.SIGINT)
        assert gateway.end() == 130
        assert not any("Traceback" in line for line in gateway.lines)


def until_served(gateway: Live, port: int) -> None:
    """For a gateway that does not say when it is ready."""
    gateway.url = f"http://127.0.0.1:{port}"
    while True:
        try:
            assert gateway.ask("/health")[0] == 200
            return
        except ConnectionRefusedError:
            assert gateway.process.poll() is None


def test_json_is_one_document_at_the_end(environment: dict[str, str]) -> None:
    port = free_port()
    with live(environment, "--json", "--port", str(port), wait=False) as gateway:
        until_served(gateway, port)
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0
        assert gateway.process.stdout is not None
        document = json.loads(gateway.process.stdout.read())
    assert document["result"] == {"url": f"http://127.0.0.1:{port}", "ended_by": "SIGTERM"}


def test_quiet_logs_errors_alone(environment: dict[str, str]) -> None:
    with live(environment) as loud:
        loud.ask(CHAT, chat())
        assert loud.await_request()["status"] == 200
    port = free_port()
    with live(environment, "--quiet", "--port", str(port), wait=False) as gateway:
        until_served(gateway, port)
        gateway.ask(CHAT, chat("internal"))
        assert gateway.await_request()["status"] == 500
        assert len(gateway.lines) == 1


def test_a_port_in_use_is_told(batuta: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = batuta("serve", "gateway", "--port", str(port), code=1)
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr.partition("hint:")[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[gateway]\nprot = 8080\n", "did you mean port"),
        ("[gateway]\nport = 70000\n", "must be a whole number from 0 to 65535"),
        ('[gateway]\norigins = ["localhost:3000"]\n', "origins"),
        ('[gateway]\norigins = ["http://localhost:3000/"]\n', "origins"),
        ('[gateway]\norigins = ["*"]\n', "origins"),
        ('[gateway]\norigins = ["http://*.example"]\n', "origins"),
        ('[gateway]\norigins = ["http://Example.org"]\n', "origins"),
        ('[gateway]\norigins = ["https://example.org:443"]\n', "the default port"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(batuta: Run, home: Path, config: str, message: str) -> None:
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(config)
    done = batuta("serve", "gateway", code=2)
    assert message in done.stderr
    assert "config.toml:2" in done.stderr


EVERYWHERE = "0.0.0.0"  # noqa: S104 - that is the point


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
def test_beyond_the_loopback_it_starts_only_with_a_key(
    batuta: Run, environment: dict[str, str], home: Path, host: str
) -> None:
    done = batuta("serve", "gateway", "--host", host, "--port", "0", code=2)
    assert "batuta serve keys create" in done.stderr
    file = home / "data" / "batuta" / "gateway" / "keys.toml"
    key, _ = keys.create("phone", file)
    keys.revoke("phone", file)
    batuta("serve", "gateway", "--host", host, "--port", "0", code=2)
    key, _ = keys.create("phone", file)
    if host == "::" and not socket.has_ipv6:
        return
    with live(environment, "--host", host) as gateway:
        gateway.url = gateway.url.replace(EVERYWHERE, "127.0.0.1").replace("[::]", "[::1]")
        assert gateway.ask(CHAT, chat())[0] == 401
        assert gateway.ask("/metrics")[0] == 401
        assert gateway.ask(CHAT, chat(), headers={"Authorization": f"Bearer {key}", "Host": "gw.example"})[0] == 200


@pytest.mark.parametrize("removed", ["file", "directory"])
def test_a_removed_list_of_keys_refuses_under_a_running_gateway_and_after_a_restart(
    environment: dict[str, str], batuta: Run, home: Path, removed: str
) -> None:
    key = batuta("serve", "keys", "create", "laptop", code=0).stdout.strip()
    file = home / "data" / "batuta" / "gateway" / "keys.toml"
    bearer = {"Authorization": f"Bearer {key}"}
    nothing: dict[str, str] = {}
    with live(environment) as gateway:
        assert [gateway.ask("/v1/models")[0], gateway.ask("/v1/models", headers=bearer)[0]] == [401, 200]
        if removed == "file":
            file.unlink()
        else:
            shutil.rmtree(file.parent)
        for headers in (nothing, bearer):
            status, _, body = gateway.ask("/v1/models", headers=headers)
            assert (status, json.loads(body)["error"]["code"]) == (503, "client_keys")
        assert gateway.ask("/health")[0] == 200
    done = batuta("serve", "gateway", "--port", "0", code=1)
    assert "the list of client keys is missing" in done.stderr
    assert "batuta serve keys create" in done.stderr
    assert "missing" in batuta("serve", "keys", "list", code=1).stderr
    other = batuta("serve", "keys", "create", "laptop", code=0).stdout.strip()
    with live(environment) as gateway:
        asked = (nothing, bearer, {"Authorization": f"Bearer {other}"})
        assert [gateway.ask("/v1/models", headers=headers)[0] for headers in asked] == [401, 401, 200]
        batuta("serve", "keys", "revoke", "laptop", code=0)
        assert [gateway.ask("/v1/models", headers=headers)[0] for headers in asked] == [401, 401, 401]


def test_an_unknown_host_is_told(batuta: Run) -> None:
    assert "has no address" in batuta("serve", "gateway", "--host", "no-such-host.invalid", code=2).stderr


def test_the_environment_and_the_flags_override_the_file(environment: dict[str, str]) -> None:
    with live(environment, "--workers", "1", env={"BATUTA_GATEWAY_WORKERS": "3"}) as gateway:
        assert children(gateway) == []
        assert gateway.ask("/health")[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_ledger_that_cannot_be_opened_is_told(environment: dict[str, str], workers: str) -> None:
    with live(environment, "--workers", workers, env={"CANNOT_OPEN": "1"}, wait=False) as gateway:
        assert gateway.end() == 1
        gateway.await_line("error: /var/lib/ledger: cannot be opened")
        gateway.await_line("hint: mend it")
        assert not any("Traceback" in line for line in gateway.lines)


def test_a_missing_dependency_comes_with_the_line_that_brings_it(environment: dict[str, str]) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from batuta_cli.cli.app import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "gateway"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'batuta-cli[serve]'" in done.stderr


def children(gateway: Live) -> list[int]:
    text = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text()
    return [int(number) for number in text.split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(process: int) -> None:
    descriptor = os.pidfd_open(process)
    try:
        assert select.select([descriptor], [], [], 30)[0]
    finally:
        os.close(descriptor)


def test_workers_share_the_port_and_their_metrics_and_end_together(environment: dict[str, str], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with live(environment, "--workers", "2", env={"TMPDIR": str(scratch)}) as gateway:
        workers = children(gateway)
        assert len(workers) == 2
        for _ in range(20):
            assert gateway.ask(CHAT, chat())[0] == 200
            gateway.await_request()  # counted after the client has its answer, before the log has its line
        text = gateway.ask("/metrics")[2].decode()
        assert f'batuta_requests_total{{route="{CHAT}",status="200"}} 20.0' in text
        assert 'batuta_budget_usd{part="limit"} 10.0' in text
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0
        assert not any(map(alive, workers))
        assert list(scratch.iterdir()) == []


def test_a_worker_that_dies_is_replaced(environment: dict[str, str]) -> None:
    with live(environment, "--workers", "2") as gateway:
        before = children(gateway)
        os.kill(before[0], signal.SIGKILL)
        while len(now := [c for c in children(gateway) if alive(c)]) < 2 or before[0] in now:
            assert gateway.process.poll() is None
        for _ in range(10):
            assert gateway.ask(CHAT, chat())[0] == 200
        gateway.send(signal.SIGINT)
        assert gateway.end() == 130
        assert not any(map(alive, now))


def test_no_worker_outlives_its_parent(environment: dict[str, str]) -> None:
    with live(environment, "--workers", "2") as gateway:
        workers = children(gateway)
        os.kill(gateway.process.pid, signal.SIGKILL)
        for worker in workers:
            if alive(worker):
                wait_until_gone(worker)
        with pytest.raises(ConnectionRefusedError):
            gateway.ask("/health")


def test_the_limits_of_a_key_hold_for_all_workers_together(
    environment: dict[str, str], batuta: Run, home: Path
) -> None:
    limited = batuta("serve", "keys", "create", "ci", "--requests-per-minute", "12", code=0).stdout.strip()
    with Control() as control, live(environment, "--workers", "3", control=control) as gateway:
        header = {"x-api-key": limited}
        statuses = [gateway.ask(CHAT, chat(), header)[0] for _ in range(30)]
        assert statuses.count(200) in (12, 13)  # one more when five seconds have passed
        assert set(statuses) == {200, 429}
