"""`/ready` of a real gateway: a backend that answers is not enough when ledger or audit log cannot be written."""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.live import PATIENCE, Live, real
from tests.serve.support_backend import FaultServer, Script, response


def healthy(path: str, _: dict[str, str], body: Any) -> Script:
    models = json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode()
    known = {"/health": b"", "/v1/models": models, "/version": b'{"version": "1"}'}
    return [response(known[path]) if path in known else response(b"", status="404 Not Found")]


@contextmanager
def gateway(environment: dict[str, str], home: Path, *arguments: str) -> Iterator[Live]:
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    with FaultServer(healthy) as backend:
        file.write_text(f'[backends.vllm]\nbase_url = "{backend.base_url}"\nmodels = ["m"]\n')
        with real(environment, *arguments) as running:
            yield running


def until(gateway: Live, status: int) -> dict[str, str]:
    """Ask until `/ready` has the status: the check is done once a second."""
    end = time.monotonic() + PATIENCE
    while (done := gateway.ask("/ready"))[0] != status:
        assert time.monotonic() < end, done
    document: dict[str, str] = json.loads(done[2])
    return document


def test_a_ledger_that_cannot_be_used_is_not_ready_until_it_is_mended(
    environment: dict[str, str], home: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.mkdir()
    with gateway(environment, home, "--ledger", f"sqlite:///{ledger}") as running:
        assert until(running, 503)["reason"].startswith("the ledger cannot be used")
        assert str(ledger) in json.loads(running.await_line('"event":"storage"'))["reason"]
        assert running.ask("/health")[0] == 200
        ledger.rmdir()
        assert until(running, 200) == {"status": "ready"}


def test_an_audit_log_that_cannot_be_written_is_not_ready_until_it_can(environment: dict[str, str], home: Path) -> None:
    with gateway(environment, home) as running:
        assert until(running, 200) == {"status": "ready"}
        before = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert until(running, 503)["reason"].startswith("the audit log cannot be written")
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, before)
        assert until(running, 200) == {"status": "ready"}


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_an_audit_directory_that_is_none_is_not_ready(environment: dict[str, str], home: Path, kind: str) -> None:
    directory = home / "state" / "batuta" / "audit"
    with gateway(environment, home) as running:
        until(running, 200)
        directory.rename(directory.with_name("moved"))
        if kind == "file":
            directory.touch()
        else:
            directory.symlink_to("nowhere")
        assert until(running, 503)["reason"].startswith("the audit log cannot be written")
