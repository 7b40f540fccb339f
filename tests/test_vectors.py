"""The vectors of tests/vectors/ lead through the command line to what they say, and none of their files has changed."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BATUTA
from tests.vectors.case import DATA, HERE, INDEX, SUMS
from tests.vectors.make import cases

ROOT = HERE.parent.parent
VECTORS: list[dict[str, Any]] = json.loads(INDEX.read_text())["vectors"]
GROUPS = ("signature", "oms", "pachaenc1", "pachaenc2", "directory")


def test_the_files_are_those_of_the_version_that_made_them() -> None:
    found = {
        str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA.rglob("*")
        if path.is_file()
    }
    rows = [line.split("  ", 1) for line in SUMS.read_text().splitlines()]
    listed = {name: digest for digest, name in rows}
    assert found == listed


def test_the_index_is_what_the_cases_say_and_names_every_folder_once() -> None:
    assert [case.row() for case in cases()] == VECTORS
    folders = [vector["directory"] for vector in VECTORS]
    assert sorted(folders) == sorted(f"data/{p.relative_to(DATA)}" for p in DATA.glob("*/*"))
    assert {vector["group"] for vector in VECTORS} == set(GROUPS)


def _prepared(vector: dict[str, Any], folder: Path) -> list[str]:
    """A copy of a vector's files, and its command line with the paths in that copy."""
    shutil.copytree(HERE / vector["directory"], folder)
    if vector["group"] == "directory":
        for name, text in json.loads((folder / "model.json").read_text())["files"].items():
            path = folder / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(text))
        (folder / "model").mkdir(exist_ok=True)
    return [str(folder / word) if word == "output" or (folder / word).exists() else word for word in vector["run"]]


@pytest.fixture(params=GROUPS)
def results(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[list[tuple[dict[str, Any], Path, int, Any]]]:
    """The vectors of a group with their folder, exit status and JSON; all are run in one process."""
    vectors = [vector for vector in VECTORS if vector["group"] == request.param and not vector.get("stdout")]
    folders = [tmp_path / vector["name"] for vector in vectors]
    lines = [
        [["pacha", *_prepared(vector, folder), "--json"], {}] for vector, folder in zip(vectors, folders, strict=True)
    ]
    subprocess.run(
        [sys.executable, "-m", "tests.cli.run_many", str(tmp_path / "results.json")],
        input=json.dumps(lines),
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    done = json.loads((tmp_path / "results.json").read_text())
    yield [
        (vector, folder, status, json.loads(out))
        for vector, folder, (status, out, _) in zip(vectors, folders, done, strict=True)
    ]


def test_every_vector_leads_to_its_exit_status_and_output(
    results: list[tuple[dict[str, Any], Path, int, Any]],
) -> None:
    assert len(results) >= 10
    wrong = [f"{v['name']}: exit {status}: {out['error']}" for v, _, status, out in results if status != v["exit"]]
    assert wrong == []
    for vector, folder, _, document in results:
        output = folder / "output"
        assert output.exists() == ("output_size" in vector), vector["name"]
        if output.exists():
            data = output.read_bytes()
            found = (len(data), hashlib.sha256(data).hexdigest())
            assert found == (vector["output_size"], vector["output_sha256"]), vector["name"]
        if "address" in vector:
            assert document["result"][0]["address"] == vector["address"], vector["name"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.get("stdout")], ids=lambda vector: vector["name"])
def test_what_a_pipe_gets_before_a_failure_is_a_true_beginning(
    vector: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    line = _prepared(vector, tmp_path / "case")
    done = subprocess.run([BATUTA, "pacha", *line], env=environment, capture_output=True, timeout=60)
    assert done.returncode == vector["exit"]
    found = (len(done.stdout), hashlib.sha256(done.stdout).hexdigest())
    assert found == (vector["output_size"], vector["output_sha256"])
