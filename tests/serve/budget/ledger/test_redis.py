"""The Redis ledger over a real server: what happens when the server is away, wrong, slow, full, or not the same one.

That it keeps the rules of the other ledgers is tested in test_contract.py.
"""

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batuta_cli.config import RedisSection
from batuta_cli.errors import BatutaError, LedgerError, UsageError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import LEASE, Moment, ReservationRow, Use, open_ledger
from batuta_cli.serve.budget.ledger.redis import RedisLedger, RedisServer
from batuta_cli.serve.budget.ledger.redis_place import RedisPlace
from tests.redis_server import Redis, redis_server
from tests.serve.budget.ledger.support import START, at

NO_EPOCH_MATCHES = "the ledger that was kept here is gone"


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(one_server: Redis) -> Redis:
    with closing(one_server.client()) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return one_server


def ledger_of(server: Redis, place: Path, *, port: int | None = None, timeout: float = 5.0) -> RedisLedger:
    """A ledger whose clock is the test's."""
    reached = RedisServer(host="127.0.0.1", port=port or server.port, timeout=timeout)
    return RedisLedger(reached, RedisPlace("test", place), server_clock=False)


@pytest.fixture
def ledger(server: Redis, tmp_path: Path) -> Iterator[RedisLedger]:
    made = ledger_of(server, tmp_path)
    yield made
    made.close()


def hold(ledger: RedisLedger, id: str = "r", amount: int = 60, *, dispatched: bool = False) -> bool:
    return ledger.reserve(at(START), ReservationRow(id, amount, "me", "m", "B", dispatched), 1000)[0]


# --- another ledger than the one that is known


def test_a_flushed_redis_is_noticed_while_the_gateway_runs_and_is_no_fresh_budget(
    server: Redis, ledger: RedisLedger
) -> None:
    ledger.record(at(START), 900, Use())
    with closing(server.client()) as client:
        client.flushall()
    for attempt in (lambda: hold(ledger), lambda: ledger.day_status(at(START)), lambda: ledger.history(dt.date.min)):
        with pytest.raises(LedgerError, match=NO_EPOCH_MATCHES):
            attempt()
    with closing(server.client()) as client:
        assert client.dbsize() == 0


def test_a_gateway_that_has_only_read_the_budget_notices_too(
    server: Redis, ledger: RedisLedger, tmp_path: Path
) -> None:
    (tmp_path / "idle").mkdir()
    idle = ledger_of(server, tmp_path / "idle")
    assert idle.day_status(at(START)).spent == 0
    ledger.record(at(START), 900, Use())
    with closing(server.client()) as client:
        client.flushall()
    with pytest.raises(LedgerError, match=NO_EPOCH_MATCHES):
        hold(idle)


def test_a_redis_that_was_restarted_empty_is_noticed_by_a_new_process(
    server: Redis, ledger: RedisLedger, tmp_path: Path
) -> None:
    ledger.record(at(START), 900, Use())
    ledger.close()
    server.restart()
    again = ledger_of(server, tmp_path)
    with pytest.raises(LedgerError, match=NO_EPOCH_MATCHES) as caught:
        hold(again)
    assert "batuta serve budget reset" in str(caught.value.hint)
    again.reset(at(START))
    assert hold(again)


def test_another_ledger_in_its_place_is_noticed(server: Redis, ledger: RedisLedger, tmp_path: Path) -> None:
    ledger.record(at(START), 1, Use())
    with closing(server.client()) as client:
        client.flushall()
    (tmp_path / "other").mkdir()
    ledger_of(server, tmp_path / "other").record(at(START), 1, Use())
    with pytest.raises(LedgerError, match="another ledger is in the place"):
        hold(ledger)


def test_lost_writes_are_noticed_by_the_counter_and_by_later_processes_too(
    server: Redis, ledger: RedisLedger, tmp_path: Path
) -> None:
    """As after a failover to a replica that was behind: the copy that is put back lacks the last writes."""
    ledger.record(at(START), 1, Use())
    with closing(server.client()) as client:
        copy = {key: client.dump(key) or b"" for key in client.scan_iter()}
        ledger.record(at(START), 900, Use())
        ledger.close()
        client.flushall()
        for key, value in copy.items():
            client.restore(key, 0, value)
    for each in (ledger, ledger_of(server, tmp_path)):
        with pytest.raises(LedgerError, match="has lost writes"):
            hold(each)
    ledger.reset(at(START))
    assert hold(ledger)
    assert hold(ledger_of(server, tmp_path), "another")


def test_a_second_host_that_never_saw_the_ledger_joins_it(server: Redis, ledger: RedisLedger, tmp_path: Path) -> None:
    ledger.record(at(START), 900, Use())
    (tmp_path / "b").mkdir()
    other = ledger_of(server, tmp_path / "b")
    assert other.day_status(at(START)).spent == 900
    assert not other.reserve(at(START), ReservationRow("r", 101, "b"), 1000)[0]


