"""Signers, files and digests of a model in sealed memory, judged together."""

import os
from pathlib import Path

import pytest

from batuta_cli.errors import UsageError, VerificationError, WrongSignerError
from batuta_cli.pacha.encryption import encrypt_path
from batuta_cli.pacha.hashing import address_of_bytes, content_address
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.locate import Located
from batuta_cli.pacha.sealed.content import SealingOptions
from batuta_cli.pacha.sealed.verified import SealedModel, seal_verified
from batuta_cli.pacha.sha256 import Sha256Digest, sha256_of
from batuta_cli.pacha.signer import Policy
from batuta_cli.pacha.signing import sign_path

KEY = SigningKey.generate("alice@example.com")
POLICY = Policy(key=KEY.verifying_key)
OTHER = address_of_bytes(b"another model")


def located(path: Path, **more: object) -> Located:
    return Located(str(path), path.name, path.name, **more)  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"the weights")
    return path


def contents(sealed: SealedModel) -> dict[str, bytes]:
    return {name: Path(file.path).read_bytes() for name, file in sealed.files.items()}


def test_a_model_that_verifies_is_handed_on_with_its_name(model: Path) -> None:
    sealed = seal_verified(located(model), [sign_path(model, KEY)], POLICY, SealingOptions(), encrypted=False)
    assert (sealed.name, contents(sealed)) == ("model.gguf", {".": b"the weights"})
    sealed.content.close()


def test_a_failure_frees_the_memory(model: Path) -> None:
    before = os.listdir("/proc/self/fd")
    policy = Policy(key=SigningKey.generate("mallory").verifying_key)
    with pytest.raises(WrongSignerError):
        seal_verified(located(model), [sign_path(model, KEY)], policy, SealingOptions(), encrypted=False)
    assert os.listdir("/proc/self/fd") == before


def test_a_digest_must_hold_with_and_without_a_signature(model: Path) -> None:
    signatures = [sign_path(model, KEY)]
    for digest in (content_address(model), sha256_of(model)):
        for given, policy in (([], None), (signatures, POLICY)):
            sealed = seal_verified(located(model), given, policy, SealingOptions(), encrypted=False, digest=digest)
            assert (sealed.verification is None) == (policy is None)
            sealed.content.close()
    for wrong in (OTHER, Sha256Digest(bytes(32))):
        for given, policy in (([], None), (signatures, POLICY)):
            with pytest.raises(VerificationError, match="the content is"):
                seal_verified(located(model), given, policy, SealingOptions(), encrypted=False, digest=wrong)


def test_a_directory_has_no_sha256_digest(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"1")
    with pytest.raises(UsageError, match="no SHA-256"):
        wrong = Sha256Digest(bytes(32))
        seal_verified(located(tmp_path / "model"), [], None, SealingOptions(), encrypted=False, digest=wrong)


def test_an_address_of_the_store_must_hold_besides_the_signature(model: Path) -> None:
    signature = sign_path(model, KEY)
    found = located(model, address=content_address(model))
    seal_verified(found, [signature], POLICY, SealingOptions(), encrypted=False).content.close()
    with pytest.raises(VerificationError, match="the content is"):
        seal_verified(located(model, address=OTHER), [signature], POLICY, SealingOptions(), encrypted=False)


def test_signature_digest_and_name_of_an_encrypted_model_are_the_plaintexts(model: Path) -> None:
    signature, digest = sign_path(model, KEY), content_address(model)
    cipher = model.with_name("model.gguf.enc")
    encrypt_path(model, cipher, "password")
    options = SealingOptions(password="password")
    sealed = seal_verified(located(cipher), [signature], POLICY, options, encrypted=True, digest=digest)
    assert (sealed.name, contents(sealed)) == ("model.gguf", {".": b"the weights"})
    assert sealed.verification is not None
    assert sealed.verification.warnings == ()
    sealed.content.close()
    with pytest.raises(VerificationError) as raised:
        seal_verified(located(cipher), [sign_path(cipher, KEY)], POLICY, options, encrypted=True)
    assert "those of the plaintext" in str(raised.value.hint)
