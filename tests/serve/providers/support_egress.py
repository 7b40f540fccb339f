"""Runs in a network namespace of its own, as root of it: `python -m tests.serve.providers.support_egress DIRECTORY`.

There is one public-looking address, 203.0.113.7 (RFC 5737), on the loopback device, with a name server, an HTTP and an
HTTPS server that write down whatever reaches them. Prints what each request came to and what was seen outside.
"""

import asyncio
import contextlib
import fcntl
import http.server
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

PUBLIC = "203.0.113.7"
LOOPBACK = "127.0.0.1"

queries: list[str] = []
connections: list[str] = []
requests: list[str] = []
last: dict[int, threading.Event] = {}
"""Connections of our own, by their port, and whether they were taken."""
flips = [LOOPBACK, PUBLIC]
"""What the name `flip.example` resolves to, in turn."""


def set_up(directory: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, address in ((b"lo", LOOPBACK), (b"lo:1", PUBLIC)):
            request = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, 0x8916, request)  # SIOCSIFADDR, see netdevice(7)
            fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", name, 0x41))  # SIOCSIFFLAGS: up, running
    (directory / "resolv.conf").write_text(f"nameserver {PUBLIC}\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", str(directory / "resolv.conf"), "/etc/resolv.conf"], check=True)


def name_server() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((PUBLIC, 53))

    def serve() -> None:
        while True:
            question, asker = server.recvfrom(512)
            labels, position = [], 12
            while length := question[position]:
                labels.append(question[position + 1 : position + 1 + length].decode())
                position += length + 1
            name, kind = ".".join(labels), question[position + 2]
            answer = b""
            if kind == 1:  # A
                queries.append(name)
                address = PUBLIC if name != "flip.example" or not flips else flips.pop(0)
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
            header = question[:2] + b"\x81\x80\0\1" + struct.pack(">H", bool(answer)) + b"\0\0\0\0"
            server.sendto(header + question[12 : position + 5] + answer, asker)

    threading.Thread(target=serve, daemon=True).start()


def web_server(host: str, port: int, directory: Path, *, tls: bool = False, location: str = "") -> int:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if host == PUBLIC:
                requests.append(self.path)
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.HTTPServer):  # one connection after the other, so that `all_seen` is true
        def get_request(self) -> Any:
            connection, address = super().get_request()
            if address[1] in last:
                last[address[1]].set()
            elif host == PUBLIC:
                connections.append(f"{port}")
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server((host, port), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def all_seen() -> None:
    """Wait until the public servers are done with all that was sent to them: they take one more, our own, only then."""
    for port in (80, 443):
        with socket.socket() as connection:
            connection.bind((PUBLIC, 0))
            event = last.setdefault(connection.getsockname()[1], threading.Event())
            connection.connect((PUBLIC, port))
            assert event.wait(30)


@contextlib.contextmanager
def bypassed(*, passed: bool) -> Iterator[None]:
    """As if the gate before the connection were not there, or (`passed`) had judged another address than the peer's."""
    from batuta_cli.serve.providers import connector

    def make_socket(self: object, info: Any) -> socket.socket:
        connector.current_attempt.get().opened = passed
        return socket.socket(*info[:3])

    original = connector.GatedConnector._make_socket
    connector.GatedConnector._make_socket = make_socket  # type: ignore[method-assign]
    try:
        yield
    finally:
        connector.GatedConnector._make_socket = original  # type: ignore[method-assign]


def main(directory: Path) -> None:
    set_up(directory)
    name_server()
    web_server(PUBLIC, 80, directory)
    web_server(PUBLIC, 443, directory, tls=True)
    near = web_server(LOOPBACK, 0, directory)
    away = web_server(LOOPBACK, 0, directory, location=f"http://{PUBLIC}/")
    os.environ |= {"SSL_CERT_FILE": str(directory / "ca.pem")}
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = f"http://{PUBLIC}:80"

    from batuta_cli.errors import BatutaError
    from batuta_cli.serve.privacy.audit import AuditLog
    from batuta_cli.serve.privacy.gate import Networks
    from batuta_cli.serve.providers.connect import GatedSession
    from batuta_cli.serve.tiers import PrivacyTier

    office = Networks((ip_network("10.1.0.0/16"),))
    log = AuditLog(directory / "audit")

    async def get(tier: str, url: str, networks: Networks) -> str:
        async with GatedSession(PrivacyTier(tier), log, networks) as session:
            try:
                async with session.request("GET", url, backend="box") as response:
                    return str(response.status)
            except BatutaError as error:
                return error.kind
            except Exception as error:
                return type(error).__name__

    def tell(case: str, tier: str, url: str, networks: Networks = Networks()) -> None:  # noqa: B008 - frozen
        for seen in (queries, connections, requests):
            seen.clear()
        outcome = asyncio.run(get(tier, url, networks))
        all_seen()
        told = {"case": case, "tier": tier, "url": url, "outcome": outcome}
        print(json.dumps(told | {"queries": queries, "connections": connections, "requests": requests}), flush=True)

    urls = {
        "name": "http://llm.example/",
        "name over https": "https://llm.example/",
        "cloud": "https://contoso.openai.azure.com/",
        "cloud without https": "http://contoso.openai.azure.com/",
        "cloud with the certificate of another": "https://fabrikam.openai.azure.com/",
        "address": f"http://{PUBLIC}/",
        "address over https": f"https://{PUBLIC}/",
        "mapped address": f"http://[::ffff:{PUBLIC}]/",
        "decimal address": f"http://{int.from_bytes(socket.inet_aton(PUBLIC), 'big')}/",
        "redirect": f"http://{LOOPBACK}:{away}/",
        "loopback beside proxy variables": f"http://localhost:{near}/",
    }
    for tier in ("standard", "private", "sovereign"):
        for case, url in urls.items():
            tell(case, tier, url)
    for case in ("name that resolves to the loopback", "the same name, now public"):
        tell(case, "sovereign", f"http://flip.example:{near}/", office)
    for passed in (False, True):
        with bypassed(passed=passed):
            for tier in ("sovereign", "private"):
                tell(f"peer, passed {passed}", tier, f"http://{PUBLIC}/")
    batuta = [str(Path(sys.executable).with_name("batuta")), "serve", "backends", "--probe", "--all", "--json"]
    for tier in ("sovereign", "private"):
        for seen in (queries, connections, requests):
            seen.clear()
        done = subprocess.run([*batuta, "--privacy", tier], capture_output=True, text=True)
        all_seen()
        told = {"case": "command", "tier": tier, "url": "", "outcome": str(done.returncode)}
        print(json.dumps(told | {"queries": queries, "connections": connections, "requests": requests}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
