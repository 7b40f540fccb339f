"""What is installed from PyPI: everything that the program reads, and nothing that only its makers need."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (ROOT / "batuta_cli").rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    assert {path.suffix for path in files} >= {".jinja", ".json", ".py", ".ranks", ".toml", ".typed"}
    assert {str(path.relative_to(ROOT)) for path in files} <= inside


def test_nothing_else_of_the_repository_is_in_the_wheel_but_man_pages_and_completions(wheel: Path) -> None:
    tops = {name.split("/")[0].rpartition(".")[2] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"batuta_cli", "data", "dist-info"}


def test_the_program_and_its_data_are_found_where_they_were_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    site = str(tmp_path / "site")
    program = f"import sys; sys.path.insert(0, {site!r}); from batuta_cli.cli import app; "
    program += f"assert app.__file__.startswith({site!r}); app.main()"
    places = {f"XDG_{kind}_HOME": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=places, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("serve", "template", "--format", "llama2", "--user", "Hello") == "<s>[INST] Hello [/INST]"
    assert "exact" in run("serve", "context", "--model", "gpt-4o", "--user", "Hello")
    assert run("serve", "route", "--queue-depth", "3") == "Realizar\n"
    check = ("--model", "gpt-4", "--input-tokens", "10", "--max-output-tokens", "10")
    assert run("serve", "budget", "check", *check).startswith("allowed: $0.0009 ")
