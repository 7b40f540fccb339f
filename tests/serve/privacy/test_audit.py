"""The audit log: every decision is in it, and nothing can be done to it unseen but cutting its end."""

import json
import multiprocessing
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import AuditError
from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.audit_verification import LogReport, verify_log
from batuta_cli.serve.tiers import PrivacyTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD


def decision(number: int = 1, tier: PrivacyTier = SOVEREIGN, *, allowed: bool = True, backend: str = "ll") -> Decision:
    return Decision(f"req-{number}", tier, backend, "127.0.0.1:8080", allowed, "the loopback")


def written(directory: Path, count: int = 4) -> Path:
    """The file of a log with some decisions."""
    log = AuditLog(directory)
    for number in range(count):
        log.record(decision(number, allowed=number % 2 == 0))
    log.close()
    (path,) = directory.iterdir()
    return path


def verified(data: bytes, directory: Path) -> LogReport:
    path = directory / "copy.jsonl"
    path.write_bytes(data)
    return verify_log([path])


def clean(report: LogReport) -> bool:
    """Nothing at all was remarked upon."""
    return report.ok and not any(file.incomplete for file in report.files)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("audit") / "log").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verified")


def test_a_decision_is_one_line_of_json_with_all_that_was_decided(tmp_path: Path) -> None:
    line = written(tmp_path / "log", 1).read_bytes()
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    record = json.loads(line)
    assert " ".join(record) == "sequence time request tier backend address decision reason previous hash"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("time"))
    del record["hash"]
    assert record == {
        "sequence": 1,
        "request": "req-0",
        "tier": "sovereign",
        "backend": "ll",
        "address": "127.0.0.1:8080",
        "decision": "allowed",
        "reason": "the loopback",
        "previous": "0" * 64,
    }


def test_a_log_that_nobody_touched_is_clean(data: bytes, place: Path) -> None:
    report = verified(data, place)
    assert clean(report)
    assert report.records == 4
    assert report.files[0].head == json.loads(data.splitlines()[-1])["hash"]


def test_only_its_owner_can_read_the_log(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        path = written(tmp_path / "state" / "log")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_decision_is_in_the_file_as_soon_as_it_is_recorded(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    assert not (tmp_path / "log").exists()
    for count in range(1, 4):
        log.record(decision(count))
        (path,) = (tmp_path / "log").iterdir()
        assert len(path.read_bytes().splitlines()) == count


@pytest.mark.parametrize("how", ["removed", "moved", "replaced by a file", "by a directory", "by a link to nowhere"])
def test_a_log_whose_file_is_taken_away_goes_on_in_another_file(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "audit"
    log = AuditLog(directory)
    decision = Decision("r", PrivacyTier.SOVEREIGN, "b", "127.0.0.1:1", True, "the loopback")
    log.record(decision)
    (path,) = directory.iterdir()
    path.rename(tmp_path / "away.jsonl")
    if how == "removed":
        (tmp_path / "away.jsonl").unlink()
    elif how == "replaced by a file":
        path.touch()
    elif how == "by a directory":
        path.mkdir()
    elif how == "by a link to nowhere":
        path.symlink_to("nowhere")
    log.record(decision)
    log.close()
    (new,) = set(directory.iterdir()) - {path}
    report = verify_log([new])
    assert report.ok and report.records == 1
    assert verify_log([directory]).ok == (how in ("removed", "moved", "replaced by a file"))


# What happens when it cannot be written


def refuses(log: AuditLog) -> None:
    """Strict tiers raise, a standard one goes ahead and is counted."""
    for tier in (SOVEREIGN, PRIVATE):
        with pytest.raises(AuditError) as caught:
            log.record(decision(tier=tier))
        assert caught.value.exit_code == 1
        assert str(log.directory) in caught.value.message
    lost = log.lost
    log.record(decision(tier=STANDARD))
    assert log.lost == lost + 1


def test_a_directory_that_cannot_be_made_refuses_sovereign_and_private(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuses(AuditLog(tmp_path / "file" / "log"))


_READ_ONLY = """
import sys
from pathlib import Path
from tests.serve.privacy.test_audit import AuditLog, refuses
refuses(AuditLog(Path(sys.argv[1])))
print("refused")
"""


def test_a_directory_that_cannot_be_written_refuses_sovereign_and_private(
    tmp_path: Path, unprivileged: Callable[[], None]
) -> None:
    (tmp_path / "log").mkdir(mode=0o500)
    done = subprocess.run(
        [sys.executable, "-c", _READ_ONLY, str(tmp_path / "log")],
        preexec_fn=unprivileged,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused\n", done.stderr


_FULL = """
import resource, sys
from pathlib import Path
from tests.serve.privacy.test_audit import AuditLog, clean, decision, refuses, verify_log
log = AuditLog(Path(sys.argv[1]))
log.record(decision())
(path,) = Path(sys.argv[1]).iterdir()
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
refuses(log)
assert path.stat().st_size == size, "half a line was left"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.record(decision())
report = verify_log([Path(sys.argv[1])])
assert clean(report) and report.records == 2 and len(report.files) == 1, report
print("refused")
"""


@pytest.mark.parametrize("room", [0, 100])
def test_a_file_that_can_grow_no_more_refuses_and_keeps_no_half_line(tmp_path: Path, room: int) -> None:
    arguments = [sys.executable, "-c", _FULL, str(tmp_path / "log"), str(room)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_a_file_that_somebody_takes_away_is_not_written_to_in_vain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    log.record(decision())
    (path,) = (tmp_path / "log").iterdir()
    path.unlink()
    log.record(decision())
    (other,) = (tmp_path / "log").iterdir()
    assert clean(verify_log([other]))
    assert verify_log([other]).records == 1


def _record_some(log: AuditLog) -> None:
    for number in range(20):
        log.record(decision(number, backend="child"))


def test_many_threads_write_one_unbroken_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    threads = [threading.Thread(target=_record_some, args=(log,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verify_log([tmp_path / "log"])
    assert clean(report)
    assert [file.records for file in report.files] == [160]


def test_a_child_of_fork_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    log.record(decision())
    children = [multiprocessing.get_context("fork").Process(target=_record_some, args=(log,)) for _ in range(3)]
    for child in children:
        child.start()
        log.record(decision())
    for child in children:
        child.join()
        assert child.exitcode == 0
    log.record(decision())
    report = verify_log([tmp_path / "log"])
    assert clean(report)
    assert sorted(file.records for file in report.files) == [5, 20, 20, 20]
