"""A real Redis server for a test, on a free port of the loopback, with its data in a folder of its own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import redis

from batuta_cli.serve.budget.ledger.redis import RedisServer
from tests.unpacked import libraries

TRIES = 200


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Redis:
    """The server; it can be stopped, continued and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.server = RedisServer(host="127.0.0.1", port=self.port, timeout=5.0)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed; `make test` brings it where there is apt"
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        process = subprocess.Popen(
            [*command, *self.options],
            env=os.environ | libraries("redis-server"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        with closing(self.client()) as client:
            for _ in range(TRIES):
                try:
                    client.ping()
                    break
                except redis.BusyLoadingError:
                    continue
                except redis.ConnectionError:
                    if process.poll() is not None:
                        raise
                    try:
                        process.wait(0.02)
                    except subprocess.TimeoutExpired:
                        continue
        return process

    def client(self) -> "redis.Redis":
        """A client that is not batuta's."""
        return redis.Redis(host="127.0.0.1", port=self.port, username=None, password=None)

    def restart(self) -> None:
        """Stop the server without saving, and start it again."""
        self.stop()
        self.process = self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[Redis]:
    """A server that is stopped at the end of the block."""
    server = Redis(folder, *options)
    try:
        yield server
    finally:
        server.stop()
