"""Agents behind a gateway: an empty home, no keys, a scripted backend, and a proxy that lets nothing out.

The agents and the AI SDK come from npm (package.json beside this file), node from PyPI; `make .venv/.agents` installs
both. Nothing is downloaded when a test runs: the proxy that the agents are told to use answers 502 and records what
they asked for.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real.support_script import converse
from tests.serve.gateway.live import Live, real
from tests.serve.support_backend import FaultServer, response

VENV = Path(sys.prefix)
MODULES = VENV / "agents" / "node_modules"
PATHS = (MODULES / ".bin", VENV / "node" / "bin", VENV / "bin", "/usr/bin", "/bin")
NOTE = "The secret word is Łódź-42."


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
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        environment |= {
            name: nowhere for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
        }
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
    configured = folder / "config" / "batuta" / "config.toml"
    configured.parent.mkdir(parents=True)
    environment = {
        "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    with FaultServer(converse) as backend, FaultServer(lambda *_: [response(b"", status="502 Bad Gateway")]) as outside:
        configured.write_text(
            f'[backends.scripted]\nprofile = "vllm"\nbase_url = "{backend.base_url}"\n[privacy]\ntier = "sovereign"\n'
        )
        with real(environment) as gateway:
            yield World(folder, backend, outside, gateway)
