"""Vectors of encrypted files (docs/formats.md#pachaenc-1, docs/formats.md#pachaenc-2)."""

from collections.abc import Iterator

from tests.pacha.encryption import reference
from tests.vectors.case import PASSWORD, Case


def _encrypted(
    version: int,
    name: str,
    purpose: str,
    exit: int,
    data: bytes,
    plaintext: bytes | None,
    *options: str,
    password: bytes = PASSWORD,
) -> Case:
    run = ("decrypt", "model.enc", "--password-file", "password", "--output", "output", *options)
    files = {"model.enc": data, "password": password}
    return Case(f"pachaenc{version}", name, purpose, files, run, exit, plaintext)


def pachaenc1() -> Iterator[Case]:
    salt, nonce = bytes(range(32)), bytes(range(12))
    text = b"a model\n"
    good = reference.seal_1(text, PASSWORD, salt, nonce)
    for name, plaintext in (("empty", b""), ("short", text), ("64-KiB-and-a-byte", bytes(range(256)) * 256 + b"x")):
        sealed = reference.seal_1(plaintext, PASSWORD, salt, nonce)
        yield _encrypted(1, f"valid-{name}", "a file and its password", 0, sealed, plaintext)
    yield _encrypted(
        1,
        "valid-password-line",
        "one line end after the password is dropped",
        0,
        good,
        text,
        password=PASSWORD + b"\r\n",
    )
    unicode = "pässwörd ✓".encode()
    yield _encrypted(
        1,
        "valid-password-unicode",
        "the password is its bytes in UTF-8",
        0,
        reference.seal_1(text, unicode, salt, nonce),
        text,
        password=unicode,
    )
    yield _encrypted(1, "password-wrong", "another password", 3, good, None, password=b"correct horsf")
    yield _encrypted(
        1, "password-space", "a space after the password belongs to it", 3, good, None, password=PASSWORD + b" "
    )
    for name, purpose, place in (
        ("ciphertext", "ciphertext", 53),
        ("tag", "tag", -1),
        ("salt", "salt", 9),
        ("nonce", "nonce", 41),
    ):
        damaged = bytearray(good)
        damaged[place] ^= 1
        yield _encrypted(1, f"flipped-{name}", f"one bit of the {purpose} is another", 3, bytes(damaged), None)
    yield _encrypted(1, "cut-tag", "the last byte is missing", 3, good[:-1], None)
    yield _encrypted(1, "appended", "a byte was appended", 3, good + b"\0", None)
    yield _encrypted(1, "cut-header", "the file ends within the header", 2, good[:52], None)
    yield _encrypted(1, "no-magic", "another magic", 2, b"X" + good[1:], None)
    yield _encrypted(1, "version-3", "an unknown version", 2, good[:8] + b"\x03" + good[9:], None)
    yield _encrypted(1, "nothing", "no bytes at all", 2, b"", None)


