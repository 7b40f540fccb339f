"""`batuta serve audit`: whether the log is whole, and what proves it later."""

import os
from pathlib import Path

import pytest

from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.tiers import PrivacyTier
from tests.cli.support import answer, hints, in_a_shell, result
from tests.conftest import Run


@pytest.fixture
def directory(home: Path) -> Path:
    """A log of two processes with three decisions each."""
    path = home / "state" / "batuta" / "audit"
    for process in range(2):
        log = AuditLog(path)
        for number in range(3):
            log.record(
                Decision(f"r{number}", PrivacyTier.SOVEREIGN, f"box{process}", "127.0.0.1:1", True, "the loopback")
            )
        log.close()
    return path


def first(directory: Path) -> Path:
    return min(directory.iterdir())


def test_a_log_that_nobody_touched_is_whole(batuta: Run, directory: Path) -> None:
    assert batuta("serve", "audit", "verify", code=0).stdout == "6 decisions in 2 files: every chain is unbroken\n"
    found = result(batuta("serve", "audit", "verify", "--json", code=0))
    assert (found["decisions"], [file["decisions"] for file in found["files"]]) == (6, [3, 3])


@pytest.mark.parametrize("command", ["verify", "head"])
def test_without_a_log_there_is_nothing_to_call_whole(batuta: Run, home: Path, work: Path, command: str) -> None:
    log = home / "state" / "batuta" / "audit"
    (work / "empty").mkdir()
    (work / "broken").symlink_to("nowhere")
    for given in ([], ["missing"], ["empty"], ["broken"], [work / "missing" / "deeper"]):
        done = batuta("serve", "audit", command, *given, code=1)
        assert done.stdout == "" and "or the log was removed" in done.stderr
        assert answer(batuta("serve", "audit", command, *given, "--json", code=1))["error"]["kind"] == "not_found"
    log.mkdir(parents=True)
    assert str(log) in batuta("serve", "audit", command, code=1).stderr
    log.rmdir()
    log.symlink_to("nowhere")
    batuta("serve", "audit", command, code=1)
    log.unlink()
    log.write_text("not a directory")
    batuta("serve", "audit", command, code=1)


@pytest.mark.parametrize("how", ["removed", "directory", "link to nowhere", "fifo"])
def test_a_file_of_the_log_that_was_taken_away_is_exit_1(batuta: Run, directory: Path, work: Path, how: str) -> None:
    (work / "heads").write_text(batuta("serve", "audit", "head", code=0).stdout)
    path = first(directory)
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "link to nowhere":
        path.symlink_to("nowhere")
    elif how == "fifo":
        os.mkfifo(path)
    batuta("serve", "audit", "verify", "--head", "heads", code=1)
    if how != "removed":  # a chain cannot show that a whole file is gone; its name that is still there does
        assert path.name in batuta("serve", "audit", "verify", code=1).stderr


def test_a_changed_decision_is_exit_1_and_named(batuta: Run, directory: Path) -> None:
    path = first(directory)
    path.write_bytes(path.read_bytes().replace(b'"allowed"', b'"refused"', 1))
    done = batuta("serve", "audit", "verify", code=1)
    assert f"{path.name}: line 1 was changed" in done.stderr
    failed = answer(batuta("serve", "audit", "verify", "--json", code=1))
    assert failed["error"]["kind"] == "damaged_state"
    assert failed["result"]["files"][0]["problems"] == ["line 1 was changed"]
    batuta("serve", "audit", "head", code=1)


def test_much_that_is_wrong_is_counted(batuta: Run, directory: Path) -> None:
    with open(first(directory), "ab") as file:
        file.write(b"x\n" * 50)
    done = batuta("serve", "audit", "verify", code=1)
    assert "and 40 more" in done.stderr
    assert len(done.stderr.splitlines()) == 12


