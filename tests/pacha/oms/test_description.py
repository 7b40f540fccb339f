"""What `inspect` says about bundles of other tools: claims, and the options that would verify them."""

import hashlib

from cryptography import x509

from batuta_cli.pacha import ModelSignature
from batuta_cli.pacha.oms.description import describe
from batuta_cli.pacha.oms.signature import OmsSignature
from tests.pacha.oms.forge import (
    MAY_SIGN,
    Signatory,
    alternative_names,
    bundle,
    bundle_02,
    certificate,
    chain_material,
    resources,
    root,
    shards,
    statement,
)

FILES = {"a": b"1", "b/c": b"22"}
SIGNER, AUTHORITY = Signatory(), Signatory()


def described(raw: bytes) -> dict[str, object]:
    body = ModelSignature.parse(raw).body
    assert isinstance(body, OmsSignature)
    return describe(body)


def test_a_bundle_with_a_key_needs_that_key() -> None:
    rows = resources(FILES)
    found = described(bundle(statement(rows, name="m"), SIGNER))
    assert found["signed_with"] == "an ECDSA key"
    assert str(found["needs"]).startswith("--key FILE")
    assert found["key_hint"] == hashlib.sha256(SIGNER.pem).hexdigest()
    assert (found["name"], found["method"], found["hash_type"]) == ("m", "files", "sha256")
    assert found["oms_root"] == f"sha256:{root(rows)}"
    assert [row["digest"] for row in found["files"]] == [  # type: ignore[attr-defined]
        f"sha256:{hashlib.sha256(content).hexdigest()}" for content in FILES.values()
    ]


def test_a_bundle_with_a_certificate_needs_the_authority_and_a_name_quoted_for_the_shell() -> None:
    names = alternative_names(x509.UniformResourceIdentifier("https://example.com/$(reboot)"))
    leaf = certificate("Signer", SIGNER, "Root", AUTHORITY, (*MAY_SIGN, names))
    found = described(bundle(statement(resources(FILES)), SIGNER, material=chain_material(leaf)))
    assert found["signed_with"] == "a certificate"
    assert "--ca FILE --identity 'https://example.com/$(reboot)'" in str(found["needs"])
    assert found["claimed_subject"] == "CN=Signer,O=Example"


def test_shards_have_their_bounds() -> None:
    found = described(bundle(statement(shards(FILES, 1), method="shards", shard_size=1), SIGNER))
    assert [(row["name"], row["start"], row["end"]) for row in found["files"]] == [  # type: ignore[attr-defined]
        ("a", 0, 1),
        ("b/c", 0, 1),
        ("b/c", 1, 2),
    ]


def test_an_old_bundle_is_told_as_such() -> None:
    assert described(bundle_02(FILES, SIGNER))["predicate"] == "model_signing 0.2"
