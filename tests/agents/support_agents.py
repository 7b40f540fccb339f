"""Agents behind a gateway: a home of their own, no keys, a scripted backend, and a proxy that lets nothing out.

The agents and the AI SDK come from npm (package.json beside this file), node and llm from PyPI; `make .venv/.agents`
installs them. Nothing is downloaded when a test runs: the proxy that the agents are told to use answers 502 and records
what they asked for. Codex runs commands without its sandbox, which needs namespaces that a container may not have.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real.support_script import NOTE, configured, converse
from tests.serve.gateway.live import Live, real
from tests.serve.support_backend import FaultServer, response

VENV = Path(sys.prefix)
MODULES = VENV / "agents" / "node_modules"
PATHS = (MODULES / ".bin", VENV / "llm" / "bin", VENV / "node" / "bin", VENV / "bin", "/usr/bin", "/bin")


class World:
    """A gateway over the scripted backend, a folder with `note.txt`, and the closed way out."""

    def __init__(self, folder: Path, backend: FaultServer, outside: FaultServer, gateway: Live) -> None:
        self.gateway = gateway
        self.work = folder / "work"
        self.home = folder / "agent"
        self._backend = backend
        self._outside = outside
        self.work.mkdir()
        self.home.mkdir(mode=0o700)
        (self.work / "note.txt").write_text(NOTE + "\n")
        (self.home / ".codex").mkdir()
        (self.home / ".codex" / "config.toml").write_text('sandbox_mode = "danger-full-access"\n')

    @property
    def asked(self) -> list[Any]:
        """The bodies of the backend's requests."""
        return [body for _, _, body in self._backend.requests if body]

    @property
    def outside(self) -> list[str]:
        """What was asked of the proxy: each address that an agent wanted to reach beside the gateway."""
        return [path for path, _, _ in self._outside.requests]

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run commands of a shell as the user of the agents. stderr has what agents tell of their work."""
        nowhere = f"http://127.0.0.1:{self._outside.port}"
        environment = {
            "PATH": ":".join(map(str, PATHS)),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "BATUTA_GATEWAY_PORT": self.gateway.url.rpartition(":")[2],
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        environment |= dict.fromkeys((*proxies, *map(str.lower, proxies)), nowhere)
        return subprocess.run(
            ["bash", "-eu", "-c", script.replace("http://127.0.0.1:8484", self.gateway.url)],
            env=environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A gateway under the tier sovereign, and everything around it."""
    assert MODULES.exists(), f"{MODULES} is missing; run `make test-agents`"
    refusal = response(b"", status="502 Bad Gateway")
    with (
        FaultServer(converse) as backend,
        FaultServer(lambda *_: [refusal]) as outside,
        real(configured(folder, "mine", backend.base_url)) as gateway,
    ):
        yield World(folder, backend, outside, gateway)
