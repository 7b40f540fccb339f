"""Bundles for other OpenSSF Model Signing tools. tests/real/test_openssf_tools.py verifies them with those tools."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.pacha.oms.eckeys import EcSigningKey
from batuta_cli.pacha.oms.writer import sign_for_oms
from tests.pacha.oms.forge import pae

FILES = {"b.json": b"{}", "a/w.bin": b"weights", "B.json": b""}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "model"


def key(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, EcSigningKey]:
    private = ec.generate_private_key(curve)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, EcSigningKey.parse(pem)


def signed(raw: bytes) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"]))
    return statement


@pytest.mark.parametrize(
    ("curve", "algorithm"),
    [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384()), (ec.SECP521R1(), hashes.SHA512())],
    ids=["P-256", "P-384", "P-521"],
)
def test_the_envelope_is_signed_with_the_hash_of_the_curve(
    model: Path, curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm
) -> None:
    private, ours = key(curve)
    bundle = json.loads(sign_for_oms(model, ours, "model"))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    [row] = bundle["dsseEnvelope"]["signatures"]
    private.public_key().verify(base64.b64decode(row["sig"]), pae(payload), ec.ECDSA(algorithm))
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == hashlib.sha256(pem).hexdigest()


def test_files_are_listed_in_the_order_of_code_points_with_the_root_over_their_digests(model: Path) -> None:
    statement = signed(sign_for_oms(model, key(ec.SECP256R1())[1], "model"))
    digests = {name: hashlib.sha256(content) for name, content in FILES.items()}
    order = ["B.json", "a/w.bin", "b.json"]
    assert statement["predicate"]["resources"] == [
        {"name": name, "algorithm": "sha256", "digest": digests[name].hexdigest()} for name in order
    ]
    root = hashlib.sha256(b"".join(digests[name].digest() for name in order)).hexdigest()
    assert statement["subject"] == [{"name": "model", "digest": {"sha256": root}}]


def test_a_single_file_is_called_by_a_dot(model: Path) -> None:
    statement = signed(sign_for_oms(model / "b.json", key(ec.SECP256R1())[1], "b.json"))
    assert [row["name"] for row in statement["predicate"]["resources"]] == ["."]


def test_ignored_paths_are_recorded_and_not_listed(model: Path) -> None:
    statement = signed(sign_for_oms(model, key(ec.SECP256R1())[1], "model", ignore=["*.json"]))
    assert statement["predicate"]["serialization"]["ignore_paths"] == ["B.json", "b.json"]
    assert [row["name"] for row in statement["predicate"]["resources"]] == ["a/w.bin"]


@pytest.mark.parametrize("name", [".git/config", ".gitattributes", ".github/x", ".gitignore"])
def test_files_that_the_other_verifier_leaves_out_are_not_signed(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        sign_for_oms(model, key(ec.SECP256R1())[1], "model")
    top = name.partition("/")[0]
    assert f"--ignore {top}" in str(caught.value.hint)
    assert sign_for_oms(model, key(ec.SECP256R1())[1], "model", ignore=[top])


def test_an_ignored_link_is_refused_because_the_other_verifier_refuses_it(model: Path) -> None:
    (model / "link").symlink_to("b.json")
    with pytest.raises(UsageError, match="link is a link or a special file"):
        sign_for_oms(model, key(ec.SECP256R1())[1], "model", ignore=["link"])


def test_a_name_that_is_not_unicode_is_refused(model: Path) -> None:
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        sign_for_oms(model, key(ec.SECP256R1())[1], "m\udcff")
