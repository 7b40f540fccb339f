"""`batuta pacha hash`: addresses as `b3sum` prints them, lists that are checked, and inputs that are no files."""

import os
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.support import answer, on_a_terminal, result
from tests.conftest import BATUTA, Run

ODD_NAMES = ["plain", "with space", "back\\slash", "line\nbreak", "\x1b[31mred", "-dash", "ünïcode", "'quote'"]


def b3sum(*arguments: str | Path, cwd: Path, input: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["b3sum", *map(str, arguments)], cwd=cwd, input=input, capture_output=True, text=True)


def test_names_are_quoted_as_b3sum_quotes_them_and_its_lists_are_read(batuta: Run, work: Path) -> None:
    for name in ODD_NAMES:
        (work / name).write_text(name)
    ours = batuta("pacha", "hash", "--", *ODD_NAMES, code=0).stdout
    theirs = b3sum("--", *ODD_NAMES, cwd=work).stdout
    plain = "".join(line.replace("blake3:", "", 1) + "\n" for line in ours.split("\n")[:-1])
    assert plain == theirs
    (work / "theirs").write_text(theirs)
    (work / "ours").write_text(ours)
    for checklist in ("theirs", "ours"):
        done = batuta("pacha", "hash", "--check", checklist, code=0)
        assert len(done.stdout.splitlines()) == len(ODD_NAMES)
        assert "\x1b" not in done.stdout
    checked = b3sum("--check", cwd=work, input=plain)
    assert checked.returncode == 0, checked.stderr
    (work / "return\r").write_text("x")  # older releases of b3sum write this one as it is
    returned = batuta("pacha", "hash", "return\r", code=0).stdout
    assert returned.startswith("\\blake3:") and returned.endswith("  return\\r\n")
    batuta("pacha", "hash", "--check", "-", input=returned, code=0)
    crlf = "".join(f"{line}\r\n" for line in theirs.splitlines() if "plain" in line)
    batuta("pacha", "hash", "--check", "-", input=crlf, code=0)


def test_a_name_that_is_not_utf8_is_shown_as_b3sum_shows_it_and_not_guessed_from_a_list(
    batuta: Run, work: Path
) -> None:
    name = b"mod\xffel".decode(errors="surrogateescape")
    (work / name).write_bytes(b"x")
    done = batuta("pacha", "hash", name, code=0)
    assert done.stdout.removeprefix("blake3:") == b3sum(name, cwd=work).stdout
    assert "cannot be read" in batuta("pacha", "hash", "--check", "-", input=done.stdout, code=2).stderr
    assert result(batuta("pacha", "hash", name, "--json", code=0))[0]["path"] == name


def test_the_address_is_blake3_of_the_content_wherever_it_comes_from(batuta: Run, work: Path) -> None:
    content = os.urandom(5_000_000)
    (work / "model").write_bytes(content)
    os.symlink("model", work / "link")
    expected = f"blake3:{blake3(content).hexdigest()}"
    assert batuta("pacha", "hash", "model", "link", code=0).stdout == f"{expected}  model\n{expected}  link\n"
    piped = batuta("pacha", "hash", "-", input=content, text=False, code=0).stdout
    assert piped == f"{expected}  -\n".encode()  # type: ignore[comparison-overlap]
    with open(work / "model", "rb") as file:
        shown = batuta("pacha", "hash", f"/dev/fd/{file.fileno()}", code=0, pass_fds=[file.fileno()]).stdout
    assert shown.startswith(expected)
    assert batuta("pacha", "hash", "/dev/null", code=0).stdout == f"blake3:{blake3(b'').hexdigest()}  /dev/null\n"