# --- a server that cannot be used


def test_a_server_that_is_away_refuses_and_comes_back(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        ledger = ledger_of(server, tmp_path)
        ledger.record(at(START), 900, Use())
        server.stop()
        with pytest.raises(LedgerError, match="cannot reach Redis"):
            hold(ledger)
        server.process = server._start()
        assert ledger.day_status(at(START)).spent == 900
        assert not hold(ledger, amount=101)


def test_a_server_that_does_not_answer_in_time_refuses(server: Redis, tmp_path: Path) -> None:
    ledger = ledger_of(server, tmp_path, timeout=0.2)
    ledger.record(at(START), 1, Use())
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerError, match=r"did not answer within 0\.2 s"):
            hold(ledger)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_read_only_replica_refuses_even_to_show_the_budget(server: Redis, tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    ledger_of(server, tmp_path).record(at(START), 1, Use())
    with redis_server(tmp_path / "replica") as replica, closing(replica.client()) as client:
        client.replicaof("127.0.0.1", server.port)
        while client.info("replication")["master_link_status"] != "up":
            os.sched_yield()
        with pytest.raises(LedgerError, match="read-only replica"):
            ledger_of(replica, tmp_path / "replica").day_status(at(START))


def test_a_full_server_refuses(server: Redis, ledger: RedisLedger) -> None:
    assert hold(ledger)
    with closing(server.client()) as client:
        client.config_set("maxmemory", 1)
    with pytest.raises(LedgerError, match="Redis is full"):
        hold(ledger, "other")


def test_a_password_comes_from_a_variable_and_a_wrong_one_is_told_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with redis_server(tmp_path) as server, closing(server.client()) as client:
        client.config_set("requirepass", "right-7f3a")
        url = f"redis://127.0.0.1:{server.port}/3"
        now = Moment(0, dt.date.today())
        monkeypatch.setenv("REDIS_PASSWORD", "right-7f3a")
        section = RedisSection(password_env="REDIS_PASSWORD")
        assert open_ledger(url, redis=section).record(now, 1, Use()).spent == 1
        monkeypatch.setenv("REDIS_PASSWORD", "wrong-91bc")
        with pytest.raises(LedgerError, match="refused the password") as caught:
            open_ledger(url, redis=section).record(now, 1, Use())
        assert "91bc" not in f"{caught.value} {caught.value.hint}"
        with pytest.raises(LedgerError, match="refused the password, or wants one"):
            open_ledger(url).record(now, 1, Use())
        monkeypatch.delenv("REDIS_PASSWORD")
        with pytest.raises(UsageError, match="REDIS_PASSWORD, which is not set"):
            open_ledger(url, redis=section)


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    subject, names = "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command, subject, "-addext", names, *files], check=True, capture_output=True)
    with redis_server(tmp_path) as server, closing(server.client()) as client:
        from tests.redis_server import free_port

        port = free_port()
        for name, value in (
            ("tls-cert-file", tmp_path / "cert.pem"),
            ("tls-key-file", tmp_path / "key.pem"),
            ("tls-auth-clients", "no"),
            ("tls-port", port),
        ):
            client.config_set(name, str(value))
        url, now = f"rediss://127.0.0.1:{port}/0", Moment(0, dt.date.today())
        trusted = RedisSection(ca_file=str(tmp_path / "cert.pem"))
        assert open_ledger(url, redis=trusted).record(now, 1, Use()).spent == 1
        with pytest.raises(LedgerError, match="cannot reach Redis"):
            open_ledger(url).record(now, 1, Use())


# --- the clock


def test_the_clock_is_the_server_s_and_not_the_host_s(server: Redis, tmp_path: Path) -> None:
    ledger = RedisLedger(server.server, RedisPlace("test", tmp_path))
    for wrong in (0, START):  # a host whose clock stands in 1970, and one in 2028
        status = ledger.record(Moment(wrong, dt.date(1970, 1, 1)), 1, Use())
        assert abs((status.day - dt.datetime.now(dt.UTC).date()).days) <= 1
    assert ledger.day_status(Moment(0, dt.date(1970, 1, 1))).spent == 2


def test_days_begin_at_midnight_in_the_ledger_s_zone(server: Redis, tmp_path: Path) -> None:
    ledger = ledger_of(server, tmp_path)
    evening = int(dt.datetime(2028, 2, 28, 22, 59, 59, tzinfo=dt.UTC).timestamp() * 1000)
    zone = "Europe/Berlin"
    assert ledger.record(Moment(evening, dt.date(2028, 2, 28), zone), 1, Use()).day == dt.date(2028, 2, 28)
    later = ledger.record(Moment(evening + 1000, dt.date(2028, 2, 29), zone), 1, Use())
    assert (later.day, later.spent) == (dt.date(2028, 2, 29), 1)


# --- responses that are lost


class Cutter:
    """A proxy before Redis that passes requests on, and loses the response to some of them."""

    def __init__(self, port: int) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.target = port
        self.cut = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            while data := client.recv(1 << 16):
                server.sendall(data)
                response = server.recv(1 << 16)
                if self.cut and self.cut in data:
                    return
                client.sendall(response)


@pytest.fixture
def cutter(server: Redis) -> Iterator[Cutter]:
    proxy = Cutter(server.port)
    yield proxy
    proxy.listening.close()


def test_a_reservation_whose_response_was_lost_is_released_with_the_next_step(
    server: Redis, tmp_path: Path, cutter: Cutter
) -> None:
    ledger = ledger_of(server, tmp_path, port=cutter.port)
    ledger.record(at(START), 1, Use())
    cutter.cut = b"reserve"
    with pytest.raises(LedgerError, match="cannot reach Redis"):
        hold(ledger, dispatched=True)
    watching = ledger_of(server, tmp_path)
    assert watching.day_status(at(START)).reserved == 60  # it was made although its caller saw an error
    cutter.cut = b""
    ledger.record(at(START), 1, Use())
    found = watching.day_status(at(START))
    assert (found.spent, found.reserved) == (2, 0)
    assert watching.day_status(at(START + LEASE)).spent == 2  # and does not expire into a charge


def test_a_settlement_whose_response_was_lost_is_charged_once(server: Redis, tmp_path: Path, cutter: Cutter) -> None:
    config = CircuitBreakerConfig(daily_budget_usd="1")
    ledger = ledger_of(server, tmp_path, port=cutter.port)
    breaker = CostCircuitBreaker(config, ledger, now=lambda: START / 1000)
    reservation = breaker.reserve("0.5", model="m", dispatched=True)
    cutter.cut = b"settle"
    with pytest.raises(LedgerError):
        reservation.settle("0.4")
    cutter.cut = b""
    reservation.settle("0.4")
    found = breaker.status()
    assert (found.spent, found.reserved) == (400_000_000, 0)
    assert [(line.requests, line.cost) for line in ledger.history(dt.date.min)] == [(1, 400_000_000)]


# --- many processes

WORKER = """
import sys
from batuta_cli.errors import DailyBudgetExceeded
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import open_ledger

breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="1"), open_ledger(sys.argv[1]))
paid = 0
for _ in range(400):
    try:
        reservation = breaker.reserve("0.01", model="m", dispatched=True)
    except DailyBudgetExceeded:
        continue
    reservation.settle("0.003")
    paid += 3_000_000
print(paid)
"""


def test_processes_with_own_memories_spend_one_budget_to_the_nano_dollar(
    server: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://127.0.0.1:{server.port}/1"
    hosts = [os.environ | {"XDG_STATE_HOME": str(tmp_path / str(number))} for number in range(4)]
    running = [
        subprocess.Popen([sys.executable, "-c", WORKER, url], env=host, stdout=subprocess.PIPE, text=True)
        for host in hosts
    ]
    paid = sum(int(process.communicate()[0]) for process in running)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "0"))
    found = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="1"), open_ledger(url)).status()
    assert (found.spent, found.reserved) == (paid, 0)
    assert 990_000_000 < paid <= 1_000_000_000


