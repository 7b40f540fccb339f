import io
import struct
from collections.abc import Callable

import pytest

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.pacha.encryption.header import ChunkedHeader, Header, SingleMessageHeader, is_encrypted, read_header
from batuta_cli.pacha.encryption.kdf import KdfParameters

from .helpers import NONCE, SALT
from .reference import start_2

STANDARD = (65_536, 3, 4)
COMMITMENT = bytes(range(200, 232))
V1 = b"PACHAENC\x01" + SALT + NONCE
V2 = start_2(SALT, NONCE, STANDARD, 20) + COMMITMENT


def parse(data: bytes, **options: int) -> tuple[Header, bytes]:
    return read_header(io.BytesIO(data).read, "model.enc", **options)


def with_costs(memory: int, passes: int, lanes: int) -> bytes:
    return V2[:54] + struct.pack(">III", memory, passes, lanes) + V2[66:]


def test_version_1_is_53_bytes_and_has_fixed_costs() -> None:
    header, commitment = parse(V1 + b"ciphertext")
    assert header == SingleMessageHeader(SALT, NONCE)
    assert header.kdf == KdfParameters(65_536, 3, 4)
    assert commitment == b""
    assert header.pack() == V1


def test_version_2_is_99_bytes_and_carries_its_costs() -> None:
    header, commitment = parse(V2 + b"ciphertext")
    assert header == ChunkedHeader(SALT, NONCE, KdfParameters(65_536, 3, 4), 20)
    assert isinstance(header, ChunkedHeader)
    assert header.prefix() == V2[:67]
    assert commitment == COMMITMENT


@pytest.mark.parametrize("new", [SingleMessageHeader.new, ChunkedHeader.new])
def test_salt_and_nonce_are_never_used_twice(new: Callable[[], Header]) -> None:
    headers = [new() for _ in range(20)]
    assert len({header.salt for header in headers}) == len({header.nonce for header in headers}) == 20


@pytest.mark.parametrize("data", [V1, V2])
def test_a_file_cut_anywhere_in_its_header_is_called_truncated(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(InvalidInputError, match=r"model\.enc: truncated"):
            parse(data[:length])
    parse(data)


@pytest.mark.parametrize("data", [b"x", b"GGUF", b"PACHAEN!", b"pachaenc\x01" + bytes(90), bytes(200), b"\x01" + V1])
def test_another_file_is_not_an_encrypted_one(data: bytes) -> None:
    assert not is_encrypted(data)
    with pytest.raises(InvalidInputError, match="does not begin with PACHAENC"):
        parse(data)


def test_both_versions_are_known_as_encrypted() -> None:
    assert is_encrypted(V1)
    assert is_encrypted(V2)
    assert not is_encrypted(b"")


@pytest.mark.parametrize("version", [0, 3, 255])
def test_an_unknown_version_is_refused_by_number(version: int) -> None:
    with pytest.raises(InvalidInputError, match=f"version {version}, known are 1 and 2"):
        parse(b"PACHAENC" + bytes([version]) + bytes(200))


@pytest.mark.parametrize("number", [0, 2, 255])
def test_an_unknown_key_derivation_is_refused(number: int) -> None:
    with pytest.raises(InvalidInputError, match=f"model.enc: key derivation number {number}"):
        parse(V2[:53] + bytes([number]) + V2[54:])


@pytest.mark.parametrize("log2", [0, 11, 25, 63, 255])
def test_a_chunk_size_out_of_bounds_is_refused(log2: int) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.enc: a chunk size of"):
        parse(V2[:66] + bytes([log2]) + V2[67:])


@pytest.mark.parametrize("log2", [12, 24])
def test_chunk_sizes_at_their_bounds_are_read(log2: int) -> None:
    header, _ = parse(V2[:66] + bytes([log2]) + V2[67:])
    assert isinstance(header, ChunkedHeader)
    assert header.chunk_size == 2**log2


@pytest.mark.parametrize(
    "costs",
    [
        (0, 3, 4),
        (7, 1, 1),
        (100 * 1024 * 1024, 3, 4),  # 100 GiB
        (2**32 - 1, 3, 4),
        (65_536, 0, 4),
        (65_536, 17, 4),
        (65_536, 2**32 - 1, 4),
        (65_536, 3, 0),
        (65_536, 3, 17),
    ],
)
def test_costs_out_of_bounds_are_refused_in_the_name_of_the_file(costs: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.enc: key derivation"):
        parse(with_costs(*costs))


def test_costs_above_what_the_user_allows_are_refused_with_a_hint() -> None:
    data = with_costs(262_145, 3, 4)
    with pytest.raises(InvalidInputError, match=r"model\.enc: key derivation asks for 262,145 KiB") as refused:
        parse(data, memory_limit_kib=262_144)
    assert "--allow-kdf-memory" in (refused.value.hint or "")
    header, _ = parse(data, memory_limit_kib=300_000)
    assert header.kdf.memory_kib == 262_145


@pytest.mark.parametrize("limit", [0, -1, 1024 * 1024 + 1])
def test_nobody_can_allow_more_than_a_gibibyte(limit: int) -> None:
    with pytest.raises(UsageError, match="--allow-kdf-memory"):
        parse(V2, memory_limit_kib=limit)


def test_a_name_cannot_write_to_the_terminal() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_header(io.BytesIO(b"x").read, "a\x1b[2Jb")
    assert "\x1b" not in refused.value.message
