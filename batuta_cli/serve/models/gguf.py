"""The metadata of a GGUF model file: architecture, context length, chat template, tokenizer.

    metadata = read_metadata("model.gguf")
    metadata.context_length, metadata.chat_template, metadata.token("eos")

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Arrays make up
nearly all of the metadata and are skipped unless requested. Only the metadata is read, with `pread`: a file that
shrinks during the read is an error, where a memory mapping would kill the process.

Files are untrusted. Every length is compared with the size of the file and with `MAX_METADATA` before memory is
allocated. All failures are `InvalidInputError`s that name the file and the field.
"""

import os
import re
import struct
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import StrPath, display, errors_named, open_regular

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]

MAGIC: Final = b"GGUF"

MAX_METADATA: Final = 64 * 1024 * 1024
"""Bytes of metadata. The largest vocabularies in use (262,144 tokens with their merges) take about 16 MiB."""

MAX_FIELDS: Final = 65_536
"""Fields of a file. Real ones have 20 to 100."""

MAX_KEY: Final = 65_535
"""Bytes of a field's name; the limit of the format."""

MAX_ITEMS: Final = 4 * 1024 * 1024
"""Items of a requested array."""

MAX_TOKEN: Final = 65_536
"""Bytes of a special token."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_FIRST_READ = 1024 * 1024
_TOKENS = "tokenizer.ggml.tokens"
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "padding")


@dataclass(frozen=True)
class GgufMetadata:
    """The metadata of a GGUF file. Properties raise `InvalidInputError` when a field has the wrong type."""

    path: str
    version: int
    values: Mapping[str, Value]
    """Every field except the arrays that were not requested."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """The texts of the special tokens by role: `bos`, `eos`, `eot`, `eom`, `unknown`, `padding`."""

    def get(self, key: str) -> Value | None:
        """A field's value, or None."""
        return self.values.get(key)

    def text(self, key: str) -> str | None:
        """A field that is text, or None."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def flag(self, key: str) -> bool | None:
        """A field that is true or false, or None."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def integer(self, key: str) -> int | None:
        """A field that is a whole number, or None."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self._wrong(key, "a whole number")
        return value

    @property
    def architecture(self) -> str | None:
        """The architecture, such as `llama`."""
        return self.text("general.architecture")

    @property
    def context_length(self) -> int | None:
        """The window that the model was trained for, in tokens, or None."""
        key = f"{self.architecture}.context_length"
        length = self.integer(key)
        if length is not None and length < 0:
            raise self._wrong(key, "a number of tokens")
        return length or None

    @property
    def chat_template(self) -> str | None:
        """The model's own Jinja template."""
        return self.text("tokenizer.chat_template")

    def token(self, kind: str) -> str | None:
        """The text of a special token by its role (`bos`, `eos`, `unknown`, `padding`, `eot`), or None."""
        return self.special_tokens.get(kind)

    def _wrong(self, key: str, expected: str) -> InvalidInputError:
        return InvalidInputError(f"{display(self.path)}: {display(key)} is not {expected}")


def first_bytes(path: StrPath) -> bytes:
    """The first four bytes of a file, which are `MAGIC` in a GGUF file.

    Raises `InvalidInputError` for a path that is not a regular file, `NotFoundError`, `OperationError`.
    """
    descriptor = open_regular(path)
    try:
        with errors_named(path):
            return os.pread(descriptor, len(MAGIC), 0)
    finally:
        os.close(descriptor)


def read_metadata(path: StrPath, *, arrays: Collection[str] = ()) -> GgufMetadata:
    """The metadata of the GGUF file `path`, with the arrays named in `arrays`.

    Raises `InvalidInputError` for a file that is not GGUF 2 or 3, is damaged, or is a later part of a split model;
    `NotFoundError` and `OperationError` when it cannot be read.
    """
    descriptor = open_regular(path)
    try:
        return _Reader(descriptor, path).read(arrays)
    finally:
        os.close(descriptor)