def pachaenc2() -> Iterator[Case]:
    salt, nonce = bytes(range(32, 64)), bytes(range(12, 24))
    start = reference.start_2(salt, nonce, reference.CHEAP, 12)
    header = reference.header_2(PASSWORD, start)
    size = reference.CHUNK
    text = (b"a model of many chunks\n" * 1000)[: 2 * size + 100]
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    good = reference.seal_2(text, PASSWORD, salt, nonce)

    def sealed(parts: list[bytes]) -> bytes:
        return reference.seal_chunks(parts, PASSWORD, header)

    for name, purpose, plaintext in (
        ("empty", "no plaintext: one empty chunk", b""),
        ("short", "less than a chunk", b"a model\n"),
        ("one-chunk", "exactly one chunk", text[:size]),
        ("two-chunks", "exactly two chunks", text[: 2 * size]),
        ("three-chunks", "two chunks and a short one", text),
    ):
        yield _encrypted(2, f"valid-{name}", purpose, 0, reference.seal_2(plaintext, PASSWORD, salt, nonce), plaintext)
    yield _encrypted(
        2,
        "valid-costs",
        "the standard costs, chunks of 1 MiB",
        0,
        reference.seal_2(text, PASSWORD, salt, nonce, reference.STANDARD, 20),
        text,
    )
    yield _encrypted(2, "password-wrong", "another password fails by the commitment", 3, good, None, password=b"other")
    for name, purpose, place in (
        ("commitment", "commitment", 67),
        ("salt", "salt", 9),
        ("nonce", "nonce", 41),
        ("first-chunk", "first chunk", 99),
        ("last-tag", "last tag", -1),
    ):
        damaged = bytearray(good)
        damaged[place] ^= 1
        yield _encrypted(2, f"flipped-{name}", f"one bit of the {purpose} is another", 3, bytes(damaged), None)
    yield _encrypted(
        2, "chunk-size-changed", "the chunk size in the header is another", 3, good[:66] + b"\x0d" + good[67:], None
    )
    first, second, last = (
        good[99 : 99 + size + 16],
        good[99 + size + 16 : 99 + 2 * (size + 16)],
        good[99 + 2 * (size + 16) :],
    )
    for name, purpose, body in (
        ("chunks-exchanged", "the first two chunks are exchanged", second + first + last),
        ("chunk-repeated", "the first chunk is there twice", first + first + second + last),
        ("chunk-dropped", "the second chunk is missing", first + last),
        ("last-chunk-dropped", "the last chunk is missing", first + second),
        ("cut-in-chunk", "the file ends within a chunk", first + second[:100]),
        ("cut-after-header", "there is no chunk", b""),
        ("appended", "a byte after the last chunk", first + second + last + b"\0"),
        ("chunk-after-last", "a chunk after the last one", first + second + last + first),
    ):
        yield _encrypted(2, name, purpose, 3, good[:99] + body, None)
    yield _encrypted(2, "last-chunk-empty", "an empty last chunk after a full one", 3, sealed([chunks[0], b""]), None)
    aead = reference.chunk_aead(PASSWORD, header)
    unmarked = b"".join(aead.encrypt(reference.chunk_nonce(i, False), chunk, header) for i, chunk in enumerate(chunks))
    yield _encrypted(2, "last-not-marked", "the last chunk is not sealed as the last one", 3, header + unmarked, None)
    for name, purpose, place, value in (
        ("kdf-unknown", "an unknown key derivation", 53, b"\x02"),
        ("memory-too-small", "less memory than 8 KiB a lane", 54, (7).to_bytes(4, "big")),
        ("memory-too-large", "more memory than is allowed by default", 54, (256 * 1024 + 1).to_bytes(4, "big")),
        ("passes-zero", "no pass", 58, bytes(4)),
        ("passes-too-many", "17 passes", 58, (17).to_bytes(4, "big")),
        ("lanes-zero", "no lane", 62, bytes(4)),
        ("lanes-too-many", "17 lanes", 62, (17).to_bytes(4, "big")),
        ("chunks-too-small", "chunks of 2 KiB", 66, b"\x0b"),
        ("chunks-too-large", "chunks of 32 MiB", 66, b"\x19"),
    ):
        yield _encrypted(2, f"header-{name}", purpose, 2, good[:place] + value + good[place + len(value) :], None)
    yield _encrypted(2, "cut-header", "the file ends within the header", 2, good[:98], None)
    for name, at, released in (("second", 99 + size + 16, size), ("first", 99, 0)):
        damaged = bytearray(good)
        damaged[at] ^= 1
        case = _encrypted(
            2,
            f"stream-{name}-chunk-damaged",
            f"to a pipe, {released} bytes come out before the {name} chunk fails",
            3,
            bytes(damaged),
            None,
        )
        yield Case(
            case.group, case.name, case.purpose, case.files, (*case.run[:-1], "-"), 3, text[:released], {"stdout": True}
        )
