"""What a bundle of another tool says about itself, and what it would take to verify it. Nothing is verified."""

import shlex
from typing import Any

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display
from batuta_cli.pacha.oms.certificates import CertificateFacts, identities, load_certificate
from batuta_cli.pacha.oms.judgement import oidc_issuer
from batuta_cli.pacha.oms.material import old_public_key
from batuta_cli.pacha.oms.signature import OmsSignature
from batuta_cli.pacha.statement import format_time

_METHODS = {"key": "an ECDSA key", "certificate": "a certificate", "sigstore": "a keyless Sigstore certificate"}


def describe(signed: OmsSignature) -> dict[str, Any]:
    """JSON-ready. Raises `InvalidInputError` for a certificate that cannot be read."""
    stated, material = signed.statement, signed.material
    rows = [
        {"name": file.name, "size": file.size, "digest": f"{stated.algorithm}:{piece.digest.hex()}"}
        | ({"start": piece.start, "end": piece.end} if stated.method == "shards" else {})
        for file in stated.files
        for piece in file.pieces
    ]
    needs, claims = _certificate(signed) if material.certificates else _key(signed)
    return (
        {
            "predicate": "model_signing 0.2" if stated.old else "model_signing 1.0",
            "signed_with": _METHODS[material.method],
            "needs": needs,
            "name": stated.name,
            "method": stated.method,
            "hash_type": stated.algorithm,
            "oms_root": f"sha256:{stated.root.hex()}" if stated.root else None,
        }
        | claims
        | {
            "ignored": list(stated.ignore_paths),
            "follows_symlinks": stated.allow_symlinks,
            "signatures": [{"keyid": signature.keyid} for signature in signed.envelope.signatures],
            "files": rows,
        }
    )


def _key(signed: OmsSignature) -> tuple[str, dict[str, Any]]:
    claims: dict[str, Any] = {"key_hint": signed.material.hint or None}
    try:
        key = old_public_key(signed.material)
    except InvalidInputError:
        key = None
    if key is not None:
        claims |= {"claimed_key_id": key.key_id, "claimed_public_key": key.inline}
    return "--key FILE with the publisher's public key, or that key in the trust store", claims


def _certificate(signed: OmsSignature) -> tuple[str, dict[str, Any]]:
    leaf = load_certificate(signed.material.certificates[0], "verificationMaterial: certificate 0")
    facts, issuer, names = CertificateFacts.of(leaf), oidc_issuer(leaf), identities(leaf)
    identity = f"--identity {shlex.quote(display(names[0]))}" if names else "--identity ID"
    if signed.material.method == "sigstore":
        url = f"--issuer {shlex.quote(display(issuer))}" if issuer else "--issuer URL"
        needs = f"--trusted-root FILE {url} {identity}, if that is who should have signed"
    else:
        needs = f"--ca FILE {identity}, if that is who should have signed"
    return needs, {
        "claimed_identities": list(names),
        "claimed_subject": facts.subject or None,
        "claimed_issuer": facts.issuer,
        "claimed_oidc_issuer": issuer,
        "not_before": format_time(facts.not_before),
        "not_after": format_time(facts.not_after),
        "log_entries": signed.material.log_entries,
    }
