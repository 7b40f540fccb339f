"""PACHAENC written a second time, from the tables of the design alone: what the tests compare with."""

import struct

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

STANDARD = (65_536, 3, 4)
"""Memory in KiB, passes, lanes."""

CHEAP = (8, 1, 1)

CHUNK_LOG2 = 12
"""The smallest chunks there are: 4 KiB."""

CHUNK = 1 << CHUNK_LOG2

Costs = tuple[int, int, int]


def key(password: bytes, salt: bytes, costs: Costs) -> bytes:
    memory, passes, lanes = costs
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(password)


def seal_1(data: bytes, password: bytes, salt: bytes, nonce: bytes, costs: Costs = STANDARD) -> bytes:
    return b"PACHAENC\x01" + salt + nonce + ChaCha20Poly1305(key(password, salt, costs)).encrypt(nonce, data, None)


def open_1(data: bytes, password: bytes, costs: Costs = STANDARD) -> bytes:
    assert data[:9] == b"PACHAENC\x01"
    return ChaCha20Poly1305(key(password, data[9:41], costs)).decrypt(data[41:53], data[53:], None)


def start_2(salt: bytes, nonce: bytes, costs: Costs, log2: int) -> bytes:
    return b"PACHAENC\x02" + salt + nonce + b"\x01" + struct.pack(">III", *costs) + bytes([log2])


def header_2(password: bytes, start: bytes) -> bytes:
    costs = struct.unpack(">III", start[54:66])
    secret = key(password, start[9:41], costs)
    return start + blake3(secret + start, derive_key_context="batuta pacha 2026-11-23 PACHAENC v2 commitment").digest()


def chunk_aead(password: bytes, header: bytes) -> ChaCha20Poly1305:
    secret = key(password, header[9:41], struct.unpack(">III", header[54:66]))
    context = "batuta pacha 2026-11-23 PACHAENC v2 payload"
    return ChaCha20Poly1305(blake3(secret + header[41:53], derive_key_context=context).digest())


def chunk_nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def seal_chunks(chunks: list[bytes], password: bytes, header: bytes) -> bytes:
    """Chunks as given, also such as no honest writer makes."""
    aead = chunk_aead(password, header)
    sealed = [aead.encrypt(chunk_nonce(i, i == len(chunks) - 1), chunk, header) for i, chunk in enumerate(chunks)]
    return header + b"".join(sealed)


def seal_2(
    data: bytes, password: bytes, salt: bytes, nonce: bytes, costs: Costs = CHEAP, log2: int = CHUNK_LOG2
) -> bytes:
    size = 1 << log2
    chunks = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return seal_chunks(chunks, password, header_2(password, start_2(salt, nonce, costs, log2)))


def open_2(data: bytes, password: bytes) -> bytes:
    header, body = data[:99], data[99:]
    assert header == header_2(password, header[:67])
    size = (1 << header[66]) + 16
    aead = chunk_aead(password, header)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    assert len(chunks) == 1 or len(chunks[-1]) > 16
    return b"".join(aead.decrypt(chunk_nonce(i, i == len(chunks) - 1), chunk, header) for i, chunk in enumerate(chunks))
