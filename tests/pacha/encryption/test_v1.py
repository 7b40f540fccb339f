"""Version 1 against the one-shot RFC 8439 of the library, a vector of two other libraries, and plain ChaCha20."""

import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import ChangedWhileReadError, DecryptionError, InvalidInputError
from batuta_cli.pacha.encryption import v1
from batuta_cli.pacha.encryption.header import SingleMessageHeader
from batuta_cli.pacha.encryption.memory import decrypt_model, encrypt_model
from batuta_cli.pacha.encryption.sink import MemorySink
from batuta_cli.pacha.encryption.source import MemorySource

from . import reference
from .helpers import NONCE, PASSWORD, SALT, SECRET, noise

KEY = bytes(range(50, 82))
HEADER = SingleMessageHeader(SALT, NONCE)
MIB = 1024 * 1024

# Made once with argon2-cffi 25.1 (hash_secret_raw(..., 3, 65536, 4, 32, Type.ID, version=0x13)) and PyNaCl 1.6.2, that
# is libsodium (crypto_aead_chacha20poly1305_ietf_encrypt without additional data), from PASSWORD, SALT and NONCE.
VECTOR_PLAINTEXT = b"GGUF and then some weights"
VECTOR = bytes.fromhex(
    "5041434841454e4301000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f6465666768696a6b6c6d6e6f898e54ea"
    "fab151d4bd6bfbc16b85d029567ba0b821e3213dea9953dc1d55ec6d90f4994d8ca8ae896785"
)


def ignore(count: int) -> None: ...


def encrypted(data: bytes) -> bytes:
    sink = MemorySink(v1.encrypted_size(len(data)))
    assert v1.encrypt(MemorySource(memoryview(data)), sink, HEADER, KEY, "data", ignore) == len(data)
    return sink.content()


def test_a_file_of_other_libraries_decrypts() -> None:
    assert decrypt_model(VECTOR, PASSWORD) == VECTOR_PLAINTEXT


def test_the_one_shot_call_reads_what_is_written_at_the_standard_cost() -> None:
    data = noise(100_000)
    assert reference.open_1(encrypt_model(data, PASSWORD), SECRET) == data


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, MIB - 1, MIB, MIB + 1, 4 * MIB, 5 * MIB + 17])
def test_piecewise_is_identical_to_the_one_shot_call(size: int) -> None:
    data = noise(size)
    assert encrypted(data) == HEADER.pack() + ChaCha20Poly1305(KEY).encrypt(NONCE, data, None)


@given(data=st.binary(max_size=5000), piece=st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_identical_however_the_pieces_fall(data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v1, "PIECE", piece)
        assert encrypted(data)[53:] == ChaCha20Poly1305(KEY).encrypt(NONCE, data, None)


def test_pass_1_finds_every_damaged_bit_and_decrypts_nothing() -> None:
    sealed = ChaCha20Poly1305(KEY).encrypt(NONCE, b"some forty bytes of a very small model..", None)
    for position in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[position // 8] ^= 1 << position % 8
        body, tag = MemorySource(memoryview(damaged)[:-16]), bytes(damaged[-16:])
        with pytest.raises(DecryptionError):
            v1.check(body, HEADER, KEY, tag, "data", ignore)


def test_pass_2_finds_what_changed_after_pass_1() -> None:
    sealed = bytearray(ChaCha20Poly1305(KEY).encrypt(NONCE, noise(1000), None))
    body, tag = MemorySource(memoryview(sealed)[:-16]), bytes(sealed[-16:])
    v1.check(body, HEADER, KEY, tag, "data", ignore)
    sealed[500] ^= 1
    with pytest.raises(ChangedWhileReadError):
        v1.decrypt(body, MemorySink(1000), HEADER, KEY, tag, "data", ignore)


def plain_chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439, section 2.3, word by word."""
    start = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce))
    state = start[:]

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] ^= state[x]
            state[z] = (state[z] << turn | state[z] >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(start, state, strict=True)))


def test_the_plain_chacha20_of_this_test_is_that_of_the_rfc() -> None:
    block = plain_chacha20_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000"))
    assert block.hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e")


@pytest.mark.parametrize("offset", [0, 64, MIB, 2**31, 2**32, 2**36, v1.MAX_PLAINTEXT - 64])
def test_the_key_stream_at_any_offset_is_the_block_of_its_counter(offset: int) -> None:
    expected = plain_chacha20_block(KEY, 1 + offset // 64, NONCE)
    assert v1.key_stream(KEY, NONCE, offset).update(bytes(64)) == expected


def test_the_last_byte_that_fits_uses_the_last_block_counter() -> None:
    assert v1.MAX_PLAINTEXT == 256 * 1024**3 - 64
    assert 1 + (v1.MAX_PLAINTEXT - 1) // 64 == 2**32 - 1


def test_more_than_256_gib_less_a_block_is_refused_with_the_way_out() -> None:
    v1.check_size(256 * 1024**3 - 64, "model")
    with pytest.raises(InvalidInputError, match="model: larger than 256 GiB") as refused:
        v1.check_size(256 * 1024**3 - 63, "model")
    assert "--format 2" in (refused.value.hint or "")


def test_a_source_of_unknown_size_is_stopped_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "MAX_PLAINTEXT", 3 * MIB)
    encrypted(bytes(3 * MIB))
    with pytest.raises(InvalidInputError, match="larger than"):
        encrypted(bytes(3 * MIB + 1))


@pytest.mark.parametrize(("size", "plaintext"), [(69, 0), (70, 1), (68, None), (0, None), (2**38 + 5, 2**38 - 64)])
def test_the_size_of_a_file_tells_that_of_the_plaintext(size: int, plaintext: int | None) -> None:
    assert v1.plaintext_size(size) == plaintext
    assert plaintext is None or v1.encrypted_size(plaintext) == size


def test_a_file_too_large_for_version_1_has_no_plaintext_size() -> None:
    assert v1.plaintext_size(v1.encrypted_size(v1.MAX_PLAINTEXT) + 1) is None
