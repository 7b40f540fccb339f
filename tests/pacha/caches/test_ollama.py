"""Ollama's models."""

from pathlib import Path

import pytest

from batuta_cli.pacha.caches.checker import check_cache
from batuta_cli.pacha.caches.ollama import default_roots, root_at, scan
from tests.pacha.caches.support_layouts import ollama_model, sha256, statuses

TINY = "registry.ollama.ai/library/tiny/1b"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (TINY, "tiny:1b"),
        ("registry.ollama.ai/alice/tiny/latest", "alice/tiny:latest"),
        ("hf.co/acme/tiny-GGUF/Q4_K_M", "hf.co/acme/tiny-GGUF:Q4_K_M"),
        ("registry.ollama.ai/library/library/latest", "library:latest"),
    ],
)
def test_a_model_has_the_name_that_ollama_shows_and_pulls(tmp_path: Path, place: str, name: str) -> None:
    ollama_model(tmp_path, place, {"model": b"weights"})
    (finding,) = check_cache(scan(str(tmp_path), {}))
    assert finding.model.name == name
    assert finding.model.files[0].repair.fetch == ("ollama", "pull", name)
    assert finding.intact


@pytest.mark.parametrize("damage", [b"", b"weigh", bytes(7), b"WEIGHTS"])
def test_a_damaged_blob_is_removed_before_it_is_pulled_because_pull_keeps_it(tmp_path: Path, damage: bytes) -> None:
    ollama_model(tmp_path, TINY, {"model": b"weights", "template": b"{{ .Prompt }}"})
    blob = tmp_path / "blobs" / f"sha256-{sha256(b'weights')}"
    blob.write_bytes(damage)
    (finding,) = check_cache(scan(str(tmp_path), {}))
    (file,) = [file for file in finding.files if file.status != "intact"]
    assert (file.status, file.file.uses[0].file) == ("damaged", f"model sha256:{sha256(b'weights')}")
    assert file.commands == (("rm", "-f", str(blob)), ("ollama", "pull", "tiny:1b"))


def test_a_missing_blob_is_only_pulled(tmp_path: Path) -> None:
    ollama_model(tmp_path, TINY, {"model": b"weights"})
    (tmp_path / "blobs" / f"sha256-{sha256(b'weights')}").unlink()
    (finding,) = check_cache(scan(str(tmp_path), {}))
    (file,) = [file for file in finding.files if file.status != "intact"]
    assert (file.status, file.commands) == ("missing", (("ollama", "pull", "tiny:1b"),))


def test_a_layer_that_two_models_share_is_damage_of_both(tmp_path: Path) -> None:
    ollama_model(tmp_path, TINY, {"model": b"one", "license": b"MIT"})
    ollama_model(tmp_path, "registry.ollama.ai/library/other/1b", {"model": b"two", "license": b"MIT"})
    (tmp_path / "blobs" / f"sha256-{sha256(b'MIT')}").write_bytes(b"mit")
    findings = check_cache(scan(str(tmp_path), {}))
    damaged = [file for finding in findings for file in finding.files if file.status == "damaged"]
    assert [file.commands[-1] for file in damaged] == [("ollama", "pull", "other:1b"), ("ollama", "pull", "tiny:1b")]


@pytest.mark.parametrize(
    "text", ["", "\0\0\0\0", "[]", "{}", '{"layers": [{}]}', '{"layers": [{"digest": "sha256:1"}]}']
)
def test_a_manifest_that_cannot_be_understood_is_damage_that_names_the_model(tmp_path: Path, text: str) -> None:
    ollama_model(tmp_path, TINY, {"model": b"weights"}).write_text(text)
    finding = check_cache(scan(str(tmp_path), {}))[0]
    assert (finding.model.name, finding.files[0].status) == ("tiny:1b", "damaged")
    assert finding.files[0].commands == (("ollama", "pull", "tiny:1b"),)


def test_parts_of_downloads_are_incomplete_and_unused_blobs_are_checked(tmp_path: Path) -> None:
    ollama_model(tmp_path, TINY, {"model": b"weights"})
    blobs = tmp_path / "blobs"
    for name in (f"sha256-{'0' * 64}-partial", f"sha256-{'0' * 64}-partial-0"):
        (blobs / name).write_bytes(b"part")
    (blobs / f"sha256-{'1' * 64}").write_bytes(b"no model has it")
    (blobs / "other").write_bytes(b"?")
    contents = scan(str(tmp_path), {})
    assert len(contents.incomplete) == 2
    assert [item.path for item in contents.unverifiable] == [str(blobs / "other")]
    assert statuses(contents)[f"blobs/sha256-{'1' * 64}"] == "damaged"


def test_blobs_of_old_versions_have_a_colon_in_their_name(tmp_path: Path) -> None:
    ollama_model(tmp_path, TINY, {"model": b"weights"})
    for blob in (tmp_path / "blobs").iterdir():
        blob.rename(blob.with_name(blob.name.replace("-", ":")))
    (finding,) = check_cache(scan(str(tmp_path), {}))
    assert finding.intact


def test_the_models_are_looked_for_where_ollama_keeps_them(tmp_path: Path) -> None:
    assert default_roots({"OLLAMA_MODELS": "/srv/models", "HOME": "/home/a"}) == ["/srv/models"]
    assert default_roots({"HOME": "/home/a"})[0] == "/home/a/.ollama/models"
    ollama_model(tmp_path / "models", TINY, {"model": b"weights"})
    for path in (tmp_path, tmp_path / "models"):
        assert root_at(str(path)) == str(tmp_path / "models")
    assert root_at(str(tmp_path / "models/blobs")) is None