class _Reader:
    """A cursor over the beginning of a file, which is read as far as needed."""

    def __init__(self, descriptor: int, path: StrPath) -> None:
        self._descriptor, self._path = descriptor, path
        self._data = bytearray()
        self._at = 0
        self._field = "the header"
        self._token_offsets: array[int] = array("Q")

    def read(self, arrays: Collection[str]) -> GgufMetadata:
        version = self._version()
        self._u64()  # the number of tensors
        count = self._u64()
        if count > MAX_FIELDS:
            self._fail(f"claims {count:,} fields; at most {MAX_FIELDS:,} are read")
        values: dict[str, Value] = {}
        seen: set[str] = set()
        for number in range(1, count + 1):
            self._field = f"field {number:,}"
            key = self._string(MAX_KEY)
            self._field = display(key[:200])
            if key in seen:
                self._fail("appears twice")
            seen.add(key)
            value = self._value(self._u32(), key, wanted=key in arrays)
            if value is not None:
                values[key] = value
        self._refuse_later_part(values)
        return GgufMetadata(os.fspath(self._path), version, values, self._special_tokens(values))

    def _version(self) -> int:
        magic = self._peek(len(MAGIC))
        if magic != MAGIC:
            old = magic in (b"lmgg", b"tjgg", b"fmgg", b"algg")  # GGML, GGJT, GGMF, GGLA: before August 2023
            what = "a GGML file, older than GGUF" if old else "not a GGUF file"
            raise InvalidInputError(f"{display(self._path)}: is {what}")
        self._at = len(MAGIC)
        version = self._u32()
        if version in (2, 3):
            return version
        if version & 0xFFFF == 0:
            what = "is a big-endian GGUF file; batuta reads little-endian ones"
        else:
            what = f"has GGUF version {version}; batuta reads versions 2 and 3"
        raise InvalidInputError(f"{display(self._path)}: {what}", hint="convert the model again with llama.cpp")

    def _value(self, kind: int, key: str, *, wanted: bool) -> Value | None:
        if kind == _STRING:
            return self._string(MAX_METADATA)
        if kind != _ARRAY:
            return self._numbers(kind, 1)[0]
        kind, count = self._u32(), self._u64()
        if wanted and count > MAX_ITEMS:
            self._fail(f"has {count:,} items; at most {MAX_ITEMS:,} are read")
        if kind == _STRING:
            return self._strings(count, key, wanted=wanted)
        if kind == _ARRAY:
            self._fail("is an array of arrays, which batuta does not read")
        if wanted:
            return self._numbers(kind, count)
        self._advance(count * self._number(kind).size)
        return None

    def _number(self, kind: int) -> struct.Struct:
        if kind not in _NUMBERS:
            self._fail(f"has the unknown type {kind}")
        return struct.Struct("<" + _NUMBERS[kind])

    def _numbers(self, kind: int, count: int) -> tuple[int | float | bool, ...]:
        number = self._number(kind)
        start = self._at
        self._advance(count * number.size)
        found = struct.unpack_from(f"<{count}{number.format[1:]}", self._data, start)
        if kind != _BOOL:
            return found
        if any(value > 1 for value in found):
            self._fail("is neither true nor false")
        return tuple(map(bool, found))

    def _strings(self, count: int, key: str, *, wanted: bool) -> tuple[str, ...] | None:
        offsets = array("Q")
        at, here = self._at, len(self._data)
        self._need(at + 8 * count)  # so that an absurd count fails at once
        length_at = _U64.unpack_from
        for _ in range(count):
            if at + 8 > here:
                here = self._need(at + 8)
            offsets.append(at)
            at += 8 + length_at(self._data, at)[0]
        self._need(at)
        self._at = at
        if key == _TOKENS:
            self._token_offsets = offsets
        return tuple(map(self._text_at, offsets)) if wanted else None

    def _string(self, limit: int) -> str:
        start, length = self._at, self._u64()
        if length > limit:
            self._fail(f"has {length:,} bytes; at most {limit:,} are read")
        self._advance(length)
        return self._text_at(start)

    def _text_at(self, offset: int) -> str:
        """The string at `offset`, whose length has been checked."""
        start = offset + 8
        end = start + _U64.unpack_from(self._data, offset)[0]
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError:
            self._fail("is not UTF-8")

    def _u32(self) -> int:
        start = self._at
        self._advance(4)
        return int(_U32.unpack_from(self._data, start)[0])

    def _u64(self) -> int:
        start = self._at
        self._advance(8)
        return int(_U64.unpack_from(self._data, start)[0])

    def _advance(self, count: int) -> None:
        self._need(self._at + count)
        self._at += count

    def _peek(self, count: int) -> bytes:
        self._read_to(count)
        return bytes(self._data[:count])

    def _need(self, end: int) -> int:
        """Read the bytes before `end`, and return how many bytes have been read."""
        if end > MAX_METADATA:
            self._fail(f"ends beyond the file, or beyond the {MAX_METADATA:,} bytes that are read")
        if end > len(self._data):
            self._read_to(end)
            if end > len(self._data):
                self._fail("ends beyond the file")
        return len(self._data)

    def _read_to(self, end: int) -> None:
        wanted = max(end, 2 * len(self._data), _FIRST_READ)
        with errors_named(self._path):
            while len(self._data) < wanted:
                piece = os.pread(self._descriptor, wanted - len(self._data), len(self._data))
                if not piece:
                    break
                self._data += piece

    def _special_tokens(self, values: Mapping[str, Value]) -> dict[str, str]:
        found = {}
        for part in _SPECIAL:
            number = values.get(f"tokenizer.ggml.{part}_token_id")
            # llama.cpp also ignores an id outside the vocabulary; -1 means that there is no such token.
            if isinstance(number, int) and 0 <= number < len(self._token_offsets):
                self._field = f"token {number:,} of {_TOKENS}"
                self._at = self._token_offsets[number]
                found[part] = self._string(MAX_TOKEN)
        return found

    def _refuse_later_part(self, values: Mapping[str, Value]) -> None:
        number, count = values.get("split.no"), values.get("split.count")
        if isinstance(number, int) and isinstance(count, int) and number > 0:
            name = Path(self._path).name
            first = re.sub(r"-\d{5}-of-", "-00001-of-", name)
            raise InvalidInputError(
                f"{display(self._path)}: is part {number + 1} of {count} of a split model; part 1 has the metadata",
                hint=f"name {display(first)} instead" if first != name else None,
            )

    def _fail(self, what: str) -> NoReturn:
        raise InvalidInputError(f"{display(self._path)}: damaged GGUF metadata: {self._field} {what}")
