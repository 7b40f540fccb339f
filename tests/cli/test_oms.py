"""`batuta pacha` on the bundles of other OpenSSF Model Signing tools, and on the world's SHA-256 digests."""

import base64
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tests.cli.support import answer, names_in, result, shows_no, trust_file
from tests.conftest import Run
from tests.pacha.oms.forge import (
    AUTHORITY,
    MAY_SIGN,
    Signatory,
    alternative_names,
    bundle,
    bundle_02,
    certificate,
    chain_material,
    pem,
    resources,
    shards,
    statement,
)

FILES = {"config.json": b"{}", "sub/weights.bin": b"w" * 1000, "empty": b""}


@pytest.fixture
def signer(work: Path) -> Signatory:
    signatory = Signatory()
    signatory.save(work)
    return signatory


@pytest.fixture
def model(work: Path) -> Path:
    for name, content in FILES.items():
        path = work / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return work / "model"


def save(work: Path, raw: bytes, name: str = "model.sig") -> None:
    (work / name).write_bytes(raw)


# --- trust


def test_an_authority_is_trusted_listed_exported_and_revoked_by_its_name(batuta: Run, work: Path) -> None:
    root, signer = Signatory(), Signatory()
    authority = certificate("Root", root, "Root", root, AUTHORITY)
    names = alternative_names(x509.RFC822Name("models@example.com"))
    leaf = certificate("Signer", signer, "Root", root, (*MAY_SIGN, names))
    (work / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (work / "m").write_bytes(b"weights")
    raw = bundle(statement(resources({".": b"weights"}), name="m"), signer, material=chain_material(leaf))
    (work / "m.sig").write_bytes(raw)

    added = result(batuta("pacha", "trust", "add", "company-ca", "ca.pem", "--json"))
    assert added["key_type"] == "certificate"
    assert "company-ca  " in (listed := batuta("pacha", "trust", "list").stdout)
    assert "trusted authority" in listed
    verify = ("pacha", "verify", "m", "--at", "2026-11-25T12:00:00Z", "--identity", "models@example.com")
    batuta(*verify, code=0)
    batuta("pacha", "trust", "export", "--output", "team.toml", code=0)
    batuta(*verify, "--trust", "team.toml", code=0)
    batuta("pacha", "trust", "revoke", "company-ca", "--reason", "stolen", code=0)
    refused = batuta(*verify, code=4)
    assert "stolen" in refused.stderr


def test_a_trusted_ecdsa_key_counts_under_its_name(batuta: Run, home: Path, work: Path, model: Path) -> None:
    signer = Signatory(ec.SECP521R1())
    signer.save(work)
    save(work, bundle(statement(resources(FILES)), signer))
    assert "no trusted key made this signature" in batuta("pacha", "verify", "model", code=4).stderr
    batuta("pacha", "trust", "add", "NVIDIA", "ec.pub", code=0)
    [entry] = tomllib.loads(trust_file(home).read_text())["key"]
    assert (entry["key_type"], entry["name"]) == ("ecdsa-p521", "NVIDIA")
    done = batuta("pacha", "verify", "model", "--identity", "NVIDIA", code=0)
    assert f"model: verified, signed by NVIDIA (key {signer.key_id})" in done.stdout
    assert "does not say who signed or when it was signed" in done.stdout
    [found] = result(batuta("pacha", "verify", "model", "--json", code=0))
    assert (found["address"], found["binds"]) == (None, ["content", "name"])
    assert (
        found["oms_root"]
        == "sha256:"
        + hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in FILES.values())).hexdigest()
    )
    inline = found["signers"][0]["public_key"]
    assert inline.startswith("ecdsa-p521:")
    batuta("pacha", "verify", "model", "--key", inline, code=0)
    batuta("pacha", "verify", "model", "--identity", "IBM", code=4)
    batuta("pacha", "trust", "revoke", signer.key_id[:12], "--reason", "leaked", code=0)
    assert "revoked" in batuta("pacha", "verify", "model", "--key", "ec.pub", code=4).stderr
    assert "REVOKED" in batuta("pacha", "trust", "list", code=0).stdout
    assert "revoked" in batuta("pacha", "sign", "model", "--oms-key", "ec.pem", code=4).stderr


