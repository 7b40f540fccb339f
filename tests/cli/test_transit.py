"""Signed directories that travel: signatures inside them, and what git and `hf download` add on the way."""

from pathlib import Path

import pytest

from tests.cli.support import own_key, result
from tests.conftest import Run
from tests.pacha.oms.forge import Signatory, bundle, resources, statement


@pytest.fixture
def model(home: Path, work: Path) -> Path:
    own_key(home)
    (work / "model").mkdir()
    (work / "model" / "weights").write_text("w")
    return work / "model"


def add(model: Path, *names: str) -> None:
    for name in names:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("added on the way")


GIT = (".git/config", ".git/objects/aa/bb", ".gitattributes", ".gitignore", ".github/workflows/ci.yml")
HF = (".cache/huggingface/download/weights.metadata", ".cache/huggingface/.gitignore")


@pytest.mark.parametrize(("transport", "names"), [("git", GIT), ("hf", HF)])
def test_what_a_transport_adds_is_tolerated_on_request_and_listed(
    batuta: Run, model: Path, transport: str, names: tuple[str, ...]
) -> None:
    batuta("pacha", "sign", "model", code=0)
    add(model, *names)
    batuta("pacha", "verify", "model", code=3)
    done = batuta("pacha", "verify", "model", "--allow-unsigned", transport, code=0)
    assert "  not signed, and tolerated: " + ", ".join(sorted(names)) in done.stdout
    [found] = result(batuta("pacha", "verify", "model", "--allow-unsigned", transport, "--json", code=0))
    assert found["unsigned"] == sorted(names)
    other = "hf" if transport == "git" else "git"
    batuta("pacha", "verify", "model", "--allow-unsigned", other, code=3)


@pytest.mark.parametrize("name", ["sub/.gitattributes", ".gitmodules", ".cache/other", "x.git/config", "new"])
def test_the_sets_name_nothing_else(batuta: Run, model: Path, name: str) -> None:
    batuta("pacha", "sign", "model", code=0)
    add(model, name)
    done = batuta("pacha", "verify", "model", "--allow-unsigned", "git", "--allow-unsigned", "hf", code=3)
    assert f"added: {name}" in done.stderr


def test_a_change_to_a_signed_file_is_never_tolerated(batuta: Run, model: Path) -> None:
    add(model, ".gitattributes", "other")
    batuta("pacha", "sign", "model", code=0)
    everything = ("pacha", "verify", "model", "--allow-unsigned", "**", "--allow-unsigned", "git")
    batuta(*everything, code=0)
    (model / ".gitattributes").write_text("changed")
    assert "changed: .gitattributes" in batuta(*everything, code=3).stderr
    (model / ".gitattributes").unlink()
    assert "missing: .gitattributes" in batuta(*everything, code=3).stderr
    (model / ".gitattributes").symlink_to("other")
    assert "changed: .gitattributes" in batuta(*everything, code=3).stderr
    (model / ".gitattributes").unlink()
    add(model, ".gitattributes")
    (model / "weights").rename(model / "renamed")
    assert "renamed: weights is now renamed" in batuta(*everything, code=3).stderr


def test_a_glob_is_the_verifier_s_own(batuta: Run, model: Path) -> None:
    batuta("pacha", "sign", "model", code=0)
    add(model, "logs/a.log", "logs/b.txt")
    batuta("pacha", "verify", "model", "--allow-unsigned", "logs/*.log", code=3)
    batuta("pacha", "verify", "model", "--allow-unsigned", "logs", code=0)
    for glob in ("", ".", "/logs", "../x"):
        batuta("pacha", "verify", "model", "--allow-unsigned", glob, code=2)


def test_a_digest_is_over_all_that_is_there(batuta: Run, model: Path) -> None:
    batuta("pacha", "sign", "model", code=0)
    before = batuta("pacha", "hash", "model", code=0).stdout.split()[0]
    add(model, ".gitattributes")
    after = batuta("pacha", "hash", "model", code=0).stdout.split()[0]
    options = ("pacha", "verify", "model", "--allow-unsigned", "git", "--identity", "alice@example.com", "--digest")
    batuta(*options, before, code=3)
    batuta(*options, after, code=0)


def test_a_signature_inside_travels_with_the_directory(batuta: Run, model: Path, work: Path) -> None:
    done = batuta("pacha", "sign", "model", "--inside", code=0)
    assert "model/model.sig" in done.stdout
    model.rename(work / "elsewhere")
    done = batuta("pacha", "verify", "elsewhere", code=0)
    assert "not covered by the signature: model.sig" in done.stdout
    batuta("pacha", "sign", "elsewhere", "--inside", code=2)
    batuta("pacha", "sign", "elsewhere", "--inside", "--force", code=0)
    add(work / "elsewhere", "sub/model.sig")
    assert "added: sub/model.sig" in batuta("pacha", "verify", "elsewhere", code=3).stderr
    (work / "file").touch()
    assert "is not a directory" in batuta("pacha", "sign", "file", "--inside", code=2).stderr
    batuta("pacha", "sign", "elsewhere", "--inside", "-o", "x.sig", code=2)


def test_the_signature_beside_a_directory_comes_first(batuta: Run, model: Path, work: Path) -> None:
    batuta("pacha", "sign", "model", "--inside", code=0)
    (work / "model.sig").write_text("{}")
    batuta("pacha", "verify", "model", code=2)


def test_the_signature_of_another_tool_inside_is_not_part_of_the_model(batuta: Run, work: Path, model: Path) -> None:
    signer = Signatory()
    signer.save(work)
    (model / "model.sig").write_bytes(
        bundle(statement(resources({"weights": b"w"})), signer)
    )  # records nothing ignored
    done = batuta("pacha", "verify", "model", "--key", "ec.pub", code=0)
    assert "not signed, and tolerated: model.sig" in done.stdout
    add(model, "other.sig")
    batuta("pacha", "verify", "model", "--key", "ec.pub", code=3)
    (model / "other.sig").unlink()
    batuta("pacha", "sign", "model", "--oms-key", "ec.pem", "--inside", "--force", code=0)
    assert (
        "not covered by the signature: model.sig"
        in batuta("pacha", "verify", "model", "--key", "ec.pub", code=0).stdout
    )
