"""`batuta pacha verify --report github`: annotations that no name can forge, and a table in the job's summary.

The escapes are those of the runner: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

import json
import re
from pathlib import Path

import pytest

from batuta_cli.pacha.signing import sign_path
from tests.cli.support import forget_trust, own_key, signed_model
from tests.conftest import Run

COMMAND = re.compile(r"::(error|warning|notice) file=([^,:\r\n]*),title=batuta pacha verify::([^\r\n]*)")


def read(text: str, escapes: str) -> str:
    """An escaped text as the runner reads it: `%25` last, so that an escaped `%0A` stays text."""
    for character in escapes:
        text = text.replace(f"%{ord(character):02X}", character)
    return text.replace("%25", "%")


def annotations(stdout: str) -> list[tuple[str, str, str]]:
    """Kind, file and message of each line; every line must be one."""
    found = []
    for line in stdout.splitlines():
        match = COMMAND.fullmatch(line)
        assert match, line
        found.append((match[1], read(match[2], "\r\n:,"), read(match[3], "\r\n")))
    return found


def test_each_model_gets_an_annotation_and_a_row_of_the_summary(batuta: Run, work: Path, home: Path) -> None:
    key = own_key(home)
    signed_model(work, key, "good.gguf")
    signed_model(work, key, "bad.gguf").write_bytes(b"changed")
    (work / "summary").write_text("before\n")
    where = {"GITHUB_STEP_SUMMARY": str(work / "summary"), "GITHUB_WORKSPACE": str(work), "FORCE_COLOR": "1"}
    paths = (work / "good.gguf", "bad.gguf", "missing.gguf")
    done = batuta("pacha", "verify", *paths, "--report", "github", env=where, code=3)
    good, bad, missing = annotations(done.stdout)
    assert good[:2] == ("notice", "good.gguf")
    assert "verified, signed by alice@example.com" in good[2]
    assert bad == ("error", "bad.gguf", "bad.gguf: the content is not what was signed")
    assert missing == ("error", "missing.gguf", "missing.gguf: no such file or directory")
    summary = (work / "summary").read_text()
    assert summary.startswith("before\n### batuta pacha verify\n\n| model | result | details |\n|---|---|---|\n")
    assert "| bad.gguf | failed (exit 3) | bad.gguf: the content is not what was signed |\n" in summary
    assert "\x1b" not in done.stdout + summary


def test_each_file_of_a_directory_that_differs_gets_an_annotation(batuta: Run, work: Path, home: Path) -> None:
    model = work / "nemo"
    model.mkdir()
    for name in ("changed", "missing", "old name"):
        (model / name).write_text(name)
    sign_path(model, own_key(home)).save(work / "nemo.sig")
    (model / "changed").write_text("other")
    (model / "missing").unlink()
    (model / "old name").rename(model / "new name")
    (model / "added").write_text("x")
    done = batuta("pacha", "verify", "nemo", "--report", "github", code=3)
    found = annotations(done.stdout)
    assert found[0][1] == "nemo"
    assert [(file, words) for _, file, words in found[1:]] == [
        ("nemo/changed", "is not what was signed"),
        ("nemo/missing", "is missing"),
        ("nemo/added", "was not signed"),
        ("nemo/new name", "was signed as old name"),
    ]


@pytest.mark.parametrize("name", ["a,b:c%0A", "x\n::error::forged", "::add-mask::x", "e%25,\r"])
def test_a_name_cannot_begin_another_command(batuta: Run, work: Path, home: Path, name: str) -> None:
    signed_model(work, own_key(home), name)
    ((kind, file, message),) = annotations(batuta("pacha", "verify", "--report", "github", "--", name, code=0).stdout)
    assert (kind, file) == ("notice", name)
    assert "\n" not in message  # names are shown escaped
    (work / name).write_bytes(b"changed")
    done = batuta("pacha", "verify", "--report", "github", "--", name, code=3)
    assert [(kind, file) for kind, file, _ in annotations(done.stdout)] == [("error", name)]
    assert not [line for line in done.stderr.splitlines() if line.lstrip().startswith("::")]


@pytest.mark.parametrize("options", [["--report", "github"], [], ["--json"]])
def test_no_output_of_a_job_has_a_command_of_the_runners_older_syntax(
    batuta: Run, work: Path, home: Path, options: list[str]
) -> None:
    # The runner finds ##[command] anywhere in a line of either stream, unless the line is a ::command::.
    model = work / "nemo"
    model.mkdir()
    (model / "weights").write_text("weights")
    sign_path(model, own_key(home)).save(work / "nemo.sig")
    name = "##[stop-commands]token"
    (model / name).write_text("added")
    done = batuta("pacha", "verify", "nemo", *options, env={"GITHUB_ACTIONS": "true"}, code=3)
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if "##[" in line and not COMMAND.fullmatch(line)]
    assert "stop-commands]token" in done.stdout + done.stderr
    if "--json" in options:
        assert json.loads(done.stdout)["result"][0]["added"] == [name]
    outside = batuta("pacha", "verify", "nemo", *options, env={"GITHUB_ACTIONS": ""}, code=3)
    assert "##[stop-commands]" in outside.stdout + outside.stderr


def test_a_name_cannot_write_into_the_table(batuta: Run, work: Path, home: Path) -> None:
    name = "a|b`<img src=x>[l](u)@team\n| c"
    signed_model(work, own_key(home), name)
    batuta("pacha", "verify", name, "--report", "github", env={"GITHUB_STEP_SUMMARY": str(work / "summary")}, code=0)
    (row,) = (work / "summary").read_text().splitlines()[4:5]
    assert row.count("|") == 4
    assert not set("<`[@") & set(row.replace("<br>", ""))


def test_a_hint_is_the_second_line_of_the_annotation(batuta: Run, work: Path, home: Path) -> None:
    signed_model(work, own_key(home))
    forget_trust(home)
    ((_, _, message),) = annotations(batuta("pacha", "verify", "model", "--report", "github", code=4).stdout)
    assert "\nhint: " in message
    assert "batuta pacha trust add" in message


def test_quiet_leaves_the_errors(batuta: Run, work: Path, home: Path) -> None:
    model = signed_model(work, own_key(home))
    assert batuta("pacha", "verify", "model", "--report", "github", "-q", code=0).stdout == ""
    model.write_bytes(b"changed")
    assert annotations(batuta("pacha", "verify", "model", "--report", "github", "-q", code=3).stdout)[0][0] == "error"


def test_a_summary_that_cannot_be_written_is_an_error(batuta: Run, work: Path, home: Path) -> None:
    model = signed_model(work, own_key(home))
    where = {"GITHUB_STEP_SUMMARY": str(work / "nothing" / "summary")}
    assert "nothing/summary" in batuta("pacha", "verify", "model", "--report", "github", env=where, code=1).stderr
    model.write_bytes(b"changed")
    assert "nothing/summary" in batuta("pacha", "verify", "model", "--report", "github", env=where, code=3).stderr


def test_other_reports_and_json_beside_one_are_refused(batuta: Run) -> None:
    assert "--report github" in batuta("pacha", "verify", "model", "--report", "gitlab", code=2).stderr
    refused = batuta("pacha", "verify", "model", "--report", "github", "--json", code=2)
    assert '"kind": "usage"' in refused.stdout