def test_an_ecdsa_key_is_read_in_every_public_form(batuta: Run, work: Path, model: Path, signer: Signatory) -> None:
    save(work, bundle(statement(resources(FILES)), signer))
    openssh = subprocess.run(["ssh-keygen", "-i", "-m", "PKCS8", "-f", "ec.pub"], cwd=work, capture_output=True)
    forms = {"pem": signer.pem, "crlf": signer.pem.replace(b"\n", b"\r\n"), "space": b"\n" + signer.pem + b"\n\n"}
    if openssh.returncode == 0:
        forms["openssh"] = openssh.stdout
    for name, content in forms.items():
        (work / name).write_bytes(content)
        batuta("pacha", "verify", "model", "--key", name, code=0)
    batuta("pacha", "verify", "model", "--key", "-", input=signer.pem.decode(), code=0)


def test_a_key_that_cannot_sign_bundles_is_refused_in_words(batuta: Run, work: Path, signer: Signatory) -> None:
    weak = rsa.generate_private_key(65537, 2048)
    pairs: tuple[tuple[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey], ...] = (
        ("rsa", weak),
        ("secp256k1", ec.generate_private_key(ec.SECP256K1())),
    )
    for name, private in pairs:
        (work / f"{name}.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (work / f"{name}.pem").chmod(0o600)
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"], cwd=work, check=True
        )
    (work / "m").write_text("w")
    assert "neither an Ed25519 nor an ECDSA key" in batuta("pacha", "trust", "add", "x", "rsa.pub", code=2).stderr
    assert "secp256k1 is not supported" in batuta("pacha", "trust", "add", "x", "secp256k1.pub", code=2).stderr
    assert "not an ECDSA key" in batuta("pacha", "sign", "m", "--oms-key", "rsa.pem", code=2).stderr
    assert "secp256k1 is not supported" in batuta("pacha", "sign", "m", "--oms-key", "secp256k1.pem", code=2).stderr
    done = batuta("pacha", "sign", "m", "--oms-key", "-", input=signer.pem.decode(), code=2)
    assert "is a public key" in done.stderr
    (work / "two.pub").write_bytes(signer.pem * 2)
    assert "more than one key" in batuta("pacha", "trust", "add", "x", "two.pub", code=2).stderr
    (work / "ca.pem").write_bytes(pem(certificate("Root", signer, "Root", signer, AUTHORITY)))
    done = batuta("pacha", "verify", "m", "--key", "ca.pem", code=2)
    assert "is a certificate" in done.stderr and "--ca FILE" in done.stderr
    assert names_in(work).count("m.oms.sig") == 0


# --- content


