"""Ed25519 keys: the vectors of RFC 8032, and every format that keys come in and go out."""

import base64
import importlib.util
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError, DecryptionError, InvalidInputError, UsageError
from batuta_cli.pacha.keys import SigningKey, VerifyingKey, check_identity, generate_keypair, is_encrypted_key
from tests.pacha.forge import ALICE, BOB

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def rust_pem(label: str, body: bytes) -> bytes:
    text = base64.b64encode(body).decode()
    return f"-----BEGIN PACHA ED25519 {label} KEY-----\n{text}\n-----END PACHA ED25519 {label} KEY-----\n".encode()


def run(*command: str | Path, stdin: bytes = b"") -> bytes:
    return subprocess.run(list(map(str, command)), input=stdin, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_keys_sign_and_verify_as_rfc_8032_says(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.parse(rust_pem("SIGNING", bytes.fromhex(seed)))
    assert key.verifying_key.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verifying = VerifyingKey(bytes.fromhex(public))
    assert verifying.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not verifying.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")
    assert not VerifyingKey(bytes.fromhex(RFC_8032[0][1])[::-1]).verifies(bytes.fromhex(signature), b"")


def test_the_key_id_is_the_beginning_of_the_blake3_digest_that_b3sum_gives_the_raw_key() -> None:
    digest = run("b3sum", "--no-names", stdin=ALICE.raw).decode().strip()
    assert ALICE.verifying.key_id == digest[:32]


def test_the_hint_is_the_sha256_that_sha256sum_gives_the_public_pem_of_openssl() -> None:
    pem = run("openssl", "pkey", "-pubin", stdin=ALICE.pem)
    assert ALICE.verifying.hint == run("sha256sum", stdin=pem).decode().split()[0]


def test_keys_with_the_same_shown_id_are_still_different_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifyingKey, "key_id", "0" * 32)
    assert ALICE.verifying.key_id == BOB.verifying.key_id
    assert ALICE.verifying != BOB.verifying


@pytest.mark.parametrize("passphrase", [None, b"correct horse", "päss\u4e2d".encode(), b"p" * 2000])
def test_a_private_key_is_read_back_as_it_was_written(passphrase: bytes | None) -> None:
    key, public = generate_keypair("alice")
    pem = key.to_pem(passphrase)
    assert is_encrypted_key(pem) == (passphrase is not None)
    read = SigningKey.parse(pem, passphrase=passphrase, identity="alice")
    assert (read.verifying_key, read.identity) == (public, "alice")


def test_openssl_opens_a_plain_private_key_and_finds_the_same_public_key() -> None:
    assert run("openssl", "pkey", "-pubout", stdin=ALICE.signing.to_pem()) == ALICE.pem == ALICE.verifying.to_pem()


def test_openssl_opens_an_encrypted_private_key_with_its_passphrase_only() -> None:
    pem = ALICE.signing.to_pem(b"correct horse")
    assert run("openssl", "pkey", "-pubout", "-passin", "pass:correct horse", stdin=pem) == ALICE.pem
    with pytest.raises(subprocess.CalledProcessError):
        run("openssl", "pkey", "-pubout", "-passin", "pass:wrong", stdin=pem)


def test_guessing_a_passphrase_costs_600000_rounds_of_pbkdf2() -> None:
    pem = ALICE.signing.to_pem(b"correct horse")
    shown = run("openssl", "asn1parse", stdin=pem).decode()
    assert "INTEGER           :0927C0" in shown  # 600,000
    assert "hmacWithSHA256" in shown and "aes-256-cbc" in shown


@pytest.mark.parametrize("options", [[], ["-aes256", "-pass", "pass:secret"], ["-aes128", "-pass", "pass:secret"]])
def test_private_keys_made_by_openssl_are_read(options: list[str]) -> None:
    pem = run("openssl", "genpkey", "-algorithm", "ed25519", *options)
    public = run("openssl", "pkey", "-pubout", "-passin", "pass:secret", stdin=pem)
    key = SigningKey.parse(pem, passphrase=b"secret" if options else None)
    assert key.verifying_key == VerifyingKey.parse(public)


@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_keys_made_by_ssh_keygen_are_read(passphrase: str, tmp_path: Path) -> None:
    path = tmp_path / "id"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "alice@laptop", "-f", path)
    private, public = path.read_bytes(), (tmp_path / "id.pub").read_bytes()
    assert is_encrypted_key(private) == bool(passphrase)
    key = SigningKey.parse(private, passphrase=passphrase.encode() or None)
    assert key.verifying_key == VerifyingKey.parse(public)
    assert public.split()[:2] == key.verifying_key.to_openssh().split()


def test_an_encrypted_openssh_key_says_which_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package bcrypt") as caught:
        SigningKey.parse(path.read_bytes(), passphrase=b"secret")
    assert caught.value.hint == "pip install 'batuta-cli[ssh]'"


def test_the_pem_of_the_rust_crate_is_read() -> None:
    key = SigningKey.parse(rust_pem("SIGNING", ALICE.seed))
    assert key.verifying_key == ALICE.verifying
    assert VerifyingKey.parse(rust_pem("VERIFYING", ALICE.raw)) == ALICE.verifying


