"""`batuta pacha hash --check` on lists of `b3sum` and `sha256sum`, and warnings of Git LFS pointers."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.support import own_key, result, signed_model
from tests.conftest import Run

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


@pytest.fixture
def files(work: Path) -> list[str]:
    for name in ("a", "b"):
        (work / name).write_text(name)
    return ["a", "b"]


def lines(work: Path, *command: str) -> str:
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout


def test_a_list_of_sha256sum_is_checked(batuta: Run, work: Path, files: list[str]) -> None:
    (work / "plain").write_text(lines(work, "sha256sum", *files))
    (work / "tagged").write_text(lines(work, "sha256sum", "--tag", *files))
    for arguments in (("plain", "--algorithm", "sha256"), ("tagged",), ("tagged", "--algorithm", "sha256")):
        assert batuta("pacha", "hash", "--check", *arguments, code=0).stdout == "a: OK\nb: OK\n"
    (work / "b").write_text("changed")
    done = batuta("pacha", "hash", "--check", "tagged", "--json", code=3)
    assert [row["ok"] for row in result(done)] == [True, False]
    assert result(done)[0]["digest"].startswith("sha256:")


def test_a_list_of_b3sum_is_checked(batuta: Run, work: Path, files: list[str]) -> None:
    (work / "list").write_text("\ufeff# weights\n" + lines(work, "b3sum", *files))
    assert batuta("pacha", "hash", "--check", "list", code=0).stdout == "a: OK\nb: OK\n"


def test_our_own_sha256_list_is_one_that_sha256sum_checks(batuta: Run, work: Path, files: list[str]) -> None:
    (work / "list").write_text(batuta("pacha", "hash", "--algorithm", "sha256", *files, code=0).stdout)
    assert lines(work, "sha256sum", "--check", "list") == "a: OK\nb: OK\n"
    batuta("pacha", "hash", "--algorithm", "sha256", "--check", "list", code=0)


def test_a_sha256_list_that_is_read_as_blake3_says_which_option_is_missing(
    batuta: Run, work: Path, files: list[str]
) -> None:
    (work / "list").write_text(lines(work, "sha256sum", "a"))
    done = batuta("pacha", "hash", "--check", "list", code=3)
    assert "a: FAILED" in done.stderr and "--algorithm sha256" in done.stderr
    (work / "a").write_text("changed")
    assert "--algorithm" not in batuta("pacha", "hash", "--check", "list", code=3).stderr


def test_ignore_missing_skips_files_that_do_not_exist_and_nothing_else(
    batuta: Run, work: Path, files: list[str]
) -> None:
    (work / "list").write_text(batuta("pacha", "hash", *files, code=0).stdout)
    (work / "a").unlink()
    batuta("pacha", "hash", "--check", "list", code=1)
    assert batuta("pacha", "hash", "--check", "list", "--ignore-missing", code=0).stdout == "b: OK\n"
    (work / "b").write_text("changed")
    batuta("pacha", "hash", "--check", "list", "--ignore-missing", code=3)
    (work / "b").unlink()
    done = batuta("pacha", "hash", "--check", "list", "--ignore-missing", code=1)
    assert "none of the listed files exists, so nothing was checked" in done.stderr
    (work / "b").symlink_to("nowhere")
    batuta("pacha", "hash", "--check", "list", "--ignore-missing", code=1)
    batuta("pacha", "hash", "list", "--ignore-missing", code=2)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_signing_a_git_lfs_pointer_is_warned_of(batuta: Run, home: Path, work: Path, options: tuple[str, ...]) -> None:
    own_key(home)
    (work / "m").mkdir()
    (work / "m" / "model.safetensors").write_text(POINTER)
    (work / "m" / "windows").write_text(POINTER.replace("\n", "\r\n"), newline="")
    (work / "m" / "README.md").write_text("as of " + POINTER)
    (work / "m" / "long").write_text(POINTER + "x" * 1024)
    done = batuta("pacha", "sign", "m", *options, code=0)
    warned = [line for line in done.stderr.splitlines() if "Git LFS pointer" in line]
    assert [line.split(": ")[1] for line in warned] == ["m/model.safetensors", "m/windows"]
    done = batuta("pacha", "sign", "m", "--ignore", "model.safetensors", "--force", code=0)
    assert "model.safetensors" not in done.stderr


def test_other_commands_warn_of_a_pointer_too(batuta: Run, home: Path, work: Path) -> None:
    key = own_key(home)
    (work / "weights").write_text(POINTER)
    warning = "warning: weights: is a Git LFS pointer and not the file itself; fetch the file: git lfs pull\n"
    for arguments in (("sign", "weights"), ("store", "add", "weights", "--name", "w"), ("encrypt", "weights")):
        assert warning in batuta("pacha", *arguments, env={"MODEL_KEY": "secret"}, code=0).stderr
    signed_model(work, key, "real")
    (work / "real").write_text(POINTER)
    assert "real: is a Git LFS pointer" in batuta("pacha", "verify", "real", code=3).stderr
    assert "pointer" not in batuta("pacha", "verify", "weights", code=0).stderr
