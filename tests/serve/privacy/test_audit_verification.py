"""Verifying an audit log: nothing can be done to it unseen but cutting its end, and kept heads find that too."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.audit_format import NO_HASH
from batuta_cli.serve.privacy.audit_verification import LogReport, read_heads, verify_log
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


@given(st.data())
def test_any_change_of_any_byte_is_seen(data: bytes, place: Path, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255).filter(lambda v: v != data[position]))
    assert not clean(verified(data[:position] + bytes([value]) + data[position + 1 :], place))


def test_no_single_byte_can_be_flipped_taken_out_or_doubled_unseen(data: bytes, place: Path) -> None:
    data = b"".join(data.splitlines(keepends=True)[:2])
    for position in range(len(data)):
        before, byte, after = data[:position], data[position : position + 1], data[position + 1 :]
        for changed in (bytes([byte[0] ^ 1]), b"", byte * 2, b"\n"):
            if changed != byte:
                assert not clean(verified(before + changed + after, place)), (position, changed)


@given(st.data())
def test_lines_cannot_be_taken_out_repeated_or_moved_unseen(data: bytes, place: Path, draw: st.DataObject) -> None:
    lines = data.splitlines(keepends=True)
    chosen = draw.draw(st.lists(st.sampled_from(range(len(lines))), min_size=1, max_size=6))
    assert verified(b"".join(lines[i] for i in chosen), place).ok is (chosen == list(range(len(chosen))))


def test_what_is_wrong_is_told_with_its_line(data: bytes, place: Path) -> None:
    one, two, three, four = data.splitlines(keepends=True)

    def told(*lines: bytes) -> str:
        return "; ".join(verified(b"".join(lines), place).files[0].problems)

    assert told(one, three, four) == "line 2 is record 3 instead of 2"
    assert told(one, two, two, three, four) == "line 3 is record 2 instead of 3"
    assert told(one, two.replace(b"refused", b"allowed"), three, four) == "line 2 was changed"
    assert told(one, b"hello\n", two, three, four).startswith("line 2 is not a record")
    assert told(two, three).startswith("line 1 is record 2 instead of 1")


def test_a_record_whose_hash_was_made_anew_breaks_the_chain_after_it(data: bytes, place: Path) -> None:
    one, two, three, four = data.splitlines(keepends=True)
    text = re.sub(rb',"hash":"[0-9a-f]{64}"\}\n$', b"}", two).replace(b"refused", b"allowed")
    forged = text[:-1] + f',"hash":"{hashlib.sha256(text).hexdigest()}"}}\n'.encode()
    assert verified(one + forged + three + four, place).files[0].problems == (
        "line 3 does not continue the line before",
    )


def test_records_of_another_file_do_not_fit(data: bytes, place: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other").read_bytes().splitlines(keepends=True)
    own = data.splitlines(keepends=True)
    assert not verified(b"".join([*own[:2], *other[2:]]), place).ok


def test_a_torn_end_is_called_incomplete_and_not_tampering(data: bytes, place: Path) -> None:
    ends = {0}
    for line in data.splitlines(keepends=True):
        ends.add(max(ends) + len(line))
    for length in range(len(data)):
        report = verified(data[:length], place)
        assert report.ok
        assert report.files[0].incomplete is (length not in ends)


def test_a_cut_end_is_found_with_the_head_that_was_kept(data: bytes, place: Path) -> None:
    head = verified(data, place).files[0].head
    path = place / "copy.jsonl"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert verify_log([path], [head]).ok is False
        assert verify_log([path], [head]).lost_heads == (head,)


def test_heads_that_were_kept_stay_good_while_the_log_grows(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    logs = [AuditLog(directory), AuditLog(directory)]
    saved = []
    for number in range(3):
        for log in logs:
            log.record(decision(number))
        report = verify_log([directory])
        saved += read_heads(f"{report.lines}{report.head}  {report.records}  *\n")
        assert verify_log([directory], [report.head]).ok  # of the whole log: as long as nothing was added
    assert len(set(saved)) == 6
    assert verify_log([directory], saved).ok
    assert verify_log([directory], [head.upper() for head in saved]).ok
    logs[0].record(decision())
    assert not verify_log([directory], [report.head]).ok


def test_a_file_that_was_taken_away_is_found_with_the_heads(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    for _ in range(2):
        AuditLog(directory).record(decision())
    report = verify_log([directory])
    max(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns).unlink()  # no other file names the newest
    assert verify_log([directory]).ok
    for heads in ([report.head], [file.head for file in report.files]):
        assert not verify_log([directory], heads).ok


def test_the_head_of_the_whole_log_is_the_sha256_of_the_lines(tmp_path: Path) -> None:
    written(tmp_path / "log")
    report = verify_log([tmp_path / "log"])
    done = subprocess.run(["sha256sum"], input=report.lines.encode(), capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == report.head


def test_a_head_in_a_record_that_was_changed_is_not_there(data: bytes, place: Path) -> None:
    one, two, three, four = data.splitlines(keepends=True)
    path = place / "copy.jsonl"
    path.write_bytes(one + two.replace(b"refused", b"allowed") + three + four)
    assert verify_log([path], [json.loads(two)["hash"]]).lost_heads


def test_what_audit_head_did_not_print_is_no_list_of_heads() -> None:
    for text in ("hello", "0" * 64, f"{'g' * 64}  1  a", f"{'a' * 63}  1  a"):
        with pytest.raises(InvalidInputError):
            read_heads(text)
    assert read_heads(f"{NO_HASH}  0  empty.jsonl\n{'a' * 64}  1  *\n") == []


def test_a_log_that_does_not_exist_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(NotFoundError, match="no such directory"):
        verify_log()
    with pytest.raises(NotFoundError):
        verify_log([tmp_path / "missing.jsonl"])


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b"\xff\n", b"[" * 60_000 + b"\n", b"a" * 70_000 + b"\n", b"a" * 70_000]
)
def test_a_line_that_is_no_record_hides_nothing_after_it(data: bytes, place: Path, line: bytes) -> None:
    one, two, three, four = data.splitlines(keepends=True)
    report = verified(one + line + two + three.replace(b"allowed", b"refused") + four, place)
    assert len(report.files[0].problems) >= 2