def _fifo_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: (m / "config.json").write_bytes(b"[]"), "changed: config.json"),
        (lambda m: (m / "empty").write_bytes(b"x"), "changed: empty"),
        (lambda m: (m / "empty").unlink(), "missing: empty"),
        (lambda m: (m / "new").touch(), "added: new"),
        (lambda m: (m / ".gitignore").touch(), "added: .gitignore"),
        (lambda m: (m / "config.json").rename(m / "c.json"), "renamed: config.json is now c.json"),
        (lambda m: (m / "link").symlink_to("config.json"), "added: link"),
        (lambda m: ((m / "empty").unlink(), (m / "empty").symlink_to("config.json")), "changed: empty"),
        (lambda m: _fifo_instead(m / "empty"), "changed: empty"),
        (lambda m: ((m / "empty").unlink(), (m / "empty").mkdir()), "missing: empty"),
    ],
)
@pytest.mark.parametrize("method", ["files", "shards"])
def test_every_difference_is_told(
    batuta: Run, work: Path, model: Path, signer: Signatory, method: str, change: object, told: str
) -> None:
    files = dict(FILES)
    if method == "shards":
        files["empty"] = b"full"
        (model / "empty").write_bytes(b"full")
    rows = resources(files) if method == "files" else shards(files, 300)
    size = None if method == "files" else 300.0
    save(work, bundle(statement(rows, method=method, shard_size=size), signer))
    batuta("pacha", "verify", "model", "--key", "ec.pub", code=0)
    change(model)  # type: ignore[operator]
    done = batuta("pacha", "verify", "model", "--key", "ec.pub", code=3)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_is_found_under_the_names_that_tools_give_it(batuta: Run, work: Path, signer: Signatory) -> None:
    (work / "m.gguf").write_bytes(b"weights")
    for name in (".", "m.gguf"):
        save(work, bundle(statement(resources({name: b"weights"}), "m.gguf"), signer), "m.gguf.sig")
        batuta("pacha", "verify", "m.gguf", "--key", "ec.pub", code=0)
        batuta("pacha", "verify", "-", "--signature", "m.gguf.sig", "--key", "ec.pub", input="weights", code=0)
        batuta("pacha", "verify", "-", "--signature", "m.gguf.sig", "--key", "ec.pub", input="weights!", code=3)
    save(work, bundle(statement(resources({"other": b"weights"}), "m.gguf"), signer), "m.gguf.sig")
    assert "a directory was signed" in batuta("pacha", "verify", "m.gguf", "--key", "ec.pub", code=3).stderr
    (work / "renamed").write_bytes(b"weights")
    save(work, bundle(statement(resources({".": b"weights"}), "m.gguf"), signer), "renamed.sig")
    assert "another name, m.gguf" in batuta("pacha", "verify", "renamed", "--key", "ec.pub", code=0).stderr
    batuta("pacha", "verify", "renamed", "--key", "ec.pub", "--name", "renamed", code=3)
    batuta("pacha", "verify", "renamed", "--key", "ec.pub", "--name", "m.gguf", code=0)


def test_a_stream_is_compared_with_shards(batuta: Run, work: Path, signer: Signatory) -> None:
    content = b"0123456789"
    rows = shards({".": content}, 4)
    save(work, bundle(statement(rows, "m", method="shards", shard_size=4), signer), "s")
    for given, code in ((content, 0), (content[:-1], 3), (content + b"x", 3), (content[:8], 3), (b"", 3)):
        batuta("pacha", "verify", "-", "--signature", "s", "--key", "ec.pub", input=given.decode(), code=code)


def test_an_old_bundle_is_verified_and_what_it_leaves_open_is_told(
    batuta: Run, work: Path, model: Path, signer: Signatory
) -> None:
    save(work, bundle_02(FILES, signer))
    done = batuta("pacha", "verify", "model", "--key", "ec.pub", code=0)
    assert "binds the content only" in done.stdout
    assert (
        "did not sign a name" in batuta("pacha", "verify", "model", "--key", "ec.pub", "--name", "model", code=3).stderr
    )
    (model / "new").touch()
    batuta("pacha", "verify", "model", "--key", "ec.pub", code=3)


def test_a_forged_signature_is_told_from_an_unknown_key(
    batuta: Run, work: Path, model: Path, signer: Signatory
) -> None:
    other = Signatory()
    save(work, bundle(statement(resources(FILES)), other, material=signer.material()))
    assert "the signature is wrong" in batuta("pacha", "verify", "model", "--key", "ec.pub", code=3).stderr
    save(work, bundle(statement(resources(FILES)), other))
    assert "another key than the one given" in batuta("pacha", "verify", "model", "--key", "ec.pub", code=4).stderr
    wrong = statement(resources(FILES))
    wrong["subject"][0]["digest"]["sha256"] = "00" * 32
    save(work, bundle(wrong, signer))
    assert "subject[0].digest.sha256" in batuta("pacha", "verify", "model", "--key", "ec.pub", code=2).stderr


