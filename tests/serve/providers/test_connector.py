"""The gate of connections: which addresses are asked for, tried and used again."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import AuditError, PrivacyError
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.providers.support_connect import (
    PRIVATE,
    SOVEREIGN,
    STANDARD,
    Resolver,
    decisions,
    get,
    no_connection,
)
from tests.serve.support_server import FakeServer, Reply, serving

OK: dict[str, Reply] = {"/": (200, {}, b"hello")}
OFFICE = Networks((ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16")))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(OK) as fake:
        yield fake


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit")


@pytest.mark.parametrize("tier", [SOVEREIGN, PRIVATE])
def test_a_host_name_is_not_even_asked_of_a_resolver(
    tier: PrivacyTier, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    with pytest.raises(PrivacyError, match=r"does not admit api\.groq\.com") as caught:
        get(tier, log, "https://api.groq.com/openai/v1/models")
    assert caught.value.exit_code == 6
    assert resolver.asked == []
    (refused,) = decisions(log)
    assert (refused["decision"], refused["address"]) == ("refused", "api.groq.com")


def test_under_standard_a_host_name_is_resolved(
    server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    assert get(STANDARD, log, f"http://llm.example:{server.port}/") == [(200, b"hello")]
    assert resolver.asked == ["llm.example"]


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost."])
def test_localhost_needs_no_resolver(
    name: str, server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, ["203.0.113.7"])
    for tier in PrivacyTier:
        assert get(tier, log, f"http://{name}:{server.port}/") == [(200, b"hello")]
    assert resolver.asked == []


def test_a_name_that_moves_to_another_address_is_refused(
    server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"], ["203.0.113.7"], ["127.0.0.1"])
    url = f"http://llm.office.example:{server.port}/"
    assert get(SOVEREIGN, log, url, networks=OFFICE) == [(200, b"hello")]
    with pytest.raises(PrivacyError, match=r"203\.0\.113\.7"):
        get(SOVEREIGN, log, url, networks=OFFICE)
    assert resolver.asked == ["llm.office.example"] * 2
    assert server.connections == 1


def test_an_answer_of_the_resolver_counts_for_one_connection(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"], ["203.0.113.7"])
    with serving({"/": (200, {"Connection": "close"}, b"")}) as server:
        url = f"http://llm.office.example:{server.port}/"
        with pytest.raises(PrivacyError):
            get(SOVEREIGN, log, url, url, networks=OFFICE)
        assert (len(server.seen), len(resolver.asked)) == (1, 2)


def test_of_a_names_addresses_only_the_admitted_ones_are_tried(
    server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, ["203.0.113.7", "2001:db8::7", "127.0.0.1"])
    assert get(SOVEREIGN, log, f"http://llm.office.example:{server.port}/", networks=OFFICE) == [(200, b"hello")]
    assert [d["address"] for d in decisions(log)] == [f"127.0.0.1:{server.port}"]


def test_the_resolver_alone_is_not_trusted_the_address_handed_to_connect_is_judged(
    server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the answer had changed between the question and the connection."""

    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[Any]:
        address = {"hostname": host, "host": "203.0.113.7", "port": port, "family": 2, "proto": 0, "flags": 0}
        return [address, address | {"host": "203.0.113.8"}]

    monkeypatch.setattr("batuta_cli.serve.providers.connector._Resolver.resolve", resolve)
    opened = no_connection(monkeypatch)
    for host in ("localhost", "llm.office.example"):
        with pytest.raises(PrivacyError, match=r"203\.0\.113"):
            get(SOVEREIGN, log, f"http://{host}:{server.port}/", networks=OFFICE)
    assert opened == []


def test_connections_are_kept_apart_by_tier(server: FakeServer, log: AuditLog) -> None:
    async def ask() -> None:
        async with GatedSession(STANDARD, log) as open_one, GatedSession(SOVEREIGN, log) as strict:
            for session in (open_one, strict, open_one, strict):
                async with session.request("GET", f"{server.url}/", backend="box") as response:
                    await response.read()

    asyncio.run(ask())
    assert (server.connections, len(server.seen)) == (2, 4)


def test_an_open_connection_is_not_used_when_the_log_fails(server: FakeServer, tmp_path: Path) -> None:
    async def ask(log: AuditLog) -> None:
        async with GatedSession(SOVEREIGN, log) as session:
            async with session.request("GET", f"{server.url}/", backend="box") as response:
                await response.read()
            (file,) = log.directory.iterdir()
            file.unlink()
            log.directory.rmdir()
            log.directory.write_text("")
            with pytest.raises(AuditError):
                async with session.request("GET", f"{server.url}/", backend="box"):
                    pass

    asyncio.run(ask(AuditLog(tmp_path / "audit")))
    assert len(server.seen) == 1
