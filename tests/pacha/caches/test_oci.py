"""OCI image layouts, in cases that skopeo and umoci do not make; tests/real/test_caches.py has those that they do."""

import json
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.caches.checker import check_cache
from batuta_cli.pacha.caches.oci import root_at, scan
from tests.pacha.caches.support_layouts import oci_blob, oci_index, oci_manifest, sha256, statuses

REFERENCE = "registry.example.com:5000/models/tiny:1b"


def test_an_image_of_an_index_within_the_index_is_followed_to_its_layers(tmp_path: Path) -> None:
    layer = oci_blob(tmp_path, b"weights", "sha512")
    inner = {"schemaVersion": 2, "manifests": [oci_manifest(tmp_path, layer)]}
    oci_index(tmp_path, oci_blob(tmp_path, json.dumps(inner).encode()))
    assert f"layer {layer['digest']}" in statuses(scan(str(tmp_path), {}))
    (tmp_path / "blobs" / layer["digest"].replace(":", "/")).write_bytes(b"WEIGHTS")
    assert statuses(scan(str(tmp_path), {}))[f"layer {layer['digest']}"] == "damaged"


def test_an_image_for_another_platform_may_be_absent_and_all_of_them_may_not(tmp_path: Path) -> None:
    other = oci_manifest(tmp_path, oci_blob(tmp_path, b"for arm"))
    inner = {"schemaVersion": 2, "manifests": [oci_manifest(tmp_path, oci_blob(tmp_path, b"for amd")), other]}
    oci_index(tmp_path, oci_blob(tmp_path, json.dumps(inner).encode()))
    (tmp_path / "blobs" / other["digest"].replace(":", "/")).unlink()
    contents = scan(str(tmp_path), {})
    assert contents.absent == (f"manifest {other['digest']}",)
    assert "missing" not in statuses(contents).values()
    (tmp_path / "blobs" / inner["manifests"][0]["digest"].replace(":", "/")).unlink()  # type: ignore[index]
    assert list(statuses(scan(str(tmp_path), {})).values()).count("missing") == 2


def test_what_a_damaged_manifest_names_is_not_believed(tmp_path: Path) -> None:
    manifest = oci_manifest(tmp_path, oci_blob(tmp_path, b"weights"))
    oci_index(tmp_path, manifest)
    path = tmp_path / "blobs" / manifest["digest"].replace(":", "/")
    forged = oci_blob(tmp_path, b"malware")
    path.write_text(json.dumps({"schemaVersion": 2, "config": forged, "layers": [forged]}))
    found = statuses(scan(str(tmp_path), {}))
    assert found[f"manifest {manifest['digest']}"] == "damaged"
    assert f"layer {forged['digest']}" not in found


def test_the_command_copies_the_image_again_where_its_name_is_a_reference(tmp_path: Path) -> None:
    layer = oci_blob(tmp_path, b"weights")
    annotations = {"io.containerd.image.name": REFERENCE, "org.opencontainers.image.ref.name": "1b"}
    oci_index(tmp_path, oci_manifest(tmp_path, layer, annotations=annotations))
    blob = tmp_path / "blobs" / layer["digest"].replace(":", "/")
    blob.write_bytes(b"")
    (finding,) = check_cache(scan(str(tmp_path), {}))
    (file,) = [file for file in finding.files if file.status != "intact"]
    assert finding.model.name == REFERENCE
    assert file.commands == (
        ("rm", "-f", str(blob)),
        ("skopeo", "copy", f"docker://{REFERENCE}", f"oci:{tmp_path}:{REFERENCE}"),
    )


def test_a_layer_with_urls_is_kept_elsewhere_and_a_blob_that_no_image_uses_is_checked(tmp_path: Path) -> None:
    elsewhere = {"digest": f"sha256:{'0' * 64}", "size": 1, "urls": ["https://example.com/layer"]}
    oci_index(tmp_path, oci_manifest(tmp_path, elsewhere))
    (tmp_path / "blobs/sha256" / sha256(b"unused")).write_bytes(b"UNUSED")
    (tmp_path / "blobs/sha256/odd").write_bytes(b"?")
    contents = scan(str(tmp_path), {})
    found = statuses(contents)
    assert f"layer {elsewhere['digest']}" not in found
    assert found[f"blobs/sha256/{sha256(b'unused')}"] == "damaged"
    assert [item.path for item in contents.unverifiable] == [str(tmp_path / "blobs/sha256/odd")]


@pytest.mark.parametrize("entry", [1, {}, {"digest": "md5:0"}, {"digest": f"sha256:../../{'0' * 58}"}])
def test_an_entry_without_a_digest_is_damage_and_leads_nowhere(tmp_path: Path, entry: object) -> None:
    oci_index(tmp_path, entry)
    assert list(statuses(scan(str(tmp_path), {})).values()) == ["damaged"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifests": {}}'])
def test_an_index_that_cannot_be_understood_is_an_error(tmp_path: Path, text: str) -> None:
    (oci_index(tmp_path) / "index.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"index\.json"):
        scan(str(tmp_path), {})


def test_indexes_without_an_end_are_refused(tmp_path: Path) -> None:
    descriptor = oci_manifest(tmp_path, oci_blob(tmp_path, b"weights"))
    for _ in range(20):
        descriptor = oci_blob(tmp_path, json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode())
    oci_index(tmp_path, descriptor)
    with pytest.raises(InvalidInputError, match="deep"):
        scan(str(tmp_path), {})


def test_a_layout_is_known_by_its_marker_or_its_parts(tmp_path: Path) -> None:
    assert root_at(str(tmp_path)) is None
    (oci_index(tmp_path, oci_manifest(tmp_path)) / "oci-layout").unlink()
    assert root_at(str(tmp_path)) == str(tmp_path)
