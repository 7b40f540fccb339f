"""Vectors of content addresses of directories (docs/formats.md#content-address)."""

import base64
import json
from collections.abc import Iterator

from tests.pacha import forge
from tests.vectors.case import Case


def directories() -> Iterator[Case]:
    for name, purpose, files in (
        ("two-files", "two files, one below a directory", {"a": b"a", "b/c": b"c"}),
        ("empty-file", "a file of no bytes", {"a": b""}),
        ("hidden", "hidden files and .git count", {".hidden": b"h", ".git/HEAD": b"ref: refs/heads/main\n", "a": b"a"}),
        (
            "order",
            "names in the order of code points, which is not that of UTF-16",
            {"\U00010000": b"1", "\uffee": b"2"},
        ),
        ("order-of-paths", "whole names are ordered, not their parts", {"a/b": b"1", "a-b": b"2", "a.b": b"3"}),
        ("composed", "a composed and a decomposed name are two names", {"\u00e9": b"1", "e\u0301": b"2"}),
        (
            "awkward",
            "spaces, a line break, a backslash and a quote in names",
            {" a ": b"1", "b\nc": b"2", "\\'\"": b"3"},
        ),
        ("long-name", "a name of 255 bytes", {"n" * 255: b"n"}),
        ("same-content", "two files of the same content", {"a": b"x", "b": b"x"}),
        ("large-file", "a file of more than one BLAKE3 chunk", {"a": bytes(range(256)) * 40}),
    ):
        document = {"files": {n: base64.b64encode(d).decode() for n, d in files.items()}}
        raw = json.dumps(document, indent=1).encode()
        address = f"blake3:{forge.directory_address(files)}"
        yield Case("directory", name, purpose, {"model.json": raw}, ("hash", "model"), 0, None, {"address": address})
    empty = json.dumps({"files": {}}).encode()
    yield Case(
        "directory", "empty", "a directory without files has no address", {"model.json": empty}, ("hash", "model"), 2
    )