@pytest.mark.parametrize(("label", "size"), [("SIGNING", 31), ("SIGNING", 64), ("VERIFYING", 33), ("VERIFYING", 0)])
def test_a_rust_pem_of_the_wrong_size_is_refused_with_the_name_of_the_file(label: str, size: int) -> None:
    parse = SigningKey.parse if label == "SIGNING" else VerifyingKey.parse
    with pytest.raises(InvalidInputError, match=r"^a\.pem: .* 32 bytes"):
        parse(rust_pem(label, bytes(size)), source="a.pem")


def test_a_public_key_is_read_from_one_word_pem_and_openssh() -> None:
    word = "ed25519:" + base64.b64encode(ALICE.raw).decode()
    assert ALICE.verifying.inline == word
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + ALICE.raw  # RFC 8709 section 4
    openssh = b"ssh-ed25519 " + base64.b64encode(blob) + b" alice@laptop\n"
    for spelling in (word.encode(), word.encode() + b"\n", ALICE.pem, openssh, ALICE.pem.replace(b"\n", b"\r\n")):
        assert VerifyingKey.parse(spelling) == ALICE.verifying


@pytest.mark.parametrize("wrong", [b"wrong", b"", b"correct horse\n"])
def test_a_wrong_passphrase_is_a_failed_decryption(wrong: bytes) -> None:
    with pytest.raises(DecryptionError, match=r"^k\.pem: wrong passphrase"):
        SigningKey.parse(ALICE.signing.to_pem(b"correct horse"), passphrase=wrong, source="k.pem")


def test_an_encrypted_key_without_a_passphrase_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="encrypted") as caught:
        SigningKey.parse(ALICE.signing.to_pem(b"x"))
    assert (caught.value.exit_code, caught.value.hint) == (2, "--passphrase-env VAR names its passphrase")


def test_a_passphrase_given_for_a_plain_key_does_not_matter() -> None:
    assert SigningKey.parse(ALICE.signing.to_pem(), passphrase=b"x").verifying_key == ALICE.verifying


def test_a_key_is_never_written_with_an_empty_passphrase_as_if_it_were_protected() -> None:
    with pytest.raises(UsageError, match="passphrase is empty"):
        ALICE.signing.to_pem(b"")


