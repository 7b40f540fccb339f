"""`batuta pacha check`; the caches of real tools are in tests/real/test_caches.py."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pacha.caches.support_layouts import hf_file, oci_blob, oci_index, oci_manifest, ollama_model, sha256

PLACE = "registry.ollama.ai/library/tiny/1b"


@pytest.fixture
def hub(home: Path) -> Path:
    path = home / "cache/huggingface/hub"
    hf_file(path, "model.bin", b"weights")
    return path


@pytest.fixture
def models(home: Path) -> Path:
    path = home / ".ollama/models"
    ollama_model(path, PLACE, {"model": b"weights"})
    return path


def test_without_an_argument_the_users_caches_are_checked(batuta: Run, hub: Path, models: Path) -> None:
    done = batuta("pacha", "check", code=0)
    assert done.stdout.splitlines() == ["acme/tiny: intact, 1 file, 7 bytes", "tiny:1b: intact, 2 files, 9 bytes"]
    assert done.stderr.splitlines() == [f"Hugging Face cache: {hub}", f"Ollama models: {models}"]
    assert batuta("pacha", "check", "--quiet", code=0).stderr == ""


def test_without_any_cache_there_is_nothing_to_say_that_is_right(batuta: Run) -> None:
    assert "hint: batuta pacha check PATH" in batuta("pacha", "check", code=1).stderr


def test_damage_is_exit_3_with_the_blob_and_the_commands_and_the_other_models_are_checked_too(
    batuta: Run, models: Path
) -> None:
    ollama_model(models, "registry.ollama.ai/library/other/2b", {"model": b"other"})
    blob = models / "blobs" / f"sha256-{sha256(b'weights')}"
    blob.write_bytes(bytes(7))
    done = batuta("pacha", "check", "ollama", code=3)
    assert done.stdout == "other:2b: intact, 2 files, 7 bytes\n"
    assert done.stderr.splitlines()[1:] == [
        f"error: tiny:1b: model sha256:{sha256(b'weights')} is damaged: its content is sha256:{sha256(bytes(7))};"
        " all its bytes are zero",
        f"  {blob}",
        "hint: fetch it again:",
        f"  rm -f {blob}",
        "  ollama pull tiny:1b",
        "error: damaged: 1 of 2 models",
    ]


def test_json_has_every_file_with_its_status_and_the_commands_as_arguments(batuta: Run, hub: Path) -> None:
    (hub / "models--acme--tiny/blobs" / sha256(b"weights")).write_bytes(b"weight")
    done = batuta("pacha", "check", "hf", "--json", code=3)
    document = json.loads(done.stdout)
    assert (document["ok"], document["error"]["kind"]) == (False, "verification_failed")
    (cache,) = document["result"]
    assert (cache["layout"], cache["path"], cache["ok"]) == ("hf", str(hub), False)
    (file,) = cache["models"][0]["files"]
    assert (file["status"], file["size"]) == ("damaged", 6)
    assert file["expected"] == f"sha256:{sha256(b'weights')}"
    assert file["found"] == f"sha256:{sha256(b'weight')}"
    assert file["commands"][0][:4] == ["hf", "download", "acme/tiny", "model.bin"]


def test_a_cache_that_cannot_be_read_is_exit_1_and_damage_beside_it_exit_3(
    batuta: Run, hub: Path, unprivileged: Callable[[], None]
) -> None:
    blob = hub / "models--acme--tiny/blobs" / sha256(b"weights")
    blob.chmod(0)
    done = batuta("pacha", "check", "hf", code=1, preexec_fn=unprivileged)
    assert "acme/tiny: model.bin is unreadable: permission denied" in done.stderr
    hf_file(hub, "other.bin", b"other").write_bytes(b"OTHER")
    batuta("pacha", "check", "hf", code=3, preexec_fn=unprivileged)
    (hub / "models--acme--tiny/snapshots").chmod(0)
    done = batuta("pacha", "check", "hf", code=3, preexec_fn=unprivileged)
    assert "acme/tiny: snapshots is unreadable: permission denied" in done.stderr


def test_of_several_caches_all_are_checked_and_the_worst_counts(batuta: Run, hub: Path, work: Path) -> None:
    layer = oci_blob(work / "layout", b"weights")
    oci_index(work / "layout", oci_manifest(work / "layout", layer))
    (work / "layout/blobs" / layer["digest"].replace(":", "/")).write_bytes(b"")
    done = batuta("pacha", "check", "none", "layout", "hf", code=3)
    assert "error: none: no such file or directory" in done.stderr
    assert "acme/tiny: intact" in done.stdout
    result = json.loads(batuta("pacha", "check", "none", "layout", "hf", "--json", code=3).stdout)["result"]
    assert [cache["ok"] for cache in result] == [False, False, True]


@pytest.mark.parametrize("text", ["", "-", "hf-local-dir", "."])
def test_what_is_no_cache_is_refused(batuta: Run, text: str) -> None:
    done = batuta("pacha", "check", text)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


def test_names_from_a_cache_cannot_write_to_the_terminal(batuta: Run, hub: Path) -> None:
    hf_file(hub, "a\x1b[2Jb\n.bin", b"x").write_bytes(b"y")
    done = batuta("pacha", "check", "hf", code=3)
    assert "\x1b" not in done.stdout + done.stderr
    assert "a\\x1b[2Jb\\n.bin is damaged" in done.stderr


def test_a_link_to_a_device_in_a_cache_is_not_read(batuta: Run, models: Path) -> None:
    blob = models / "blobs" / f"sha256-{sha256(b'weights')}"
    blob.unlink()
    os.symlink("/dev/zero", blob)
    assert "is a character device" in batuta("pacha", "check", "ollama", code=3).stderr


def test_nothing_is_connected_to_and_nothing_is_written(batuta: Run, hub: Path, home: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in home.rglob("*"))
    batuta("pacha", "check", "hf", code=0, env={"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert sorted((path, path.lstat().st_mtime_ns) for path in home.rglob("*")) == before
