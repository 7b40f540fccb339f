"""GGUF files made by hand, by the format's own description and not by batuta's reader."""

import struct
from collections.abc import Mapping
from typing import Any

SCALARS = {
    "u8": 0,
    "i8": 1,
    "u16": 2,
    "i16": 3,
    "u32": 4,
    "i32": 5,
    "f32": 6,
    "bool": 7,
    "u64": 10,
    "i64": 11,
    "f64": 12,
}
CODES = dict(zip(SCALARS, "BbHhIif?Qqd", strict=True))


def string(text: str | bytes) -> bytes:
    """A GGUF string."""
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind: str, content: Any) -> bytes:
    """A typed value: `u32`, `str`, `[f32]`, `[str]`, …"""
    if kind == "str":
        return struct.pack("<I", 8) + string(content)
    if kind == "[str]":
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(map(string, content))
    if kind.startswith("["):
        scalar = kind.strip("[]")
        packed = struct.pack(f"<{len(content)}{CODES[scalar]}", *content)
        return struct.pack("<IIQ", 9, SCALARS[scalar], len(content)) + packed
    return struct.pack(f"<I{CODES[kind]}", SCALARS[kind], content)


def gguf(fields: Mapping[str, tuple[str, Any]], *, version: int = 3, count: int | None = None) -> bytes:
    """A file without tensors; `fields` are (type, content) by name."""
    body = b"".join(string(key) + value(*content) for key, content in fields.items())
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(fields) if count is None else count) + body
