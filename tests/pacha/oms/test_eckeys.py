"""ECDSA public and private keys: the forms that are read, compared with what openssl makes of them."""

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from batuta_cli.errors import DecryptionError, InvalidInputError, UsageError
from batuta_cli.pacha.keys import VerifyingKey
from batuta_cli.pacha.oms.eckeys import EcSigningKey, EcVerifyingKey, is_inline, parse_public_key
from tests.pacha.oms.forge import Signatory

CURVES = {"ecdsa-p256": "P-256", "ecdsa-p384": "P-384", "ecdsa-p521": "P-521"}
HASHES = {"ecdsa-p256": "sha256", "ecdsa-p384": "sha384", "ecdsa-p521": "sha512"}
SOMEONE = Signatory()


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


def made(directory: Path, curve: str, *options: str) -> Path:
    path = directory / "key.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", *options, "-out", path)
    return path


@pytest.mark.parametrize("key_type", CURVES)
def test_openssl_and_batuta_verify_each_other_s_signatures(tmp_path: Path, key_type: str) -> None:
    path = made(tmp_path, CURVES[key_type])
    key = EcSigningKey.parse(path.read_bytes())
    public = parse_public_key(openssl("pkey", "-in", path, "-pubout"))
    assert public == key.verifying_key
    assert public.key_type == key_type
    (tmp_path / "sig").write_bytes(key.sign(b"data"))
    (tmp_path / "pub").write_bytes(public.to_pem())
    digest = f"-{HASHES[key_type]}"
    openssl("dgst", digest, "-verify", tmp_path / "pub", "-signature", tmp_path / "sig", stdin=b"data")
    theirs = openssl("dgst", digest, "-sign", path, stdin=b"data")
    assert public.verifies(theirs, b"data")
    assert not public.verifies(theirs, b"other")
    assert not public.verifies(b"", b"data")


def test_a_key_is_read_from_pem_openssh_and_one_word(tmp_path: Path) -> None:
    path = made(tmp_path, "P-256")
    path.chmod(0o600)
    public = EcSigningKey.parse(path.read_bytes()).verifying_key
    ssh = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, check=True).stdout
    for form in (public.to_pem(), public.inline.encode(), ssh):
        assert parse_public_key(form) == public
    assert is_inline(public.inline) and not is_inline("./ecdsa-p256:x")


def test_names_of_a_key_follow_from_its_spki() -> None:
    key = EcVerifyingKey(SOMEONE.der)
    assert key.key_id == blake3(SOMEONE.der).hexdigest()[:32]
    assert key.hint == hashlib.sha256(SOMEONE.pem).hexdigest()
    assert key.inline == "ecdsa-p256:" + base64.b64encode(SOMEONE.der).decode()


def test_a_compressed_point_is_the_same_key() -> None:
    numbers = SOMEONE.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), numbers)
    assert EcVerifyingKey.of(point, "key") == EcVerifyingKey(SOMEONE.der)


def test_ed25519_keys_are_read_by_the_same_function() -> None:
    pem = openssl("pkey", "-pubout", stdin=openssl("genpkey", "-algorithm", "ED25519"))
    assert isinstance(parse_public_key(pem), VerifyingKey)


def test_private_keys_are_read_as_openssl_writes_them(tmp_path: Path) -> None:
    expected = EcSigningKey.parse(made(tmp_path, "P-384").read_bytes()).verifying_key
    sec1 = openssl("pkey", "-in", tmp_path / "key.pem", "-traditional")
    assert sec1.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert EcSigningKey.parse(sec1).verifying_key == expected
    with_parameters = openssl("ecparam", "-name", "prime256v1", "-genkey")
    assert with_parameters.startswith(b"-----BEGIN EC PARAMETERS-----")
    assert EcSigningKey.parse(with_parameters).verifying_key.key_type == "ecdsa-p256"


def test_an_encrypted_private_key_needs_its_passphrase(tmp_path: Path) -> None:
    raw = made(tmp_path, "P-256", "-aes256", "-pass", "pass:right").read_bytes()
    assert EcSigningKey.parse(raw, passphrase=b"right")
    with pytest.raises(UsageError, match="is encrypted"):
        EcSigningKey.parse(raw)
    with pytest.raises(DecryptionError, match="wrong passphrase"):
        EcSigningKey.parse(raw, passphrase=b"wrong")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["genpkey", "-algorithm", "RSA"], "not an ECDSA key"),
        (["genpkey", "-algorithm", "ED25519"], "not an ECDSA key"),
        (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "secp256k1 is not supported"),
    ],
    ids=["RSA", "Ed25519", "secp256k1"],
)
def test_private_keys_of_other_kinds_are_refused_and_not_shown(command: list[str], told: str) -> None:
    pem = openssl(*command)
    with pytest.raises(InvalidInputError) as caught:
        EcSigningKey.parse(pem)
    assert told in caught.value.message
    assert pem.splitlines()[1].decode() not in str(caught.value)


def test_a_public_key_where_a_private_one_is_due_is_told() -> None:
    with pytest.raises(InvalidInputError, match="is a public key"):
        EcSigningKey.parse(SOMEONE.pem)


def test_the_repr_of_a_private_key_does_not_show_it(tmp_path: Path) -> None:
    assert "EllipticCurve" not in repr(EcSigningKey.parse(made(tmp_path, "P-256").read_bytes()))


def test_a_hash_can_be_given_in_place_of_that_of_the_curve() -> None:
    signatory = Signatory(ec.SECP384R1())
    value = signatory.key.sign(b"data", ec.ECDSA(hashes.SHA256()))
    key = EcVerifyingKey(signatory.der)
    assert key.verifies(value, b"data", hash_with=hashes.SHA256())
    assert not key.verifies(value, b"data")


def test_a_key_on_another_curve_or_of_another_type_than_stated_is_refused() -> None:
    public = ec.generate_private_key(ec.SECP256K1()).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidInputError, match="the curve secp256k1 is not supported"):
        EcVerifyingKey.from_base64(base64.b64encode(der).decode())
    text = base64.b64encode(SOMEONE.der).decode()
    assert EcVerifyingKey.from_base64(text, "ecdsa-p256") == EcVerifyingKey(SOMEONE.der)
    with pytest.raises(InvalidInputError, match="is ecdsa-p256, not ecdsa-p384"):
        EcVerifyingKey.from_base64(text, "ecdsa-p384")
