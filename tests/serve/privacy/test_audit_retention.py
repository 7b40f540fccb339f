"""The audit log over several files: rotation, pruning, and what verification still finds afterwards."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import AuditError
from batuta_cli.serve.privacy.audit import AuditLog, AuditPolicy, Decision
from batuta_cli.serve.privacy.audit_verification import verify_log
from batuta_cli.serve.tiers import PrivacyTier

DECISION = Decision("request", PrivacyTier.SOVEREIGN, "llamacpp", "127.0.0.1:8080", True, "the loopback")
SMALL = AuditPolicy(rotate_bytes=2000)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def head(path: Path) -> str:
    """The hash of the last line, computed here."""
    line = path.read_bytes().splitlines()[-1]
    text = line[: line.index(b',"hash":"')] + b"}"
    return hashlib.sha256(text).hexdigest()


def filled(directory: Path, policy: AuditPolicy = SMALL, count: int = 40) -> AuditLog:
    log = AuditLog(directory, policy)
    for _ in range(count):
        log.record(DECISION)
    return log


def problems(directory: Path) -> list[str]:
    return [problem for file in verify_log([directory]).files for problem in file.problems]


def test_a_file_of_the_configured_size_is_followed_by_one_that_names_its_head(tmp_path: Path) -> None:
    filled(tmp_path)
    found = files(tmp_path)
    assert len(found) > 3 and all(path.stat().st_size < 3500 for path in found)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    assert "files" not in records(found[0])[0]
    for number, path in enumerate(found[1:], 1):
        first = records(path)[0]
        assert first["sequence"] == 1
        assert sorted(first["files"]) == sorted([p.name, len(records(p)), head(p)] for p in found[:number])
    report = verify_log([tmp_path])
    assert report.ok and report.records == 40 and report.pruned == 0


def test_a_file_of_the_configured_age_is_followed_by_another(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, AuditPolicy(rotate_seconds=3600))
    log.record(DECISION)
    log.record(DECISION)
    assert len(files(tmp_path)) == 1
    log._begun -= 3600
    log.record(DECISION)
    assert len(files(tmp_path)) == 2
    log._begun += 7200  # a clock that was set back
    log.record(DECISION)
    assert len(files(tmp_path)) == 3 and verify_log([tmp_path]).records == 4


def test_the_removal_of_a_file_or_of_its_end_is_found_by_the_files_after_it(tmp_path: Path) -> None:
    filled(tmp_path)
    second = files(tmp_path)[1]
    data = second.read_bytes()
    second.unlink()
    assert problems(tmp_path) and all(
        f"names the file {second.name}, which was removed" in p for p in problems(tmp_path)
    )
    second.write_bytes(b"".join(data.splitlines(keepends=True)[:-1]))
    assert problems(tmp_path) and all(
        f"of {second.name}, which was removed or changed" in p for p in problems(tmp_path)
    )
    second.write_bytes(data)
    assert problems(tmp_path) == []
    # A whole new log in the place of a file.
    second.write_bytes(files(tmp_path)[0].read_bytes())
    assert problems(tmp_path)


def test_the_oldest_files_are_deleted_at_the_configured_size_and_the_rest_verifies(tmp_path: Path) -> None:
    kept_elsewhere = []
    log = AuditLog(tmp_path, AuditPolicy(rotate_bytes=2000, keep_bytes=9000))
    seen: dict[str, str] = {}
    for _ in range(200):
        log.record(DECISION)
        for path in files(tmp_path):
            seen[path.name] = head(path)
    kept_elsewhere = [seen[name] for name in seen]
    left = files(tmp_path)
    assert sum(path.stat().st_size for path in left) < 9000 + 4000
    report = verify_log([tmp_path])
    assert report.ok, problems(tmp_path)
    assert report.pruned >= 2 and len(seen) > len(left) + 5
    # The heads of the files that are there, kept elsewhere, are found.
    assert verify_log([tmp_path], [seen[path.name] for path in left]).ok
    assert not verify_log([tmp_path], kept_elsewhere[:1]).ok
    # A deletion that no record tells of is found.
    left[0].unlink()
    assert not verify_log([tmp_path]).ok


def test_a_prune_writes_the_last_sequence_and_head_of_what_it_deletes(tmp_path: Path) -> None:
    filled(tmp_path, AuditPolicy(), 3)
    (old,) = files(tmp_path)
    expected = [old.name, 3, head(old)]
    last = head(old)
    os.utime(old, (1000, 1000))
    AuditLog(tmp_path, AuditPolicy(keep_seconds=86_400.0)).record(DECISION)
    (new,) = files(tmp_path)
    assert [record.get("pruned") for record in records(new)] == [None, [expected], None]
    report = verify_log([tmp_path], [last])
    assert report.ok and (report.records, report.pruned) == (1, 1)


def test_nothing_is_deleted_by_default_or_before_its_time(tmp_path: Path) -> None:
    filled(tmp_path)
    before = files(tmp_path)
    for path in before:
        os.utime(path, (1000, 1000))
    AuditLog(tmp_path).record(DECISION)
    assert set(before) < set(files(tmp_path))
    for path in before:
        os.utime(path)
    AuditLog(tmp_path, AuditPolicy(keep_seconds=3600, keep_bytes=1 << 30)).record(DECISION)
    assert set(before) < set(files(tmp_path))


def test_records_of_pruning_survive_the_pruning_of_their_own_file_while_they_are_needed(tmp_path: Path) -> None:
    filled(tmp_path, AuditPolicy(), 1)
    (first,) = files(tmp_path)
    second = AuditLog(tmp_path, AuditPolicy())
    second.record(DECISION)  # names the first
    named = [path for path in files(tmp_path) if path != first]
    os.utime(first, (1000, 1000))
    AuditLog(tmp_path, AuditPolicy(keep_seconds=3600)).record(DECISION)  # prunes the first
    (third,) = [path for path in files(tmp_path) if path not in named]
    os.utime(third, (1000, 1000))
    AuditLog(tmp_path, AuditPolicy(keep_seconds=3600)).record(DECISION)  # prunes the third
    assert not first.exists() and not third.exists() and named[0].exists()
    report = verify_log([tmp_path])
    assert report.ok and report.pruned == 2


def test_a_process_whose_file_is_pruned_goes_on_in_another(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, AuditPolicy())
    log.record(DECISION)
    (own,) = files(tmp_path)
    os.utime(own, (1000, 1000))
    AuditLog(tmp_path, AuditPolicy(keep_seconds=3600)).record(DECISION)
    assert not own.exists()
    log.record(DECISION)
    assert verify_log([tmp_path]).ok and len(files(tmp_path)) == 2


def test_threads_that_rotate_and_prune_at_once_leave_a_log_that_verifies(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path, AuditPolicy(rotate_bytes=1500, keep_bytes=12_000)) for _ in range(4)]
    threads = [threading.Thread(target=lambda log=log: [log.record(DECISION) for _ in range(60)]) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verify_log([tmp_path])
    assert report.ok, [(file.name, file.problems) for file in report.files]
    assert report.pruned


def test_a_single_file_is_verified_without_the_others(tmp_path: Path) -> None:
    filled(tmp_path)
    last = files(tmp_path)[-1]
    for path in files(tmp_path)[:-1]:
        path.unlink()
    assert verify_log([last]).ok
    assert not verify_log([tmp_path]).ok


@pytest.mark.parametrize("line", ['"files":[1]', '"files":[["x",1]]', '"pruned":[["x","1","h"]]', '"files":{}'])
def test_a_malformed_list_of_heads_is_a_fault_and_no_traceback(tmp_path: Path, line: str) -> None:
    text = f'{{"sequence":1,"time":"2026-11-26T00:00:00.000000Z",{line},"previous":"{"0" * 64}"}}'
    digest = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "20261126T000000Z-1-abcdef01.jsonl").write_text(f'{text[:-1]},"hash":"{digest}"}}\n')
    assert problems(tmp_path) == ["line 1 is not a record"]
    AuditLog(tmp_path, AuditPolicy(keep_bytes=1)).record(DECISION)


def test_a_log_that_cannot_begin_a_new_file_refuses_a_sovereign_request(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", SMALL, 6)
    (tmp_path / "audit").rename(tmp_path / "moved")
    (tmp_path / "audit").write_text("in the way")
    with pytest.raises(AuditError):
        log.record(DECISION)


def test_what_is_no_file_in_the_directory_neither_stops_the_log_nor_is_deleted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "20200101T000000Z-1-00000000.jsonl")
    (tmp_path / "20200101T000000Z-2-00000000.jsonl").symlink_to("nowhere")
    (tmp_path / "20200101T000000Z-3-00000000.jsonl").mkdir()
    log = AuditLog(tmp_path, AuditPolicy(rotate_bytes=2000, keep_bytes=4000, keep_seconds=1.0))
    for _ in range(20):
        log.record(DECISION)
    assert len(list(tmp_path.glob("2020*"))) == 3
    faults = [file.name for file in verify_log([tmp_path]).files if file.problems]
    assert len(faults) == 3
