"""`batuta pacha check` on caches that huggingface_hub, skopeo and umoci lay out themselves."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import unpacked
from tests.conftest import Run
from tests.real.support_hub import FILES, REPOSITORY, REVISION, WEIGHTS, Hub, etag, running_hub

HUB = ".cache/huggingface/hub"
REPO = f"{HUB}/models--acme--tiny"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    home = tmp_path_factory.mktemp("hub")
    with running_hub(home) as running:
        yield running


@pytest.fixture(scope="module")
def downloaded(hub: Hub) -> Path:
    """The home of a user who has downloaded a model, a file of a data set, and the model into a directory."""
    hub.run(["hf", "download", REPOSITORY])
    hub.run(["hf", "download", REPOSITORY, "config.json", "--repo-type", "dataset"])
    hub.run(["hf", "download", REPOSITORY, "--local-dir", str(hub.home / "local")])
    return hub.home


@pytest.fixture
def user(downloaded: Path, home: Path) -> Path:
    """The same caches in the home of the commands under test."""
    shutil.copytree(downloaded, home, symlinks=True, dirs_exist_ok=True)
    return home


def _check(batuta: Run, *arguments: str | Path, code: int, **variables: str) -> Any:
    """The JSON result for one cache."""
    env = {"XDG_CACHE_HOME": ""} | variables
    done = batuta("pacha", "check", *arguments, "--json", env=env, code=code)
    (result,) = json.loads(done.stdout)["result"]
    return result


def _files(result: Any) -> dict[str, str]:
    """The status of each file of the one model."""
    return {file["files"][0]["file"]: file["status"] for file in result["models"][-1]["files"]}


def test_what_hf_download_has_cached_is_intact(batuta: Run, user: Path) -> None:
    done = batuta("pacha", "check", "hf", env={"XDG_CACHE_HOME": ""}, code=0)
    total = sum(map(len, FILES.values()))
    size = len(FILES["config.json"])
    assert done.stdout.splitlines() == [
        f"datasets/acme/tiny: intact, 1 file, {size} bytes",
        f"acme/tiny: intact, 4 files, {total:,} bytes",
    ]


@pytest.mark.parametrize("damage", ["zeroed", "truncated", "one bit", "gone"])
def test_a_damaged_blob_is_named_with_the_command_that_brings_it_back(
    batuta: Run, hub: Hub, user: Path, damage: str
) -> None:
    blob = user / REPO / "blobs" / etag("model.safetensors")
    data = blob.read_bytes()
    blob.unlink()
    if damage != "gone":
        changes = {"zeroed": bytes(len(data)), "truncated": data[:1000], "one bit": data[:-1] + bytes([data[-1] ^ 1])}
        blob.write_bytes(changes[damage])
    done = batuta("pacha", "check", "hf", env={"XDG_CACHE_HOME": ""}, code=3)
    command = f"hf download {REPOSITORY} model.safetensors --revision {REVISION} --force-download"
    assert "error: acme/tiny: model.safetensors is " in done.stderr
    assert str(blob) in done.stderr
    assert f"fetch it again:\n  {command}\n" in done.stderr
    assert "datasets/acme/tiny: intact" in done.stdout
    again = Hub(hub.url, user)
    again.run(command.split())
    assert blob.read_bytes() == WEIGHTS
    assert _check(batuta, "hf", code=0)["ok"]


def test_a_damaged_small_file_is_found_by_gits_sha1_also_in_a_data_set(batuta: Run, hub: Hub, user: Path) -> None:
    blob = user / HUB / "datasets--acme--tiny/blobs" / etag("config.json")
    blob.write_bytes(b'{"model_type": "llamb"}\n')
    result = _check(batuta, "hf", code=3)
    (file,) = result["models"][0]["files"]
    assert (file["status"], file["expected"]) == ("damaged", f"git-sha1:{etag('config.json')}")
    for command in file["commands"]:
        Hub(hub.url, user).run(command)
    assert _check(batuta, "hf", code=0)["ok"]


def test_a_cache_elsewhere_is_found_by_its_variables_and_its_path_and_mended_where_it_is(
    batuta: Run, hub: Hub, user: Path, work: Path
) -> None:
    elsewhere = work / "models" / "hub"
    shutil.copytree(user / HUB, elsewhere, symlinks=True)
    assert _check(batuta, "hf", code=0, HF_HOME=str(work / "models"))["path"] == str(elsewhere)
    assert _check(batuta, "hf", code=0, HF_HUB_CACHE=str(elsewhere))["path"] == str(elsewhere)
    (elsewhere / "models--acme--tiny/blobs" / etag("onnx/model.onnx")).write_bytes(b"")
    for path in (work / "models", elsewhere, elsewhere / "models--acme--tiny"):
        result = _check(batuta, path, code=3)
        assert _files(result)["onnx/model.onnx"] == "damaged"
    (file,) = [file for file in result["models"][-1]["files"] if file["commands"]]
    for command in file["commands"]:
        Hub(hub.url, user).run(command)
    assert _check(batuta, elsewhere, code=0)["ok"]


def test_a_cache_without_links_is_compared_with_the_listing_of_its_revision_and_never_ok_without_one(
    batuta: Run, hub: Hub, work: Path, home: Path
) -> None:
    cache = work / "cache"
    hub.run(["hf", "download", REPOSITORY, "--cache-dir", str(cache)], HF_HUB_DISABLE_SYMLINKS="1")
    snapshot = cache / "models--acme--tiny/snapshots" / REVISION
    assert not (snapshot / "model.safetensors").is_symlink()
    assert set(_files(_check(batuta, cache, code=0)).values()) == {"intact"}
    (snapshot / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    assert _files(_check(batuta, cache, code=3))["model.safetensors"] == "damaged"
    shutil.rmtree(cache / "models--acme--tiny/trees")
    result = _check(batuta, cache, code=1)
    assert not result["ok"]
    assert _files(result)["model.safetensors"] == "unverifiable"


def test_blobs_in_the_store_that_repositories_share_are_compared_with_their_etag(
    batuta: Run, downloaded: Path, home: Path, work: Path
) -> None:
    from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store, shared_blob_path

    cache = work / "hub"
    shutil.copytree(downloaded / HUB, cache, symlinks=True)
    blob = cache / "models--acme--tiny/blobs" / etag("model.safetensors")
    xet = "ab" * 32
    assert publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=xet, cache_dir=str(cache), expected_size=len(WEIGHTS), replace_existing=False
    )
    assert blob.is_symlink()
    result = _check(batuta, cache, code=0)
    assert set(_files(result).values()) == {"intact"}
    assert result["unverifiable"] == []
    shared = shared_blob_path(cache, xet)
    shared.chmod(0o644)
    shared.write_bytes(bytes(len(WEIGHTS)))
    assert _files(_check(batuta, cache, code=3))["model.safetensors"] == "damaged"
    shutil.rmtree(cache / "models--acme--tiny")
    result = _check(batuta, cache, code=0)  # what is left of it cannot be judged, and no model uses it
    assert [item["path"] for item in result["unverifiable"]] == [str(shared)]


def test_a_download_that_was_interrupted_is_reported_as_one(batuta: Run, user: Path) -> None:
    part = user / REPO / "blobs" / f"{etag('model.safetensors')}.incomplete"
    part.write_bytes(b"a part")
    (user / HUB / ".locks/models--acme--tiny/other.lock").write_bytes(b"")
    result = _check(batuta, "hf", code=0)
    assert [(item["path"], item["size"]) for item in result["incomplete"]] == [(str(part), 6)]
    assert f"incomplete: {part}, 6 bytes" in batuta("pacha", "check", "hf", env={"XDG_CACHE_HOME": ""}).stderr


def test_a_directory_of_local_dir_is_compared_with_its_metadata(batuta: Run, hub: Hub, user: Path) -> None:
    local = user / "local"
    (local / "notes.txt").write_text("mine")
    result = _check(batuta, local, code=0)
    assert set(_files(result).values()) == {"intact"}
    assert [item["path"] for item in result["unverifiable"]] == [str(local / "notes.txt")]
    (local / "onnx/model.onnx").write_bytes(b"X" * 4000)
    (local / "README.md").unlink()
    result = _check(batuta, local, code=3)
    statuses = _files(result)
    assert (statuses["onnx/model.onnx"], statuses["README.md"]) == ("damaged", "missing")
    for file in result["models"][0]["files"]:
        for command in file["commands"]:
            Hub(hub.url, user).run([REPOSITORY if word == "OWNER/NAME" else word for word in command])
    assert _check(batuta, local, code=0)["ok"]


# OCI layouts.


def _tool(*command: str | Path) -> None:
    program = str(command[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    env = os.environ | unpacked.libraries(program)
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def layout(work: Path) -> Path:
    """An image with a model in it, as umoci makes it."""
    (work / "model.gguf").write_bytes(os.urandom(100_000))
    path = work / "layout"
    _tool("umoci", "init", "--layout", path)
    _tool("umoci", "new", "--image", f"{path}:v1")
    _tool("umoci", "insert", "--rootless", "--image", f"{path}:v1", work / "model.gguf", "/models/model.gguf")
    return path


def _largest(layout: Path) -> Path:
    return max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def test_a_layout_of_umoci_is_intact_until_a_layer_is_damaged(batuta: Run, layout: Path) -> None:
    result = _check(batuta, layout, code=0)
    assert (result["layout"], result["models"][0]["name"]) == ("oci", "v1")
    layer = _largest(layout)
    layer.write_bytes(layer.read_bytes()[:-1])
    result = _check(batuta, layout, code=3)
    (file,) = [file for file in result["models"][0]["files"] if file["status"] != "intact"]
    assert (file["path"], file["status"]) == (str(layer), "damaged")


def test_a_copy_by_skopeo_is_mended_by_deleting_the_blob_that_is_named_and_copying_again(
    batuta: Run, layout: Path, work: Path
) -> None:
    copy = ("skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:v1", f"oci:{work / 'copy'}:v1")
    _tool(*copy)
    assert _check(batuta, work / "copy", code=0)["ok"]
    layer = _largest(work / "copy")
    layer.write_bytes(bytes(1000))
    _tool(*copy)
    assert layer.read_bytes() == bytes(1000)  # skopeo keeps it, so the hint has to say rm
    result = _check(batuta, work / "copy", code=3)
    (file,) = [file for file in result["models"][0]["files"] if file["status"] != "intact"]
    assert file["commands"] == [["rm", "-f", str(layer)]]
    layer.unlink()
    _tool(*copy)
    assert _check(batuta, work / "copy", code=0)["ok"]
