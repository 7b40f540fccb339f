"""Version 2 against the second implementation in `reference`, and against what a hostile editor of files does."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batuta_cli.errors import DecryptionError
from batuta_cli.pacha.encryption import v2
from batuta_cli.pacha.encryption.header import ChunkedHeader
from batuta_cli.pacha.encryption.kdf import KdfParameters
from batuta_cli.pacha.encryption.memory import decrypt_model, encrypt_model

from . import reference
from .helpers import CHEAP, NONCE, PASSWORD, SALT, SECRET, flipped, noise
from .reference import CHUNK, header_2, seal_2, seal_chunks, start_2

SEALED = CHUNK + 16
HEADER = header_2(SECRET, start_2(SALT, NONCE, reference.CHEAP, reference.CHUNK_LOG2))
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 1]

pytestmark = pytest.mark.usefixtures("cheap")


def chunks_of(data: bytes) -> list[bytes]:
    return [data[start : start + SEALED] for start in range(99, len(data), SEALED)]


def refused(data: bytes, password: str = PASSWORD) -> str:
    with pytest.raises(DecryptionError) as error:
        decrypt_model(data, password)
    return str(error.value)


def test_a_file_of_other_tools_decrypts_and_is_made_again() -> None:
    # Made once with argon2-cffi 25.1, `b3sum --derive-key` 1.2 and PyNaCl 1.6.2 (libsodium), from the design alone:
    # PASSWORD, SALT, NONCE, 64 KiB, 2 passes, 3 lanes, chunks of 4 KiB.
    data = b"GGUF and then some weights" * 160
    start = (
        "5041434841454e4302000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f6465666768696a6b6c6d6e6f0100"
        "00004000000002000000030c259993b21e6bf755dbc4c4b89511a03539e31eb4e92d6bca11a79909f20af9ad"
    )
    digest = "acd5cbee98ab2efe8aa407d9943af6610961414b5b58c001c0ce5b222fac8f66"
    made = seal_2(data, SECRET, SALT, NONCE, (64, 2, 3))
    assert made[:99].hex() == start
    assert hashlib.sha256(made).hexdigest() == digest
    assert decrypt_model(made, PASSWORD) == data
    cipher = v2.ChunkCipher(
        ChunkedHeader(SALT, NONCE, KdfParameters(64, 2, 3), 12), reference.key(SECRET, SALT, (64, 2, 3)), None, "data"
    )
    assert cipher.header_bytes.hex() == start


@pytest.mark.parametrize("size", EDGES)
def test_the_second_implementation_reads_what_is_written(size: int) -> None:
    data = noise(size)
    sealed = encrypt_model(data, PASSWORD, format=2)
    assert len(sealed) == v2.encrypted_size(size, CHUNK)
    assert reference.open_2(sealed, SECRET) == data


@given(data=st.binary(max_size=4 * CHUNK))
@example(data=b"")
@example(data=bytes(CHUNK))
@settings(max_examples=40, deadline=None)
def test_what_the_second_implementation_writes_is_read(data: bytes) -> None:
    assert decrypt_model(seal_2(data, SECRET, SALT, NONCE), PASSWORD) == data


def test_the_defaults_are_chunks_of_a_mebibyte_and_the_costs_of_version_1() -> None:
    header = ChunkedHeader.new()
    assert (header.chunk_size, header.kdf) == (1024 * 1024, KdfParameters(65_536, 3, 4))


def test_a_wrong_password_is_found_before_any_chunk_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object) -> None:
        raise AssertionError("a chunk was opened under a wrong password")

    monkeypatch.setattr(v2.ChunkCipher, "open_into", unreachable)
    refused(seal_2(noise(100), SECRET, SALT, NONCE), "wrong")


def test_the_commitment_is_compared() -> None:
    """A file made for another password: chunks and header agree, only the commitment is not that of the key."""
    start = start_2(SALT, NONCE, reference.CHEAP, reference.CHUNK_LOG2)
    header = start + bytes(32)
    sealed = seal_chunks([b"model"], SECRET, header)
    assert sealed[:99] == header
    refused(sealed)


def test_wrong_password_and_every_damage_are_one_message() -> None:
    data = seal_2(noise(2 * CHUNK), SECRET, SALT, NONCE)
    damages = [flipped(data, position) for position in (9, 41, 67, 98, 99, len(data) - 1)]
    assert len({refused(data, "wrong"), refused(data[:-1]), *map(refused, damages)}) == 1


def test_every_damaged_byte_of_the_sealed_part_of_the_header_is_found() -> None:
    data = seal_2(b"model", SECRET, SALT, NONCE)
    for position in [*range(9, 53), *range(67, 99)]:
        refused(flipped(data, position))


def test_costs_and_chunk_size_within_bounds_cannot_be_edited() -> None:
    data = seal_2(noise(CHUNK + 5), SECRET, SALT, NONCE)
    for position, value in ((57, 9), (61, 2), (66, 13), (66, 20)):
        refused(data[:position] + bytes([value]) + data[position + 1 :])


def test_every_damaged_bit_of_the_chunks_is_found() -> None:
    data = seal_2(noise(CHUNK + 3), SECRET, SALT, NONCE)
    for position in [*range(99, len(data), 97), *range(99 + CHUNK, len(data))]:
        refused(flipped(data, position))


@pytest.mark.parametrize("size", EDGES)
def test_a_file_cut_anywhere_is_refused(size: int) -> None:
    data = seal_2(noise(size), SECRET, SALT, NONCE)
    bounds = [99 + n * SEALED + d for n in range(4) for d in (-17, -16, -15, -1, 0, 1, 15, 16, 17)]
    for length in {length for length in [*bounds, len(data) - 1] if 99 <= length < len(data)}:
        refused(data[:length])


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("extra", [b"\0", bytes(15), bytes(16), bytes(17), bytes(SEALED)])
def test_bytes_after_the_last_chunk_are_refused(size: int, extra: bytes) -> None:
    refused(seal_2(noise(size), SECRET, SALT, NONCE) + extra)


def test_chunks_swapped_repeated_left_out_or_appended_are_refused() -> None:
    data = seal_2(noise(4 * CHUNK), SECRET, SALT, NONCE)
    a, b, c, d = chunks_of(data)
    for chunks in ([b, a, c, d], [a, c, b, d], [a, a, c, d], [a, b, b, c, d], [a, b, d], [b, c, d], [a, b, c, d, d]):
        refused(data[:99] + b"".join(chunks))


def test_a_chunk_of_another_file_under_the_same_password_is_refused() -> None:
    one, other = (
        encrypt_model(noise(2 * CHUNK), PASSWORD, format=2),
        encrypt_model(noise(2 * CHUNK), PASSWORD, format=2),
    )
    refused(one[:99] + chunks_of(one)[0] + chunks_of(other)[1])


def test_an_empty_last_chunk_is_refused_unless_the_file_is_empty() -> None:
    assert decrypt_model(seal_chunks([b""], SECRET, HEADER), PASSWORD) == b""
    assert decrypt_model(seal_chunks([bytes(CHUNK)], SECRET, HEADER), PASSWORD) == bytes(CHUNK)
    refused(seal_chunks([bytes(CHUNK), b""], SECRET, HEADER))


def test_chunks_are_bound_to_the_whole_header() -> None:
    """Also by a writer who knows the password: chunks sealed under a header that differs in its commitment."""
    other = HEADER[:67] + bytes(32)
    refused(HEADER + seal_chunks([b"model"], SECRET, other)[99:])


@given(st.integers(0, 10 * CHUNK))
def test_the_size_of_a_file_tells_that_of_the_plaintext(size: int) -> None:
    assert v2.plaintext_size(v2.encrypted_size(size, CHUNK), CHUNK) == size


@given(st.integers(0, 5 * SEALED))
def test_a_size_that_no_plaintext_has_tells_nothing(size: int) -> None:
    plaintext = v2.plaintext_size(size, CHUNK)
    assert plaintext is None or v2.encrypted_size(plaintext, CHUNK) == size


def test_the_cheap_costs_of_these_tests_are_in_use() -> None:
    assert encrypt_model(b"", PASSWORD, format=2)[54:58] == CHEAP.memory_kib.to_bytes(4, "big")
