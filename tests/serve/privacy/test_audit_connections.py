"""The connections in an audit log, and which of them left the machine."""

import datetime as dt
from pathlib import Path

import pytest

from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.audit_connections import LoggedConnection, logged_connections
from batuta_cli.serve.tiers import PrivacyTier

SOVEREIGN, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.STANDARD


def connection(address: str, *, allowed: bool = True) -> LoggedConnection:
    return LoggedConnection(
        time=dt.datetime.now(dt.UTC),
        request_id="r",
        tier=SOVEREIGN,
        backend="b",
        address=address,
        allowed=allowed,
        reason="",
    )


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:80", "unix:/run/llama.sock"]
)
def test_the_loopback_and_sockets_are_on_the_machine(address: str) -> None:
    assert not connection(address).left


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7:8080", "192.168.1.2:80", "1.2.3.4:443", "[fd00::1]:80", "[fe80::1%eth0]:80", "example.com:443"],
)
def test_every_other_address_left_it_also_in_the_own_network(address: str) -> None:
    assert connection(address).left
    assert not connection(address, allowed=False).left


def test_the_connections_of_a_tier_are_found_from_a_time_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(3):
        log.record(Decision(f"r{number}", SOVEREIGN, "llamacpp", "127.0.0.1:8080", True, "the loopback"))
    log.record(Decision("s", STANDARD, "groq", "1.2.3.4:443", True, "standard"))
    log.close()
    found = list(logged_connections([tmp_path], tier=SOVEREIGN))
    assert [each.request_id for each in found] == ["r0", "r1", "r2"]
    assert next(iter(logged_connections([tmp_path], tier=SOVEREIGN, since=found[1].time))).time >= found[1].time
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    assert list(logged_connections([tmp_path], tier=SOVEREIGN, since=tomorrow)) == []
    assert [each.left for each in logged_connections([tmp_path], tier=STANDARD)] == [True]
