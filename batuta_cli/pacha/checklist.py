"""Lists of content addresses or digests, one line a file, as `b3sum` and `sha256sum` write and read them.

Two forms are read: `DIGEST  PATH` (or `DIGEST *PATH`), and the BSD form of `--tag`, `SHA256 (PATH) = DIGEST`. Empty
lines, lines that begin with `#` and a byte order mark are skipped. A name with a backslash or a line break is escaped,
and a backslash leads the line.

Sources: https://github.com/BLAKE3-team/BLAKE3/tree/master/b3sum (README and `--check`),
https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html.
"""

import os
import re

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import StrPath
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.sha256 import Sha256Digest, parse_digest

ListedDigest = ContentAddress | Sha256Digest

_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
_TAGGED = re.compile(r"(BLAKE3|SHA256) \((.*)\) = ([0-9A-Fa-f]+)", re.DOTALL)
_LOST = "\ufffd"  # stands for a byte that is not UTF-8; the name cannot be told from it


def format_line(digest: ContentAddress | Sha256Digest, path: StrPath) -> str:
    """`blake3:<hex>  PATH`, or as `sha256sum` writes it `<hex>  PATH`, without a line end."""
    name = os.fspath(path).encode(errors="surrogateescape").decode(errors="replace")
    shown = digest.hex if isinstance(digest, Sha256Digest) else str(digest)
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{shown}  {escaped}"


def parse_list(data: bytes, algorithm: str = "blake3") -> list[tuple[ListedDigest, str]]:
    """The digests and paths of a list. `algorithm`, `blake3` or `sha256`, is that of digests that do not name theirs.

    Raises `InvalidInputError` that names the line.
    """
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InvalidInputError("not a list of addresses (not UTF-8)") from None
    # A list may have passed through Windows; a carriage return in a name is escaped, so it is not this one.
    numbered = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1)]
    found = [_parse_line(line, number, algorithm) for number, line in numbered if line and not line.startswith("#")]
    if not found:
        raise InvalidInputError("lists nothing to check")
    return found


def _parse_line(line: str, number: int, algorithm: str) -> tuple[ListedDigest, str]:
    escaped = line.startswith("\\")
    if tagged := _TAGGED.fullmatch(line[escaped:]):
        kind, name, digits = tagged.groups()
        digits = f"{kind.lower()}:{digits}"
    else:
        digits, _, name = line[escaped:].partition(" ")
        if name[:1] not in (" ", "*"):  # text and binary mode
            name = ""
        name = name[1:]
    try:
        digest = parse_digest(digits if ":" in digits else f"{algorithm}:{digits}")
    except InvalidInputError:
        raise InvalidInputError(f"line {number}: is not a digest, two spaces and a path") from None
    if not name or _LOST in name or "\0" in name:
        raise InvalidInputError(f"line {number}: the path cannot be read from this line")
    return digest, _unescape(name, number) if escaped else name


def _unescape(name: str, number: int) -> str:
    result, rest = [], iter(name)
    for character in rest:
        plain = _ESCAPES.get(next(rest, "")) if character == "\\" else character
        if plain is None:
            raise InvalidInputError(f"line {number}: an unknown escape in the path")
        result.append(plain)
    return "".join(result)
