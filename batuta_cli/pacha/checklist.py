"""Lists of content addresses, one line a file, quoted as `b3sum` quotes them.

A name with a backslash or a line break is escaped, and a backslash leads the line
(https://github.com/BLAKE3-team/BLAKE3/tree/master/b3sum, README and `--check`).
"""

import os

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import StrPath
from batuta_cli.pacha.hashing import PREFIX, ContentAddress
from batuta_cli.pacha.sha256 import Sha256Digest

_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
_LOST = "\ufffd"  # stands for a byte that is not UTF-8; the name cannot be told from it


def format_line(digest: ContentAddress | Sha256Digest, path: StrPath) -> str:
    """`blake3:<hex>  PATH`, or as `sha256sum` writes it `<hex>  PATH`, without a line end."""
    name = os.fspath(path).encode(errors="surrogateescape").decode(errors="replace")
    shown = digest.hex if isinstance(digest, Sha256Digest) else str(digest)
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{shown}  {escaped}"


def parse_list(data: bytes) -> list[tuple[ContentAddress, str]]:
    """The addresses and paths of a list; lines of `b3sum` itself, without the `blake3:`, are read as well.

    Raises `InvalidInputError` that names the line.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise InvalidInputError("not a list of addresses (not UTF-8)") from None
    # A list may have passed through Windows; a carriage return in a name is escaped, so it is not this one.
    found = [_parse_line(line.removesuffix("\r"), number) for number, line in enumerate(lines, 1) if line]
    if not found:
        raise InvalidInputError("lists nothing to check")
    return found


def _parse_line(line: str, number: int) -> tuple[ContentAddress, str]:
    escaped = line.startswith("\\")
    digits, _, name = line[escaped:].partition("  ")
    try:
        address = ContentAddress.parse(digits if digits.startswith(PREFIX) else PREFIX + digits)
    except InvalidInputError:
        raise InvalidInputError(f"line {number}: is not an address, two spaces and a path") from None
    if not name or _LOST in name or "\0" in name:
        raise InvalidInputError(f"line {number}: the path cannot be told from this line")
    return address, _unescape(name, number) if escaped else name


def _unescape(name: str, number: int) -> str:
    result, rest = [], iter(name)
    for character in rest:
        plain = _ESCAPES.get(next(rest, "")) if character == "\\" else character
        if plain is None:
            raise InvalidInputError(f"line {number}: an unknown escape in the path")
        result.append(plain)
    return "".join(result)
