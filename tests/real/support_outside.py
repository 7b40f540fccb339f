"""The world outside, for `test_egress.py`: one link away, in a network namespace of its own. It answers to any address.

Started by `support_inside.py` as `python -m tests.real.support_outside LINK DIRECTORY`. Every packet that comes over
the link is looked at by a raw socket, whatever port or protocol it is for; a name server, HTTP and HTTPS servers
answer, so that what can leave also succeeds. Each line on stdin names a marker: what was seen before the
marker came over the link is written to stdout.
"""

import http.server
import json
import queue
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.serve.support_backend import chat_stream

PUBLIC = "203.0.113.7"
"""What every name resolves to (RFC 5737)."""

HTTP_PORTS = (80, 8000, 8080, 11434)
SAID = "from outside"

_NEIGHBOURS = {133, 134, 135, 136, 143}  # ICMPv6: what a kernel says on any link by itself

requests: list[str] = []


class Sniffer:
    """Names of packets, in the order in which they came."""

    def __init__(self, link: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self._socket.bind((link, 0))
        self._flows: set[Any] = set()
        self._seen: list[str] = []
        self.marked: queue.Queue[tuple[bytes, list[str]]] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
            if kind == socket.PACKET_OUTGOING:
                continue
            name, payload = self._name(frame)
            if name == f"udp {PUBLIC} port 9":
                self.marked.put((payload, self._seen))
                self._seen = []
            elif name and name not in self._seen:
                self._seen.append(name)

    def _name(self, frame: bytes) -> tuple[str, bytes]:
        kind, packet = struct.unpack_from(">H", frame, 12)[0], frame[14:]
        if kind == 0x0800:
            source, target = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
            protocol, body = packet[9], packet[(packet[0] & 15) * 4 :]
        elif kind == 0x86DD:
            source, target = (socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24))
            protocol, body = packet[6], packet[40:]
            if protocol == 0 or (protocol == 58 and body[0] in _NEIGHBOURS):  # 0: multicast reports
                return "", b""
        elif kind == 0x0806 and packet[7] == 2:  # the answer to who asked for this machine
            return "", b""
        else:
            return f"frame {kind:#06x}", b""
        if protocol == 17:
            return f"udp {target} port {struct.unpack_from('>H', body, 2)[0]}", body[8:]
        if protocol != 6:
            return f"protocol {protocol} {target}", b""
        ports = struct.unpack_from(">HH", body)
        flow = (source, target, ports)
        if flow in self._flows:  # the rest of a connection that was told of when it began
            return "", b""
        self._flows.add(flow)
        return f"tcp {target} port {ports[1]}", b""


def name_server() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("198.51.100.254", 53))

    def serve() -> None:
        while True:
            question, asker = server.recvfrom(512)
            end = question.index(b"\0", 12)
            is_a = question[end + 2] == 1
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(PUBLIC) if is_a else b""
            header = question[:2] + b"\x81\x80\0\1" + struct.pack(">H", is_a) + b"\0\0\0\0"
            server.sendto(header + question[12 : end + 5] + answer, asker)

    threading.Thread(target=serve, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    """Writes down what it is asked, and answers as a model server does."""

    def _answer(self, kind: str, body: bytes) -> None:
        secrets = [v for k in ("Authorization", "Proxy-Authorization", "api-key") if (v := self.headers.get(k))]
        requests.append(" ".join([self.command, self.headers.get("Host", ""), self.path, *secrets]))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer("application/json", b'{"data": [{"id": "test-model", "owned_by": "vllm"}]}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prefix = asked["messages"][-1]["content"] if asked["messages"][-1]["role"] == "assistant" else ""
        self._answer("text/event-stream", chat_stream([" and " if prefix else "", SAID]))

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "outside", self.server_address[1]

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                requests.append("TLS refused by the client")
                return
        super().finish_request(request, client_address)


def contexts(directory: Path) -> ssl.SSLContext:
    """`contoso` and `llm.example` have a good certificate, `fabrikam` has one that nobody vouches for."""

    def context(name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(directory / name / "server.pem")
        made.num_tickets = 0
        return made

    good, unknown = context("good"), context("unknown")

    def choose(connection: ssl.SSLObject, name: str | None, _: object) -> None:
        if name and name.startswith("fabrikam"):
            connection.context = unknown

    good.sni_callback = choose
    return good


def main(link: str, directory: Path) -> None:
    for command in (
        "link set lo up",
        f"address add 198.51.100.254/24 dev {link}",
        f"-6 address add 2001:db8::fe/64 dev {link} nodad",
        f"link set {link} address 02:00:00:00:00:fe up",
        "route add local default dev lo",
        "-6 route add local default dev lo",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    sniffer = Sniffer(link)
    name_server()
    tls = contexts(directory)
    for port in (443, *HTTP_PORTS):
        server = Server(("::", port), Handler)
        server.tls = tls if port == 443 else None
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        marker, seen = sniffer.marked.get(timeout=30)
        assert marker == line.strip().encode()
        print(json.dumps({"packets": seen, "requests": requests}), flush=True)
        requests.clear()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