OTHER_TYPES: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "x25519": x25519.X25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_private_and_public_keys_of_another_type_are_refused(kind: str) -> None:
    key = OTHER_TYPES[kind]
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidInputError, match="x: not an Ed25519 key"):
        SigningKey.parse(private, source="x")
    with pytest.raises(InvalidInputError, match="x: not an Ed25519 key"):
        VerifyingKey.parse(public, source="x")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_openssh_keys_of_another_type_are_refused_as_such(kind: str, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", kind, "-b", "2048" if kind == "rsa" else "256", "-N", "", "-f", tmp_path / "id")
    with pytest.raises(InvalidInputError, match="not an Ed25519 key"):
        SigningKey.parse((tmp_path / "id").read_bytes())
    with pytest.raises(InvalidInputError, match="not an Ed25519 key"):
        VerifyingKey.parse((tmp_path / "id.pub").read_bytes())


def test_a_private_key_is_not_taken_for_a_public_one_nor_the_reverse() -> None:
    for private in (ALICE.signing.to_pem(), ALICE.signing.to_pem(b"x"), rust_pem("SIGNING", ALICE.seed)):
        with pytest.raises(InvalidInputError, match="is a private key"):
            VerifyingKey.parse(private)
    for public in (ALICE.pem, ALICE.verifying.to_openssh(), rust_pem("VERIFYING", ALICE.raw)):
        with pytest.raises(InvalidInputError, match="is a public key"):
            SigningKey.parse(public)


@pytest.mark.parametrize("glue", [b"", b"\n"])
def test_a_file_with_two_public_keys_is_refused_because_either_could_be_meant(glue: bytes) -> None:
    for data in (
        ALICE.pem + glue + BOB.pem,
        ALICE.verifying.to_openssh() + glue + BOB.verifying.to_openssh(),
        rust_pem("VERIFYING", ALICE.raw) + glue + rust_pem("VERIFYING", BOB.raw),
    ):
        with pytest.raises(InvalidInputError, match="more than one key"):
            VerifyingKey.parse(data)


def test_neither_repr_nor_errors_show_key_material() -> None:
    seed = base64.b64encode(ALICE.seed)
    assert seed.decode() not in repr(ALICE.signing) and ALICE.seed.hex() not in repr(ALICE.signing)
    for damaged in (rust_pem("SIGNING", ALICE.seed)[:-9], b"-----BEGIN PRIVATE KEY-----\n" + seed, seed):
        with pytest.raises(BatutaError) as caught:
            SigningKey.parse(damaged)
        assert seed[:12].decode() not in str(caught.value) + str(caught.value.hint)


PRIVATE = [ALICE.signing.to_pem(), rust_pem("SIGNING", ALICE.seed)]
PUBLIC = [ALICE.pem, ALICE.verifying.to_openssh(), rust_pem("VERIFYING", ALICE.raw), ALICE.verifying.inline.encode()]


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    data = draw(st.sampled_from(originals))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return data[:start] + draw(st.binary(max_size=20)) + data[end:]


@given(damaged(PRIVATE) | st.binary(max_size=200))
@settings(max_examples=300)
def test_a_damaged_private_key_is_an_error_that_a_user_can_read(data: bytes) -> None:
    try:
        key = SigningKey.parse(data, passphrase=b"x")
    except BatutaError as error:
        assert error.exit_code in (2, 3)
    else:
        assert len(key.sign(b"")) == 64


@given(damaged(PUBLIC) | st.binary(max_size=200))
@settings(max_examples=300)
def test_a_damaged_public_key_is_an_error_that_a_user_can_read(data: bytes) -> None:
    try:
        key = VerifyingKey.parse(data)
    except BatutaError as error:
        assert error.exit_code == 2
    else:
        assert len(key.raw) == 32


@given(st.integers(9, 2**254), st.binary(max_size=63))  # none of small order
def test_any_32_bytes_can_be_asked_as_a_public_key_and_no_short_signature_is_good(y: int, signature: bytes) -> None:
    key = VerifyingKey(y.to_bytes(32, "little"))
    assert not key.verifies(signature, b"message")
    assert VerifyingKey.parse(key.to_pem()) == VerifyingKey.parse(key.inline.encode()) == key


# By UnicodeData.txt of category Cf, and by DerivedCoreProperties.txt ignored by default.
INVISIBLE = (
    *(
        "\u00ad",
        "\u061c",
        "\u180e",
        "\u200b",
        "\u200c",
        "\u200d",
        "\u200e",
        "\u2060",
        "\u2063",
        "\u206f",
        "\ufeff",
        "\ufff9",
    ),
    *("\U000110bd", "\U0001bca0", "\U0001d173", "\U000e0001", "\U000e0061"),
    *("\u034f", "\u115f", "\u17b4", "\u180b", "\u3164", "\ufe0f", "\uffa0", "\U000e0100"),
)


@pytest.mark.parametrize(
    "identity", ["alice@example.com", "../../etc/passwd", "Ana María", "石田", "a/b", "-rf", ".", "x" * 200]
)
def test_an_identity_may_have_any_visible_character(identity: str) -> None:
    assert check_identity(identity) == identity
    assert SigningKey.generate(identity).identity == identity


@pytest.mark.parametrize(
    "identity",
    [
        "",
        "  ",
        "x" * 201,
        "é" * 101,
        "x" * 300,
        "a\nb",
        "a\x1b[31m",
        "a\x7f",
        "a\x85",
        "a\u202eb",
        "a\u2066b",
        "\udc80",
        *(f"alice{character}@example.com" for character in INVISIBLE),
    ],
)
def test_identities_that_are_empty_too_long_or_deceptive_are_refused_however_a_key_is_made(identity: str) -> None:
    pem = ALICE.signing.to_pem()
    for make in (
        lambda: check_identity(identity),
        lambda: generate_keypair(identity),
        lambda: ALICE.signing.with_identity(identity),
        lambda: SigningKey.parse(pem, identity=identity),
    ):
        with pytest.raises(InvalidInputError) as caught:
            make()
        assert caught.value.message.isprintable()


def test_every_generated_key_is_another() -> None:
    assert len({generate_keypair()[1] for _ in range(8)}) == 8


# Edwards25519 by RFC 8032 section 5.1.4, to find the points of small order without the code under test.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_Point = tuple[int, int]


def _sum(a: _Point, b: _Point) -> _Point:
    product = _D * a[0] * b[0] * a[1] * b[1] % _P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, _P) % _P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, _P) % _P
    return x, y


def _x_of(y: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    for candidate in (x, x * pow(2, (_P - 1) // 4, _P) % _P):
        if candidate * candidate % _P == square:
            return candidate
    return None


def _small_order_points() -> set[_Point]:
    """All points whose eighth multiple is the neutral element: the multiples of one of order eight."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        x = _x_of(y)
        if x is None:
            continue
        torsion: _Point = (0, 1)
        power, rest = (x, y), order  # the prime order takes everything but the torsion away
        while rest:
            torsion = _sum(torsion, power) if rest & 1 else torsion
            power, rest = _sum(power, power), rest >> 1
        points = {(0, 1)}
        point = torsion
        while point != (0, 1):
            points.add(point)
            point = _sum(point, torsion)
        if len(points) == 8:
            return points
    raise AssertionError("no point of order eight was found")


def test_a_public_key_that_anybody_can_sign_for_is_refused() -> None:
    ys = {y for _, y in _small_order_points()}
    encodings = ys | {y + _P for y in ys if y + _P < 2**255}
    assert len(encodings) == 7
    for y in encodings:
        for sign in (0, 1 << 255):
            with pytest.raises(InvalidInputError, match="small order"):
                VerifyingKey((y | sign).to_bytes(32, "little"))