def test_a_killed_process_loses_no_reservation_for_ever(server: Redis, tmp_path: Path) -> None:
    ledger = ledger_of(server, tmp_path)
    assert hold(ledger, "sent", 60, dispatched=True) and hold(ledger, "unsent", 40)
    survivor = ledger_of(server, tmp_path)
    found = survivor.day_status(at(START + LEASE))
    assert (found.spent, found.reserved) == (60, 0)
    assert survivor.reserve(at(START + LEASE), ReservationRow("next", 1, "other"), 1000)[0]
    with closing(server.client()) as client:
        assert client.hkeys("{batuta}:ledger:reservations") == [b"next"]


def test_a_step_is_one_script_on_keys_of_one_slot(server: Redis, ledger: RedisLedger) -> None:
    hold(ledger)
    with closing(server.client()) as client:
        keys = [bytes(key).decode() for key in client.scan_iter()]
        assert keys and all(key.startswith("{batuta}:") for key in keys)
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        ledger.settle(at(START), "r", 1, Use())
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


def test_amounts_above_2_53_are_refused_because_lua_would_round_them(ledger: RedisLedger) -> None:
    ledger.record(at(START), 2**53 - 2, Use())
    assert ledger.day_status(at(START)).spent == 2**53 - 2
    for amount in (2, 2**53):
        with pytest.raises(LedgerError):
            ledger.record(at(START), amount, Use())
    assert ledger.day_status(at(START)).spent == 2**53 - 2


@pytest.mark.parametrize(
    "url", ["redis://", "redis://h:0", "redis://h:70000", "redis://h/x", "redis://h?db=1", "redis:"]
)
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(BatutaError) as caught:
        open_ledger(url)
    assert caught.value.exit_code == 2