def test_all_paths_are_tried_and_the_worst_decides(batuta: Run, work: Path) -> None:
    (work / "good").write_bytes(b"x")
    (work / "empty").mkdir()
    done = batuta("pacha", "hash", "missing", "good", "empty", code=2)
    assert done.stdout.endswith("  good\n") and done.stdout.count("\n") == 1
    assert "missing: no such file" in done.stderr
    assert "empty: the directory has no file in it" in done.stderr
    assert "2 of 3 failed" in done.stderr
    document = answer(batuta("pacha", "hash", "missing", "good", "empty", "--json", code=2))
    assert [(row["path"], row["ok"]) for row in document["result"]] == [
        ("missing", False),
        ("good", True),
        ("empty", False),
    ]
    assert [row["error"] and row["error"]["exit_code"] for row in document["result"]] == [1, None, 2]
    batuta("pacha", "hash", "missing", "good", code=1)


def test_a_list_is_checked_to_its_end_and_each_verdict_is_shown(batuta: Run, work: Path) -> None:
    for name in ("same", "changed", "missing"):
        (work / name).write_bytes(name.encode())
    batuta_list = batuta("pacha", "hash", "changed", "missing", "same", code=0).stdout
    (work / "SUMS").write_text(batuta_list)
    (work / "changed").write_bytes(b"CHANGED")
    (work / "missing").unlink()
    done = batuta("pacha", "hash", "--check", "SUMS", code=3)
    assert done.stdout == "same: OK\n"
    assert "changed: FAILED" in done.stderr
    assert "missing: no such file" in done.stderr
    document = answer(batuta("pacha", "hash", "-c", "SUMS", "--json", code=3))
    assert [row["ok"] for row in document["result"]] == [False, False, True]
    assert document["result"][0]["address"] == f"blake3:{blake3(b'CHANGED').hexdigest()}"
    (work / "changed").write_bytes(b"changed")
    batuta("pacha", "hash", "--check", "SUMS", code=1)
    (work / "missing").write_bytes(b"missing")
    done = batuta("pacha", "hash", "--check", "SUMS", "--quiet", code=0)
    assert (done.stdout, done.stderr) == ("", "")
    batuta("pacha", "hash", "--check", "-", input=batuta_list, code=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing to check"),
        ("\n\n", "nothing to check"),
        ("garbage\n", "line 1"),
        ("blake3:" + "0" * 64 + " model\n", "line 1"),
        ("blake3:" + "0" * 63 + "  model\n", "line 1"),
        ("sha512:" + "0" * 64 + "  model\n", "line 1"),
        ("blake3:" + "0" * 64 + "  \n", "line 1"),
        ("\\blake3:" + "0" * 64 + "  a\\tb\n", "line 1"),
        ("blake3:" + "0" * 64 + "  a\0b\n", "line 1"),
    ],
)
def test_a_malformed_list_is_refused_with_file_and_line(batuta: Run, work: Path, text: str, words: str) -> None:
    (work / "SUMS").write_text(text)
    done = batuta("pacha", "hash", "--check", "SUMS", code=2)
    assert done.stderr.startswith("error: SUMS: ")
    assert words in done.stderr


def test_a_list_that_is_binary_missing_or_a_directory_is_refused(batuta: Run, work: Path) -> None:
    (work / "binary").write_bytes(b"\xff" * 100)
    assert "binary: not a list" in batuta("pacha", "hash", "--check", "binary", code=2).stderr
    assert "missing: no such file" in batuta("pacha", "hash", "--check", "missing", code=1).stderr
    assert "is a directory" in batuta("pacha", "hash", "--check", ".", code=2).stderr
    for arguments in ([], ["model", "--check", "list"]):
        done = batuta("pacha", "hash", *arguments, code=2)
        assert "batuta pacha hash --help" in done.stderr


