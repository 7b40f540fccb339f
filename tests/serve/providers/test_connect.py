"""The gate in the connector: what leaves, and what does not."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest

from batuta_cli.errors import AuditError, BatutaError, PrivacyError, UsageError
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.audit_verification import verify_log
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


def test_the_loopback_is_reached_under_every_tier(server: FakeServer, log: AuditLog) -> None:
    for tier in PrivacyTier:
        assert get(tier, log, f"{server.url}/") == [(200, b"hello")]


def test_a_decision_is_in_the_log_before_anything_is_sent(log: AuditLog) -> None:
    at_arrival: list[int] = []

    def reply() -> tuple[int, dict[str, str], bytes]:
        at_arrival.append(len(decisions(log)))
        return 200, {}, b""

    with serving({"/": reply}) as server:
        get(SOVEREIGN, log, f"{server.url}/", f"{server.url}/")
    assert at_arrival == [1, 2]
    one, two = decisions(log)
    assert (one["request"], one["tier"], one["backend"]) == ("r1", "sovereign", "box")
    assert (one["address"], one["decision"]) == (f"127.0.0.1:{server.port}", "allowed")
    assert "open connection" in two["reason"]
    assert server.connections == 1
    assert verify_log([log.directory]).ok


ODD = [
    "2130706433",
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "127。0。0。1.example",
    "0.0.0.0",  # noqa: S104
    "8.8.8.8",
    "169.254.169.254",
    "[::]",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    "[64:ff9b::7f00:1]",
    "[::ffff:8.8.8.8]",
]


@pytest.mark.parametrize("host", ODD)
def test_odd_forms_of_an_address_reach_nothing(
    host: str, server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    opened = no_connection(monkeypatch)
    for tier in (SOVEREIGN, PRIVATE):
        with pytest.raises(PrivacyError):
            get(tier, log, f"http://{host}:{server.port}/")
    assert (resolver.asked, opened, server.connections) == ([], [], 0)
    assert [d["decision"] for d in decisions(log)] == ["refused", "refused"]


def test_declared_networks_are_tried_by_the_tiers_they_were_declared_for(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = no_connection(monkeypatch)
    for tier, networks in ((SOVEREIGN, OFFICE), (PRIVATE, OFFICE), (PRIVATE, Networks(private=OFFICE.local))):
        with pytest.raises(aiohttp.ClientConnectorError):
            get(tier, log, "http://10.1.2.3:81/", networks=networks)
    assert begun == [("10.1.2.3", 81)] * 3
    with pytest.raises(PrivacyError):
        get(SOVEREIGN, log, "http://10.1.2.3:81/", networks=Networks(private=OFFICE.local))
    assert len(begun) == 3


def test_redirects_are_not_followed(log: AuditLog) -> None:
    with serving(OK) as other:
        for status in (301, 302, 303, 307, 308):
            with serving({"/": (status, {"Location": f"{other.url}/"}, b"")}) as server:
                assert get(STANDARD, log, f"{server.url}/") == [(status, b"")]
        assert other.connections == 0


def test_proxy_variables_and_netrc_are_not_read(
    server: FakeServer, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(OK) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for tier in PrivacyTier:
            assert get(tier, log, f"{server.url}/") == [(200, b"hello")]
        assert proxy.connections == 0
    assert not any("authorization" in seen.headers for seen in server.seen)


def test_only_a_standard_request_takes_the_configured_proxy(
    server: FakeServer, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch)
    with serving({"http://llm.example/": (200, {}, b"by proxy")}) as proxy:
        assert get(STANDARD, log, "http://llm.example/", proxy=proxy.url) == [(200, b"by proxy")]
        assert resolver.asked == []  # the proxy asks
        for tier in (SOVEREIGN, PRIVATE):
            assert get(tier, log, f"{server.url}/", proxy=proxy.url) == [(200, b"hello")]
        assert len(proxy.seen) == 1
    assert decisions(log)[0]["address"] == f"127.0.0.1:{proxy.port}"


def test_a_request_that_may_have_been_worked_on_is_not_sent_again_and_again(log: AuditLog) -> None:
    """The server takes it over any number of open connections, and closes each: one more time is enough."""
    taken: list[bytes] = []
    waiting = 5

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                warm.set()
            await warm.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, GatedSession(STANDARD, log) as session:

            async def send() -> None:
                async with session.request("POST", url, backend="box", data=b"") as response:
                    await response.read()

            await asyncio.gather(*(send() for _ in range(5)))
            await send()

    warm = asyncio.Event()
    asyncio.run(run())
    assert len(taken) == 1


def test_cookies_are_not_kept(log: AuditLog) -> None:
    with serving({"/": (200, {"Set-Cookie": "who=me"}, b"")}) as server:
        get(STANDARD, log, f"{server.url}/", f"{server.url}/")
    assert not any("cookie" in seen.headers for seen in server.seen)


def test_without_a_log_nothing_sovereign_or_private_is_sent(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit")
    for tier in (SOVEREIGN, PRIVATE):
        with pytest.raises(AuditError):
            get(tier, log, f"{server.url}/")
    assert server.connections == 0
    assert get(STANDARD, log, f"{server.url}/") == [(200, b"hello")]
    assert log.lost == 1


WRONG = [
    "http://me:secret@127.0.0.1/",
    "http://me@127.0.0.1/",
    "ftp://127.0.0.1/",
    "http:///",
    "file:///etc/passwd",
    "unix:/run/x",
    "127.0.0.1",
    "http://127.0.0.1:port/",
]


@pytest.mark.parametrize("url", WRONG)
def test_an_address_that_is_none_or_has_a_user_in_it_is_wrong_usage(url: str, log: AuditLog) -> None:
    with pytest.raises(UsageError) as caught:
        get(STANDARD, log, url)
    assert "secret" not in caught.value.message


def test_a_refusal_is_raised_as_such_and_what_fails_otherwise_stays_aiohttps(log: AuditLog) -> None:
    with serving() as gone:
        pass
    with pytest.raises(aiohttp.ClientConnectorError):
        get(SOVEREIGN, log, gone.url)
    with pytest.raises(PrivacyError) as caught:
        get(SOVEREIGN, log, "http://10.1.2.3/")
    assert "privacy.local_networks" in str(caught.value.hint)
    assert issubclass(PrivacyError, BatutaError)


@pytest.mark.parametrize("module", ["connect", "probe"])
def test_without_aiohttp_the_error_says_what_to_install(module: str) -> None:
    code = f"""
import sys
sys.modules["aiohttp"] = None
from batuta_cli.errors import MissingDependencyError
try:
    import batuta_cli.serve.providers.{module}
except MissingDependencyError as error:
    print(error.exit_code, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 pip install 'batuta-cli[serve]'\n", done.stderr


def test_certificates_are_verified(log: AuditLog, tmp_path: Path) -> None:
    """Whoever sits on the loopback with a certificate nobody vouches for gets nothing."""
    certificate = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    certificate += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(certificate, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def ask() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        session = GatedSession(SOVEREIGN, log)
        async with server, session, session.request("GET", f"https://localhost:{port}/", backend="box"):
            pass

    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        asyncio.run(ask())
