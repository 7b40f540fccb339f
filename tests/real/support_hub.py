"""A Hugging Face Hub on the loopback, from which `huggingface_hub` itself lays out caches."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/tiny"
WEIGHTS = os.urandom(1) + bytes(range(256)) * 4096
"""1 MiB and a byte, other ones in each run."""
FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "README.md": b"# tiny\n",
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"ONNX" * 1000,
}
LARGE = ("model.safetensors", "onnx/model.onnx")
"""The files that are in LFS, whose ETag is the SHA-256."""


def git_sha1(data: bytes) -> str:
    """What `git hash-object` prints."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def etag(name: str) -> str:
    """The name of a file's blob."""
    data = FILES[name]
    return hashlib.sha256(data).hexdigest() if name in LARGE else git_sha1(data)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"(?:/datasets)?/acme/tiny/resolve/[^/]+/(.+)", path):
            name = found[1]
            if name not in FILES:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                return
            data = FILES[name]
            headers = {"X-Repo-Commit": REVISION, "ETag": f'"{etag(name)}"'}
            if name in LARGE:
                headers |= {"X-Linked-Etag": f'"{etag(name)}"', "X-Linked-Size": str(len(data))}
            self._send(200, data, headers, body)
        elif "/tree/" in path:
            self._send(200, json.dumps([_entry(name) for name in FILES]).encode(), {}, body)
        elif path.startswith(("/api/models/acme/tiny", "/api/datasets/acme/tiny")):
            siblings = [{"rfilename": name} for name in FILES]
            document = {"id": REPOSITORY, "sha": REVISION, "siblings": siblings}
            self._send(200, json.dumps(document).encode(), {}, body)
        else:
            self._send(404, b"", {}, body)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _entry(name: str) -> dict[str, Any]:
    data = FILES[name]
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
    return entry | ({"lfs": {"oid": etag(name), "size": len(data), "pointerSize": 130}} if name in LARGE else {})


@dataclass(frozen=True)
class Hub:
    """A running hub."""

    url: str
    home: Path

    def run(self, command: list[str], **variables: str) -> str:
        """Run a command line, `hf download …` for instance, against this hub; its output."""
        bin_directory = Path(sys.executable).parent
        environment = {
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
        }
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def running_hub(home: Path) -> Iterator[Hub]:
    """A hub for the commands of a user with this home."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", home)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