def test_two_signers_of_two_kinds_are_counted(batuta: Run, work: Path, model: Path, signer: Signatory) -> None:
    batuta("pacha", "keygen", "--identity", "alice@example.com", code=0)
    batuta("pacha", "sign", "model", code=0)
    batuta("pacha", "sign", "model", "--oms-key", "ec.pem", code=0)
    both = ("pacha", "verify", "model", "--signature", "model.sig", "--signature", "model.oms.sig", "--require", "2")
    batuta(*both, code=4)
    batuta("pacha", "trust", "add", "release", "ec.pub", code=0)
    [found] = result(batuta(*both, "--json", code=0))
    assert [s["name"] for s in found["signers"]] == ["alice@example.com", "release"]
    assert (found["binds"], found["address"] is None) == (["content", "name"], False)


# --- certificates


def test_a_certificate_is_judged_now_or_at_the_date_given(
    batuta: Run, work: Path, model: Path, signer: Signatory
) -> None:
    now = dt.datetime.now(dt.UTC)
    root, leaf = Signatory(), signer
    authority = certificate("Root", root, "Root", root, AUTHORITY, since=now - dt.timedelta(days=900))
    past = {"since": now - dt.timedelta(days=800), "until": now - dt.timedelta(days=400)}
    names = alternative_names(x509.RFC822Name("models@example.com"))
    own = certificate("Signer", leaf, "Root", root, [*MAY_SIGN, names], **past)
    (work / "ca.pem").write_bytes(pem(authority))
    save(work, bundle(statement(resources(FILES)), leaf, material=chain_material(own)))
    arguments = ("pacha", "verify", "model", "--ca", "ca.pem", "--identity", "models@example.com")
    assert "--at DATE" in batuta(*arguments, code=4).stderr
    day = f"{now - dt.timedelta(days=500):%Y-%m-%d}"
    done = batuta(*arguments, "--at", day, code=0)
    assert f"certificate of CN=Root,O=Example, valid at {day} 00:00:00Z" in done.stdout
    [found] = result(batuta(*arguments, "--at", day, "--json", code=0))
    assert found["signers"][0]["certificate"]["judged_at"] == f"{day}T00:00:00Z"
    batuta(*arguments, "--at", "yesterday", code=2)
    batuta(*arguments[:3], "--ca", "ec.pub", "--identity", "x", code=2)
    batuta(*arguments[:3], "--ca", "missing.pem", "--identity", "x", code=1)


def test_a_keyless_bundle_without_the_package_says_how_to_install_it(batuta: Run, work: Path) -> None:
    vector = Path(__file__).parents[1] / "pacha/oms/vectors/v1.1.0-sigstore.sig"
    (work / "m").mkdir()
    (work / "m" / "f").touch()
    options = ("--trusted-root", "root.json", "--issuer", "https://example.com", "--identity", "x")
    for given in range(0, 6, 2):
        done = batuta(
            "pacha", "verify", "m", "--signature", vector, *options[:given], code=3
        )  # the files differ as well
        assert "signme-1" in done.stderr
    (work / "m" / "f").unlink()
    for name in ("signme-1", "signme-2"):
        (work / "m" / name).write_text(name)
    done = batuta("pacha", "verify", "m", "--signature", vector, *options[:2], code=4)
    assert "--issuer https://sigstore.verify.ibm.com/oauth2 --identity stefanb@us.ibm.com" in done.stderr
    assert (
        "pip install 'batuta-cli[sigstore]'"
        in batuta("pacha", "verify", "m", "--signature", vector, *options, code=2).stderr
    )


# --- inspect