def test_a_directory_has_an_address_that_binds_names_and_contents(batuta: Run, work: Path) -> None:
    (work / "m" / "sub").mkdir(parents=True)
    (work / "m" / "a").write_bytes(b"1")
    (work / "m" / "sub" / "b").write_bytes(b"2")
    first = batuta("pacha", "hash", "m", code=0).stdout.split()[0]
    assert batuta("pacha", "hash", "m/", code=0).stdout == f"{first}  m/\n"
    assert batuta("pacha", "hash", ".", cwd=work / "m", code=0).stdout == f"{first}  .\n"
    assert batuta("pacha", "hash", "sub/..", cwd=work / "m", code=0).stdout.split()[0] == first
    (work / "m" / "sub" / "b").rename(work / "m" / "sub" / "c")
    assert batuta("pacha", "hash", "m", code=0).stdout.split()[0] != first
    (work / "m" / "sub" / "c").unlink()
    (work / "m" / "sub").rmdir()
    without = batuta("pacha", "hash", "m", code=0).stdout
    (work / "m" / "log").write_bytes(b"3")
    assert batuta("pacha", "hash", "m", "--ignore", "log", code=0).stdout == without
    batuta("pacha", "hash", "m", "--ignore", "*", code=2)


def test_links_and_special_files_in_a_directory_are_named_and_not_skipped(batuta: Run, work: Path) -> None:
    inside = work / "m"
    inside.mkdir()
    (inside / "file").write_bytes(b"x")
    (work / "outside").write_bytes(b"y")

    def with_entry(make: object, *flags: str) -> tuple[int, str]:
        assert callable(make)
        make(inside / "entry")
        done = batuta("pacha", "hash", "m", *flags)
        (inside / "entry").unlink()
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    link = {
        "inside": lambda path: os.symlink("file", path),
        "outside": lambda path: os.symlink("../outside", path),
        "directory": lambda path: os.symlink("..", path),
        "circle": lambda path: os.symlink("entry", path),
        "dangling": lambda path: os.symlink("nowhere", path),
        "fifo": os.mkfifo,
        "device": lambda path: os.symlink("/dev/zero", path),
    }
    for name, make in link.items():
        code, shown = with_entry(make)
        assert code == 2 and "m/entry: is a " in shown, name
    assert "--follow-symlinks" in with_entry(link["inside"])[1]
    assert with_entry(link["inside"], "--follow-symlinks")[0] == 0
    assert with_entry(link["outside"], "--follow-symlinks")[0] == 0
    for name, status in (("directory", 2), ("circle", 1), ("dangling", 2), ("fifo", 2), ("device", 2)):
        code, shown = with_entry(link[name], "--follow-symlinks")
        assert code == status and "m/entry: " in shown, name
        assert with_entry(link[name], "--ignore", "entry")[0] == 0


def test_a_name_in_a_directory_that_is_not_utf8_is_an_error_that_names_it(batuta: Run, work: Path) -> None:
    (work / "m").mkdir()
    (work / "m" / b"a\xff".decode(errors="surrogateescape")).write_bytes(b"x")
    done = batuta("pacha", "hash", "m", code=2)
    assert "m/a\\xff: the name is not UTF-8" in done.stderr


def test_names_drive_no_terminal(environment: dict[str, str], work: Path) -> None:
    (work / "\x1b[31mred").write_bytes(b"x")
    status, shown = on_a_terminal(["pacha", "hash", "\x1b[31mred"], environment | {"NO_COLOR": "1"}, work)
    assert status == 0
    assert "\x1b" not in shown and "\\x1b[31mred" in shown


def test_a_fifo_is_read_as_the_stream_it_is(environment: dict[str, str], work: Path) -> None:
    os.mkfifo(work / "fifo")
    with subprocess.Popen(
        [BATUTA, "pacha", "hash", "fifo"], env=environment, cwd=work, stdout=subprocess.PIPE, text=True
    ) as child:
        (work / "fifo").write_bytes(b"from a pipe")
        assert child.communicate()[0] == f"blake3:{blake3(b'from a pipe').hexdigest()}  fifo\n"


def test_a_list_names_files_and_nothing_in_the_store(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"weights")
    batuta("pacha", "store", "add", "model", "--name", "thing", code=0)
    address = batuta("pacha", "hash", "model", code=0).stdout.split()[0]
    (work / "list").write_text(f"{address}  thing\n")
    assert "thing: no such file" in batuta("pacha", "hash", "--check", "list", code=1).stderr
    (work / "list").write_text(f"{address}  -\n")
    assert "-: no such file" in batuta("pacha", "hash", "--check", "list", input="weights", code=1).stderr
