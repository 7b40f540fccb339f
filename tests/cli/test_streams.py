"""Standard streams that are closed or full: an error that names them, never a traceback, never a silent loss."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.support import own_key
from tests.conftest import BATUTA


@pytest.fixture
def environment(environment: dict[str, str], home: Path, work: Path) -> dict[str, str]:
    """With a key, a password and a model."""
    own_key(home)
    (work / "model").write_bytes(b"weights")
    return environment | {"MODEL_KEY": "secret"}


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("pacha hash model >&-", 1, "error: stdout: bad file descriptor\n"),
        ("pacha hash model >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("pacha hash model --json >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("pacha keys list >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("pacha keys export >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("pacha --help >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("--version >&-", 1, "error: stdout: bad file descriptor\n"),
        ("pacha hash - <&-", 1, "error: -: stdin: bad file descriptor\n"),
        ("pacha sign model --key - <&-", 1, "error: stdin: bad file descriptor\n"),
        ("pacha inspect - <&-", 1, "error: stdin: bad file descriptor\n"),
        ("pacha hash --check - <&-", 1, "error: stdin: bad file descriptor\n"),
        ("pacha hash model 2>&-", 0, ""),
        ("pacha hash missing 2>&-", 1, ""),
        ("pacha hash model <&- >&- 2>&-", 1, ""),
        ("pacha encrypt model -o - >&-", 1, "error: stdout: bad file descriptor\n"),
        ("pacha encrypt model -o - >/dev/full", 1, "error: stdout: no space left on device\n"),
        ("pacha sign model -o - >/dev/full", 1, "error: stdout: no space left on device\n"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_an_error(
    environment: dict[str, str], work: Path, command: str, status: int, message: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BATUTA} {command}"], env=environment, cwd=work, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, message)
    assert [path.name for path in work.iterdir()] == ["model"]