def test_inspect_tells_what_a_bundle_says_and_needs(batuta: Run, work: Path, signer: Signatory) -> None:
    save(work, bundle(statement(shards(FILES, 600), method="shards", shard_size=600.0), signer), "key.sig")
    shown = answer(batuta("pacha", "inspect", "key.sig", "--json", code=0))["result"]
    assert (shown["format"], shown["signed_with"], shown["key_hint"]) == ("oms", "an ECDSA key", signer.hint)
    assert "--key FILE" in shown["needs"]
    assert [(f["name"], f["start"], f["end"]) for f in shown["files"]] == [
        ("config.json", 0, 2),
        ("sub/weights.bin", 0, 600),
        ("sub/weights.bin", 600, 1000),
    ]
    save(work, bundle_02(FILES, signer), "old.sig")
    shown = answer(batuta("pacha", "inspect", "old.sig", "--json", code=0))["result"]
    assert (shown["predicate"], shown["claimed_key_id"]) == ("model_signing 0.2", signer.key_id)
    text = batuta("pacha", "inspect", "old.sig", code=0)
    assert "sub/weights.bin" in text.stdout and "None" not in text.stdout
    assert "nothing was verified" in text.stderr
    damaged = chain_material(certificate("A", signer, "A", signer))
    damaged["x509CertificateChain"]["certificates"][0]["rawBytes"] = "AAAA"
    save(work, bundle(statement(resources(FILES)), signer, material=damaged), "bad.sig")
    assert "not a certificate" in batuta("pacha", "inspect", "bad.sig", code=2).stderr


# --- sign


def test_the_bundle_is_as_the_specification_has_it(batuta: Run, work: Path, model: Path, signer: Signatory) -> None:
    (model / "a-b").write_bytes(b"1")
    batuta("pacha", "sign", "model", "--oms-key", "ec.pem", "--ignore", "logs", code=0)
    document = json.loads((work / "model.oms.sig").read_text())
    assert document["verificationMaterial"] == {"publicKey": {"hint": signer.hint}, "tlogEntries": []}
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    files = {"a-b": b"1", "config.json": b"{}", "empty": b"", "sub/weights.bin": b"w" * 1000}
    assert json.loads(payload) == statement(resources(files), ignore_paths=["logs"])
    [signature] = document["dsseEnvelope"]["signatures"]
    signer.key.public_key().verify(
        base64.b64decode(signature["sig"]),
        b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload),
        ec.ECDSA(signer.hash),
    )


def test_the_key_comes_from_a_file_a_variable_or_stdin(batuta: Run, work: Path, signer: Signatory) -> None:
    (work / "m").write_text("w")
    key = signer.private_pem.decode()
    secret = key.splitlines()[1]
    sec1 = signer.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    locked = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")).decode()
    runs = [
        batuta("pacha", "sign", "m", "--oms-key", "env:K", env={"K": key}, code=0),
        batuta("pacha", "sign", "m", "--oms-key", "-", "-f", input=key, code=0),
        batuta("pacha", "sign", "m", "--oms-key", "-", "-f", input=sec1, code=0),
        batuta(
            "pacha", "sign", "m", "-f", "--oms-key", "-", "--passphrase-env", "P", input=locked, env={"P": "pw"}, code=0
        ),
        batuta(
            "pacha", "sign", "m", "-f", "--oms-key", "-", "--passphrase-env", "P", input=locked, env={"P": "no"}, code=3
        ),
        batuta("pacha", "sign", "m", "-f", "--oms-key", "-", input=locked, code=2),
        batuta("pacha", "sign", "m", "-f", "--oms-key", "env:K", code=2),
        batuta("pacha", "sign", "m", "-f", "--oms-key", "missing.pem", code=1),
    ]
    shows_no(secret, *runs)
    batuta("pacha", "verify", "m", "--key", "ec.pub", code=0)
    (work / "ec.pem").chmod(0o640)
    assert "chmod 600" in batuta("pacha", "sign", "m", "-f", "--oms-key", "ec.pem", code=2).stderr


def test_what_has_no_place_in_such_a_bundle_is_refused(batuta: Run, work: Path, model: Path, signer: Signatory) -> None:
    for options in (["--expires", "30"], ["--identity", "x"], ["--format", "pacha1"], ["--key", "env:K"]):
        done = batuta("pacha", "sign", "model", "--oms-key", "ec.pem", *options, code=2)
        assert f"{options[0]} has no place" in done.stderr
    assert (
        "is inside the model" in batuta("pacha", "sign", "model", "--oms-key", "ec.pem", "-o", "model/s", code=2).stderr
    )
    batuta("pacha", "sign", "model", "--oms-key", "ec.pem", code=0)
    before = (work / "model.oms.sig").read_bytes()
    assert "already exists" in batuta("pacha", "sign", "model", "--oms-key", "ec.pem", code=2).stderr
    assert (work / "model.oms.sig").read_bytes() == before
    assert names_in(work) == ["ec.pem", "ec.pub", "model", "model.oms.sig"]


