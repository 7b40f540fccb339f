"""Vectors of bundles of other OpenSSF Model Signing tools (docs/oms.md)."""

import base64
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.pacha.oms import forge as oms
from tests.vectors.case import AT, FILES, WEIGHTS, Case, changed


def _oms(
    name: str,
    purpose: str,
    exit: int,
    bundle: bytes,
    material: Mapping[str, bytes],
    options: tuple[str, ...],
    files: Mapping[str, bytes] = FILES,
) -> Case:
    single = list(files) == ["."]
    inputs = {"model.bin": files["."]} if single else {f"model/{part}": data for part, data in files.items()}
    run = ("verify", "model.bin" if single else "model", "--signature", "model.sig", *options, "--at", AT)
    return Case("oms", name, purpose, {**inputs, "model.sig": bundle, **material}, run, exit)


def bundles() -> Iterator[Case]:
    by_key = ("--key", "signer.pub")
    for bits, curve in ((256, ec.SECP256R1()), (384, ec.SECP384R1()), (521, ec.SECP521R1())):
        holder = oms.Signatory(curve)
        stated = oms.statement(oms.resources(FILES))
        yield _oms(
            f"key-p{bits}",
            f"an ECDSA key on P-{bits}, SHA-256 of files",
            0,
            oms.bundle(stated, holder),
            {"signer.pub": holder.pem},
            by_key,
        )
    holder = oms.Signatory()
    public = {"signer.pub": holder.pem}
    stated = oms.statement(oms.resources(FILES))
    payload = json.dumps(stated).encode()
    value = bytearray(holder.sign(payload))
    value[-1] ^= 1
    for name, purpose, exit, raw, files in (
        (
            "hash-blake2b",
            "BLAKE2b of files",
            0,
            oms.bundle(oms.statement(oms.resources(FILES, "blake2b"), hash_type="blake2b"), holder),
            FILES,
        ),
        (
            "hash-blake3",
            "BLAKE3 of files",
            0,
            oms.bundle(oms.statement(oms.resources(FILES, "blake3"), hash_type="blake3"), holder),
            FILES,
        ),
        (
            "shards",
            "shards of 100 bytes",
            0,
            oms.bundle(oms.statement(oms.shards(FILES, 100), method="shards", shard_size=100), holder),
            FILES,
        ),
        (
            "shards-changed",
            "the last byte of a shard is another",
            3,
            oms.bundle(oms.statement(oms.shards(FILES, 100), method="shards", shard_size=100), holder),
            FILES | {"model.bin": WEIGHTS[:-1] + b"x"},
        ),
        (
            "shards-appended",
            "bytes after the last shard",
            3,
            oms.bundle(oms.statement(oms.shards(FILES, 100), method="shards", shard_size=100), holder),
            FILES | {"model.bin": WEIGHTS + b"x"},
        ),
        (
            "no-ignore-paths",
            "a statement of before ignore_paths",
            0,
            oms.bundle(oms.statement(oms.resources(FILES), ignore_paths=None), holder),
            FILES,
        ),
        (
            "keyid-null",
            "keyid is null, tlogEntries are absent",
            0,
            oms.bundle(stated, holder, keyid=None, material={"publicKey": {"hint": holder.hint}}),
            FILES,
        ),
        (
            "raw-bytes",
            "the key in publicKey.rawBytes, as before version 1.1",
            0,
            oms.bundle(
                stated,
                holder,
                material={
                    "publicKey": {
                        "rawBytes": base64.b64encode(holder.pem).decode(),
                        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    }
                },
            ),
            FILES,
        ),
        (
            "single-dot",
            "a single file under the name .",
            0,
            oms.bundle(oms.statement(oms.resources({".": WEIGHTS}), name="model.bin"), holder),
            {".": WEIGHTS},
        ),
        (
            "single-base-name",
            "a single file under its base name",
            0,
            oms.bundle(oms.statement(oms.resources({"model.bin": WEIGHTS}), name="model.bin"), holder),
            {".": WEIGHTS},
        ),
        ("changed", "a file has other bytes", 3, oms.bundle(stated, holder), FILES | {"config.json": b"{}"}),
        ("added", "a file was added", 3, oms.bundle(stated, holder), FILES | {"extra.txt": b""}),
        ("missing", "a file is missing", 3, oms.bundle(stated, holder), {"model.bin": WEIGHTS}),
        (
            "signature-flipped",
            "one bit of the signature is another",
            3,
            oms.bundle(stated, holder, value=bytes(value)),
            FILES,
        ),
        (
            "root-of-another",
            "subject.digest is not the root of the resources",
            2,
            oms.bundle(changed(stated, "subject", 0, "digest", "sha256", to="0" * 64), holder),
            FILES,
        ),
        ("no-resources", "a statement about no file", 2, oms.bundle(oms.statement([]), holder), FILES),
        (
            "hash-unknown",
            "an unknown hash",
            2,
            oms.bundle(changed(stated, "predicate", "serialization", "hash_type", to="md5"), holder),
            FILES,
        ),
        (
            "name-parent",
            "a name that leads outside",
            2,
            oms.bundle(oms.statement(oms.resources({"../model.bin": WEIGHTS})), holder),
            FILES,
        ),
    ):
        yield _oms(name, purpose, exit, raw, public, by_key, files)
    yield _oms("unknown-key", "a good signature by another key", 4, oms.bundle(stated, oms.Signatory()), public, by_key)
    yield from _chains(stated)


def _chains(stated: Mapping[str, Any]) -> Iterator[Case]:
    root, middle, leaf = oms.Signatory(), oms.Signatory(), oms.Signatory(ec.SECP384R1())
    authority = oms.certificate("Root", root, "Root", root, oms.AUTHORITY)
    between = oms.certificate("Middle", middle, "Root", root, oms.AUTHORITY)
    mail = oms.alternative_names(x509.RFC822Name("models@example.com"))
    day = dt.timedelta(days=1)

    def case(
        name: str,
        purpose: str,
        exit: int,
        certificate: x509.Certificate,
        ca: x509.Certificate = authority,
        identity: str = "models@example.com",
    ) -> Case:
        bundle = oms.bundle(stated, leaf, material=oms.chain_material(certificate, between))
        options = ("--ca", "ca.pem", "--identity", identity)
        return _oms(f"certificate-{name}", purpose, exit, bundle, {"ca.pem": oms.pem(ca)}, options)

    def issued(*extensions: oms.Extension, **dates: dt.datetime) -> x509.Certificate:
        return oms.certificate("Signer", leaf, "Middle", middle, extensions, **dates)

    good = issued(*oms.MAY_SIGN, mail)
    yield case("valid", "a chain of three certificates", 0, good)
    yield case("subject", "the identity is the whole subject", 0, good, identity="CN=Signer,O=Example")
    yield case("identity-of-another", "the certificate is of another signer", 4, good, identity="mallory@example.com")
    stranger = oms.Signatory()
    yield case(
        "other-authority",
        "the chain leads to another authority of the same name",
        4,
        good,
        oms.certificate("Root", stranger, "Root", stranger, oms.AUTHORITY),
    )
    yield case(
        "expired",
        "the certificate expired the day before",
        4,
        issued(*oms.MAY_SIGN, mail, until=dt.datetime.fromisoformat(AT) - day),
    )
    yield case("server", "a certificate for TLS servers, which may not sign", 4, issued(oms.SERVER, mail))
