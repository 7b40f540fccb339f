"""Of several inputs each result is printed as soon as it is known, in order; `--json` stays one document at the end."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.cli.support import answer, on_a_terminal, own_key, signed_model
from tests.conftest import BATUTA, Run

ENDLESS = 1 << 38  # bytes, without disk blocks: hashing them takes minutes


@contextmanager
def started(environment: dict[str, str], work: Path, *arguments: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Run a command, give its stdout and stderr, and end it."""
    command = [BATUTA, "pacha", *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, cwd=work, text=True, **pipes) as child:  # type: ignore[call-overload]
        try:
            yield child.stdout, child.stderr
        finally:
            child.kill()
            child.stdout.close()
            child.stderr.close()


@pytest.fixture
def endless(work: Path) -> str:
    with open(work / "endless", "wb") as file:
        file.truncate(ENDLESS)
    return "endless"


def test_hash_prints_each_address_when_it_is_known(environment: dict[str, str], work: Path, endless: str) -> None:
    (work / "a").write_bytes(b"a")
    (work / "b").write_bytes(b"b")
    with started(environment, work, "hash", "a", "missing", "b", endless) as (out, err):
        assert [out.readline().split()[1] for _ in range(2)] == ["a", "b"]
        assert err.readline().startswith("error: missing: ")


def test_hash_check_prints_each_line_when_it_is_known(
    environment: dict[str, str], batuta: Run, work: Path, endless: str
) -> None:
    (work / "a").write_bytes(b"a")
    listed = batuta("pacha", "hash", "a", code=0).stdout
    (work / "list").write_text(listed + listed.replace("  a", f"  {endless}"))
    with started(environment, work, "hash", "--check", "list") as (out, _):
        assert out.readline() == "a: OK\n"


def test_verify_prints_each_result_when_it_is_known(
    environment: dict[str, str], home: Path, work: Path, endless: str
) -> None:
    key = own_key(home)
    signed_model(work, key, "a")
    signed_model(work, key, "changed")
    (work / "changed").write_bytes(b"other")
    (work / f"{endless}.sig").write_bytes((work / "a.sig").read_bytes())
    with started(environment, work, "verify", "a", "changed", endless) as (out, err):
        assert out.readline().startswith("a: verified")
        assert err.readline().startswith("error: changed: ")


def test_sign_prints_each_signature_when_it_is_written(
    environment: dict[str, str], home: Path, work: Path, endless: str
) -> None:
    own_key(home)
    (work / "a").write_bytes(b"a")
    with started(environment, work, "sign", "a", endless) as (out, _):
        assert out.readline().startswith("a: signed by alice@example.com")
        assert (work / "a.sig").exists()


def test_store_verify_prints_each_object_when_it_is_known(
    environment: dict[str, str], batuta: Run, home: Path, work: Path
) -> None:
    (work / "a").write_bytes(b"a")
    batuta("pacha", "store", "add", "a", "--name", "small", code=0)
    last = home / "data" / "batuta" / "store" / "blake3" / "ff" / ("f" * 62)
    last.parent.mkdir(exist_ok=True)
    with open(last, "wb") as file:
        file.truncate(ENDLESS)
    last.chmod(0o444)
    with started(environment, work, "store", "verify") as (out, _):
        assert out.readline() == "small:latest: intact\n"


def test_store_verify_names_each_damaged_object_once(batuta: Run, home: Path, work: Path) -> None:
    for name in ("a", "b"):
        (work / name).write_bytes(name.encode())
        batuta("pacha", "store", "add", name, "--name", name, code=0)
    path = Path(batuta("pacha", "store", "path", "a", code=0).stdout.strip())
    path.chmod(0o600)
    path.write_bytes(b"x")
    done = batuta("pacha", "store", "verify", code=3)
    assert done.stdout == "b:latest: intact\n1 object is intact\n"
    assert done.stderr.count("a:latest: ") == 1
    assert "1 of 2 objects are not intact" in done.stderr


def test_json_has_all_results_in_one_document(batuta: Run, work: Path) -> None:
    (work / "a").write_bytes(b"a")
    document = answer(batuta("pacha", "hash", "a", "missing", "a", "--json", code=1))
    assert [row["ok"] for row in document["result"]] == [True, False, True]


def test_quiet_prints_errors_only(batuta: Run, work: Path) -> None:
    (work / "a").write_bytes(b"a")
    done = batuta("pacha", "hash", "a", "missing", "a", "--quiet", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("error: missing: ")


def test_a_full_disk_at_the_first_of_several_results_is_one_error(environment: dict[str, str], work: Path) -> None:
    (work / "a").write_bytes(b"a")
    line = f"{BATUTA} pacha hash a a a >/dev/full"
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=work, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: stdout: no space left on device\n")


def test_a_closed_pipe_does_not_hide_what_comes_later(environment: dict[str, str], home: Path, work: Path) -> None:
    key = own_key(home)
    signed_model(work, key, "good")
    signed_model(work, key, "bad")
    (work / "bad").write_bytes(b"other")
    line = f"{BATUTA} pacha verify good good bad 2>/dev/null | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=work, capture_output=True, text=True)
    assert done.returncode == 3


@pytest.mark.parametrize("sizes", [(40, 40), (1, 100)])
def test_progress_counts_all_inputs(environment: dict[str, str], work: Path, sizes: tuple[int, int]) -> None:
    for name, size in zip("ab", sizes, strict=True):
        with open(work / name, "wb") as file:
            file.truncate(size << 20)
    status, shown = on_a_terminal(["pacha", "hash", "a", "b"], environment | {"TERM": "xterm"}, work)
    assert status == 0
    assert "hashing b (2 of 2)" in shown
    assert f"{float(sum(sizes))}/{float(sum(sizes))} MiB" in shown
    assert shown.count("blake3:") == 2


def test_progress_counts_the_files_of_directories(environment: dict[str, str], work: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        (work / name).parent.mkdir(exist_ok=True)
        with open(work / name, "wb") as file:
            file.truncate(30 << 20)
    status, shown = on_a_terminal(["pacha", "hash", "a", "b"], environment | {"TERM": "xterm"}, work)
    assert status == 0
    assert "hashing a (1 of 2), 2 of 3 files" in shown
    assert "hashing b (2 of 2), 3 of 3 files" in shown
    status, shown = on_a_terminal(
        ["pacha", "hash", "a", "b", "--follow-symlinks"], environment | {"TERM": "dumb"}, work
    )
    assert "files" not in shown