# --- digests


def test_sha256_lines_are_those_of_sha256sum(batuta: Run, work: Path) -> None:
    names = ["plain", "with space", "back\\slash", "new\nline", "empty", "ünïcode"]
    for name in names:
        (work / name).write_bytes(b"" if name == "empty" else name.encode() * 1000)
    theirs = subprocess.run(["sha256sum", *names], cwd=work, capture_output=True, text=True, check=True).stdout
    ours = batuta("pacha", "hash", "--algorithm", "sha256", *names, code=0).stdout
    assert ours == theirs
    check = subprocess.run(["sha256sum", "--check", "--quiet"], cwd=work, input=ours, text=True)
    assert check.returncode == 0
    done = batuta("pacha", "hash", "--algorithm", "sha256", "-", input="weights", code=0)
    assert done.stdout == f"{hashlib.sha256(b'weights').hexdigest()}  -\n"


def test_a_directory_has_no_sha256(batuta: Run, work: Path, model: Path) -> None:
    done = batuta("pacha", "hash", "--algorithm", "sha256", "model", code=2)
    assert "a directory has no SHA-256 digest" in done.stderr and done.stdout == ""
    batuta("pacha", "verify", "model", "--digest", "sha256:" + "00" * 32, code=2)
    batuta("pacha", "hash", "--algorithm", "md5", "model", code=2)
    (work / "LIST").write_text(f"{'00' * 32}  model\n")
    batuta("pacha", "hash", "--algorithm", "sha256", "--check", "LIST", code=2)


def test_a_sha256_digest_is_compared_alone_and_beside_a_signature(batuta: Run, work: Path, signer: Signatory) -> None:
    (work / "m").write_bytes(b"weights")
    right = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    wrong = "sha256:" + hashlib.sha256(b"other").hexdigest()
    assert "no signature was checked" in batuta("pacha", "verify", "m", "--digest", right, code=0).stdout
    batuta("pacha", "verify", "-", "--digest", right.upper().replace("SHA256", "sha256"), input="weights", code=0)
    assert "not " + wrong in batuta("pacha", "verify", "m", "--digest", wrong, code=3).stderr
    batuta("pacha", "sign", "m", "--oms-key", "ec.pem", code=0)
    for source, given in (("m", ""), ("-", "weights")):
        arguments = ("pacha", "verify", source, "--signature", "m.oms.sig", "--key", "ec.pub", "--digest")
        assert "signed by" in batuta(*arguments, right, input=given, code=0).stdout
        batuta(*arguments, wrong, input=given, code=3)
        blake3 = batuta("pacha", "hash", "m", code=0).stdout.split()[0]
        batuta(*arguments, blake3, input=given, code=0)
        batuta(*arguments, "blake3:" + "00" * 32, input=given, code=3)
    for malformed in ("sha256:", "sha256:00", "sha256:" + "g" * 64, "SHA256:" + "00" * 32, "md5:00"):
        batuta("pacha", "verify", "m", "--digest", malformed, code=2)


def test_a_bundle_inside_the_model_does_not_sign_its_own_hidden_file(
    batuta: Run, environment: dict[str, str], work: Path, model: Path, signer: Signatory
) -> None:
    code = """if True:
        from batuta_cli import files
        from batuta_cli.cli.app import main
        files.AtomicOutput._open_unnamed = lambda self: False  # as on a file system without O_TMPFILE
        main()
    """
    command = [sys.executable, "-c", code, "pacha", "sign", "model", "--inside", "--oms-key", "ec.pem"]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    batuta("pacha", "verify", "model", "--key", "ec.pub", code=0)