def test_a_saved_head_finds_what_was_cut_off_and_what_was_taken_away(batuta: Run, directory: Path, work: Path) -> None:
    (work / "heads.txt").write_text(batuta("serve", "audit", "head", code=0).stdout)
    for form in ("heads.txt", "-"):
        fed = (work / "heads.txt").read_text() if form == "-" else None
        done = batuta("serve", "audit", "verify", "--head", form, input=fed, code=0)
        assert "all 2 heads are in it" in done.stdout
    path = first(directory)  # before a third file comes, whose name may sort before
    AuditLog(directory).record(Decision("later", PrivacyTier.STANDARD, "b", "1.1.1.1:443", True, "x"))
    batuta("serve", "audit", "verify", "--head", "heads.txt", code=0)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    batuta("serve", "audit", "verify", code=0)
    assert "something was taken away" in batuta("serve", "audit", "verify", "--head", "heads.txt", code=1).stderr
    path.unlink()
    batuta("serve", "audit", "verify", "--head", "heads.txt", code=1)


def test_the_one_hash_of_the_whole_log_is_good_until_the_next_decision(batuta: Run, directory: Path) -> None:
    whole = batuta("serve", "audit", "head", code=0).stdout.splitlines()[-1]
    head, decisions, name = whole.split("  ")
    assert (decisions, name) == ("6", "*")
    assert result(batuta("serve", "audit", "head", "--json", code=0))["head"] == head
    assert "the head is in it" in batuta("serve", "audit", "verify", "--head", head, code=0).stdout
    AuditLog(directory).record(Decision("later", PrivacyTier.STANDARD, "b", "1.1.1.1:443", True, "x"))
    batuta("serve", "audit", "verify", "--head", head, code=1)


def test_an_incomplete_last_line_is_a_warning(batuta: Run, directory: Path) -> None:
    path = first(directory)
    path.write_bytes(path.read_bytes()[:-20])
    done = batuta("serve", "audit", "verify", code=0)
    assert f"{path.name}: the last line is incomplete" in done.stderr
    assert "5 decisions" in done.stdout
    assert result(batuta("serve", "audit", "verify", "--json", code=0))["files"][0]["incomplete"] is True


def test_copies_in_other_places_can_be_checked(batuta: Run, directory: Path, work: Path) -> None:
    directory.rename(work / "backup")
    assert "6 decisions" in batuta("serve", "audit", "verify", "backup", code=0).stdout
    one = first(work / "backup").relative_to(work)
    assert "3 decisions in 1 file" in batuta("serve", "audit", "verify", one, code=0).stdout
    assert "missing" in batuta("serve", "audit", "verify", "missing", code=1).stderr
    (work / "pipe").mkdir()
    (work / "other").write_bytes(b"hello\n")
    assert "other: line 1 is not a record" in batuta("serve", "audit", "verify", "other", code=1).stderr


def test_a_head_that_is_none_is_wrong_usage(
    batuta: Run, directory: Path, work: Path, environment: dict[str, str]
) -> None:
    done = batuta("serve", "audit", "verify", "--head", "abc", code=2)
    in_a_shell(hints(done)[-1], environment, work)
    batuta("serve", "audit", "verify", "--head", "heads.txt", code=0)
    (work / "heads.txt").write_text("hello\n")
    assert "heads.txt: not an output" in batuta("serve", "audit", "verify", "--head", "heads.txt", code=2).stderr
    (work / "heads.txt").write_bytes(b"\xff")
    batuta("serve", "audit", "verify", "--head", "heads.txt", code=2)


def test_a_name_in_the_log_does_not_drive_the_terminal(batuta: Run, directory: Path) -> None:
    first(directory).rename(directory / "a\x1b[31m\n.jsonl")
    for command in ("head", "verify"):
        assert "\x1b" not in batuta("serve", "audit", command, code=0).stdout
    assert len(batuta("serve", "audit", "head", code=0).stdout.splitlines()) == 3


def test_a_path_without_a_log_does_not_pass(batuta: Run, work: Path) -> None:
    (work / "backup").mkdir()
    assert "no audit log" in batuta("serve", "audit", "verify", "backup", code=1).stderr
