"""What `--ignore` names: globs from the model's root, expanded to paths."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.pacha.ignoring import expand_ignored, files_left_out, matching_part
from tests.pacha.forge import write_model

FILES = (
    ".git/HEAD",
    ".hidden",
    "a.log",
    "b[1].bin",
    "deep/a.log",
    "deep/er/a.log",
    "deep/er/keep",
    "logs/x",
    "weights",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = write_model(tmp_path / "m", dict.fromkeys(FILES, b""))
    (root / "link").symlink_to("deep")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(
    ("glob", "named"),
    [
        ("a.log", ["a.log"]),
        ("*.log", ["a.log"]),
        ("*/*.log", ["deep/a.log"]),
        ("**/*.log", ["a.log", "deep/a.log", "deep/er/a.log"]),
        ("**/a.log", ["a.log", "deep/a.log", "deep/er/a.log"]),
        ("deep/**/a.log", ["deep/a.log", "deep/er/a.log"]),
        ("**/er", ["deep/er"]),
        ("**/er/**/keep", ["deep/er/keep"]),
        ("deep/**", ["deep/a.log", "deep/er"]),
        ("logs", ["logs"]),
        ("logs/", ["logs"]),
        ("./logs//x", ["logs/x"]),
        ("*", [".git", ".hidden", "a.log", "b[1].bin", "deep", "empty", "link", "logs", "weights"]),
        ("**", [".git", ".hidden", "a.log", "b[1].bin", "deep", "empty", "link", "logs", "weights"]),
        (".*", [".git", ".hidden"]),
        ("b[[]1].bin", ["b[1].bin"]),
        ("b?1?.bin", ["b[1].bin"]),
        ("[!a-w.]*", []),
        ("l*", ["link", "logs"]),
        ("link/*", []),
        ("A.LOG", ["A.LOG"]),
        ("not/there", ["not/there"]),
        ("**.log", ["a.log"]),
    ],
)
def test_a_glob_names_paths_from_the_root_and_a_star_stays_in_its_directory(
    model: Path, glob: str, named: list[str]
) -> None:
    assert list(expand_ignored(model, [glob]).paths) == named


def test_the_paths_of_several_globs_are_given_once_and_without_what_lies_beneath_another(model: Path) -> None:
    found = expand_ignored(model, ["deep/er", "**/*.log", "deep/er/**", "deep/er/keep", "x", "*.txt"])
    assert found.paths == ("a.log", "deep/a.log", "deep/er", "x")
    assert found.unmatched == ("x", "*.txt")


def test_a_star_names_what_git_names_for_a_pattern_that_begins_at_the_root(model: Path) -> None:
    globs = ["*.log", "**/a.log", "deep/**", "*/er", "logs", "**/keep", "[a-m]*/x", "b[[]1].bin", "?eights"]
    (model / ".git" / "HEAD").unlink()
    (model / ".git").rmdir()
    subprocess.run(["git", "init", "-q", "."], cwd=model, check=True)
    for glob in globs:
        (model / ".git" / "info" / "exclude").write_text(f"/{glob}\n")
        listed = ["git", "ls-files", "--others", "--ignored", "--exclude-standard"]
        done = subprocess.run(listed, cwd=model, capture_output=True, text=True, check=True)
        assert list(files_left_out(model, expand_ignored(model, [glob]).paths)) == sorted(done.stdout.splitlines())


@pytest.mark.parametrize("glob", ["", ".", "./", "/", "//", "/a.log", "..", "deep/../a.log", "deep/..", "\0"])
def test_a_glob_that_leads_nowhere_or_out_of_the_model_is_refused(model: Path, glob: str) -> None:
    for use in (lambda: expand_ignored(model, ["a.log", glob]), lambda: matching_part([glob], "a.log")):
        with pytest.raises(InvalidInputError, match="does not name a path inside the model"):
            use()


def test_a_glob_of_any_length_or_shape_is_judged_quickly(model: Path) -> None:
    hostile = "**/" * 500 + "*a" * 500 + "/b"
    assert expand_ignored(model, [hostile]).unmatched == (hostile,)
    with pytest.raises(InvalidInputError, match="5,000 characters"):
        expand_ignored(model, ["a" * 5000])


def test_a_single_file_has_nothing_that_a_glob_could_name(model: Path) -> None:
    found = expand_ignored(model / "weights", ["weights", "*"])
    assert (found.paths, found.unmatched) == ((), ("weights", "*"))
    with pytest.raises(NotFoundError):
        expand_ignored(model / "missing", ["*"])


def test_the_part_of_a_path_that_a_glob_covers_is_the_topmost() -> None:
    assert matching_part(["sub/*.sig", "s*"], "sub/model.sig") == "sub"
    assert matching_part(["sub/*.sig"], "sub/model.sig") == "sub/model.sig"
    assert matching_part(["**/*.sig"], "model.sig") == "model.sig"
    assert matching_part(["*.sig", "model"], "sub/model.sig") is None


def test_what_lies_beneath_ignored_paths_is_listed_with_links_and_special_files(model: Path) -> None:
    os.mkfifo(model / "deep" / "fifo")
    (model / "deep" / "out").symlink_to("/etc")
    named = ["deep", "link", "deep/er", "missing", "weights/below", "a" * 300, "a.log"]
    expected = ("a.log", "deep/a.log", "deep/er/a.log", "deep/er/keep", "deep/fifo", "deep/out", "link")
    assert files_left_out(model, named) == expected


def test_an_ignored_directory_need_not_be_readable(
    model: Path, unprivileged: Callable[[], None], environment: dict[str, str]
) -> None:
    (model / "deep").chmod(0)
    code = (
        "import sys; from batuta_cli.pacha.ignoring import *;"
        "print(expand_ignored(sys.argv[1], ['deep', '**/*.log']).paths, files_left_out(sys.argv[1], ['deep']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=unprivileged,
    )
    (model / "deep").chmod(0o700)
    assert done.stdout == "('a.log', 'deep') ('deep/',)\n", done.stderr
