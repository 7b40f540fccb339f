r"""Recognises secrets, which no message may repeat.

A user who forgets `env:` gives a private key in place of a file name (`--key "$SIGNING_KEY"`), and an error that quotes
it writes it to a log. This module answers three questions:

* `is_key`: the text certainly holds a private key: PEM, also with literal `\n`, in quotes, in Base64 or hexadecimal;
  the Base64 body of a PEM without its first line; OpenSSH, PKCS#8, PKCS#1, SEC 1, age, and the Rust crate's PEM. Every
  command refuses such a value, and `files.display` replaces it in messages.
* `is_withheld`: a value given by the user is not repeated in a message. True for keys, for more than one line, for
  more than 255 bytes, tokens of known services, addresses with a password, random Base64, and a bare Ed25519 seed: 32
  or 64 bytes (RFC 8032, section 5.1.5) in hexadecimal or Base64. Only its
  prefix (`blake3:`, `sha256:`, `ed25519:`) distinguishes a digest or public key from a seed; without a prefix it is not
  repeated either.
* `is_variable_name`: the value is a valid name of an environment variable, so a message may repeat it as a name.

A short password has no recognisable form. For parameters in which a password may be given by mistake, see
`is_variable_name` and `names_a_file`.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

NOT_SHOWN: Final = "(value not shown)"
"""Replaces a secret in a message."""

LONGEST_SHOWN: Final = 255
"""Bytes of the longest value that a message repeats: the longest file name of Linux (NAME_MAX)."""

_MARKERS = re.compile(r"PRIVATE(?: |\+|%20)KEY|PACHA ED25519|openssh-key-v1|AGE-SECRET-KEY-")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_DEPTH = 3  # Base64 within Base64 is known from CI systems; this allows one more level

# The start of a DER private key: SEQUENCE { INTEGER 0 or 1, …: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017), SEC 1 (RFC 5915);
# or SEQUENCE { SEQUENCE { OBJECT IDENTIFIER 1.2.840.113549.1.5 or .12.1, …: EncryptedPrivateKeyInfo, PKCS#5, PKCS#12.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_DER = re.compile(
    rb"\x30"
    + _LENGTH
    + rb"(?:\x02\x01[\x00\x01]|\x30"
    + _LENGTH
    + rb"\x06.\x2a\x86\x48\x86\xf7\x0d\x01(?:\x05|\x0c\x01))",
    re.DOTALL,
)

# The prefixes of well-known services' keys, and PEM. They detect a paste in the wrong place, not an attack.
_TOKEN = re.compile(
    r"""\b(?:(?:sk|pk|rk|xai|btk|glpat)[-_][\w-]{16,} | (?:gsk|hf|r8|github_pat|gh[pousr])_\w{16,}
        | (?:AKIA|ASIA)[A-Z0-9]{16} | AIza[\w-]{30,} | eyJ[\w-]{16,} | AGE-SECRET-KEY-\w+) | -----BEGIN\b""",
    re.VERBOSE | re.ASCII,
)
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/?#@\s]*:[^/?#@\s]+@")
_HEX = re.compile(r"(?:[0-9a-fA-F]{64}){1,2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?|[A-Za-z0-9+/_-]{86}(?:==)?")
_RANDOM = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_RUN = re.compile(r"[A-Za-z0-9]{24,}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_SHOWN_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)
_PASSWORD_FILE = re.compile(r"\.(?:txt|key|pw|pwd|pass|passwd|password|passphrase|secret|conf|env)")

_WORD = re.compile(r"(?:[^\s\\]|\\(?![nrt]))+")
_LONG_WORD = 20  # characters: longer than the words of error messages, so that parts of it can be searched for
_PART = 12  # consecutive characters that a message and such a word have in common
_PASSAGE = 24  # consecutive characters, spaces included, that a message and any secret have in common
_SHORT_LINE = 8  # characters: shorter lines of a secret are not searched for
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # unlike str.lower, keeps the length
_PEM = re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL)


def is_key(text: str) -> bool:
    """Whether `text` certainly contains a private key, plain or encoded."""
    if len(text) < len("PRIVATE KEY"):
        return False
    return _holds_key(text, _DEPTH)


def _holds_key(text: str, depth: int) -> bool:
    if _MARKERS.search(text):
        return True
    if depth == 0 or len(text) < 40:
        return False
    plain = re.sub(r"\\[nrt]|[\s\"'\\]", "", text)
    return any(_is_encoded_key(match[0], depth) for match in _ENCODED.finditer(plain))


def _is_encoded_key(text: str, depth: int) -> bool:
    return any(_DER.match(data) or _holds_key(data.decode("latin-1"), depth - 1) for data in _decodings(text))


def _decodings(text: str) -> Iterable[bytes]:
    """The decodings of `text` as Base64 (RFC 4648, sections 4 and 5) and as hexadecimal."""
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    body = body[: len(body) - (len(body) % 4 == 1)]  # a truncated text
    yield base64.b64decode(body + "=" * (-len(body) % 4))
    if len(text) % 2 == 0:
        try:
            yield binascii.unhexlify(text)
        except ValueError:
            return


def is_token(text: str) -> bool:
    """Whether `text` contains a key in the format of a well-known service, or the beginning of a PEM."""
    return _TOKEN.search(text) is not None


def hide_tokens(text: str) -> str:
    """`text` with keys in the format of well-known services replaced."""
    return _TOKEN.sub("(hidden)", text)


def is_withheld(value: str) -> bool:
    """Whether a value given by the user must not be repeated. The name of an existing file is harmless."""
    return (
        len(value.encode(errors="surrogatepass")) > LONGEST_SHOWN
        or "\n" in value
        or "\r" in value
        or is_key(value)
        or is_token(value)
        or _PASSWORD_IN_ADDRESS.search(value) is not None
        or _is_random(value.strip("\"' \t"))
    )


def _is_random(text: str) -> bool:
    if _HEX.fullmatch(text):
        return True
    if _BASE64.fullmatch(text) and (text.endswith("=") or _is_mixed(text)):
        return True
    return _RANDOM.fullmatch(text) is not None and any(_is_mixed(run) for run in _RUN.findall(text))


def _is_mixed(text: str) -> bool:
    return all(any(test(c) for c in text) for test in (str.isupper, str.islower, str.isdigit))


def is_variable_name(value: str) -> bool:
    """Whether `value` is a valid name of an environment variable: letters, digits and `_`, at most 64.

    https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html
    """
    return _VARIABLE.fullmatch(value) is not None


def called_variable(name: str) -> str:
    """The name of an environment variable for a message.

    If no variable has this name, it may be a password given in place of the name. Then the message repeats it only in
    upper case, which is common for variables and rare for passwords.
    """
    if name in os.environ or (_SHOWN_VARIABLE.fullmatch(name) and not is_withheld(name)):
        return f"the environment variable {name}"
    return f"the environment variable of that name {NOT_SHOWN}"


def names_a_file(value: str) -> bool:
    """Whether a message may repeat the name of a missing file that may be a password given by mistake.

    True for names with a suffix of password files (`.txt`, `.key`, `.pass`, …), and for names within an existing
    directory.
    """
    if is_withheld(value):
        return False
    directory, name = os.path.split(value)
    return _PASSWORD_FILE.fullmatch(os.path.splitext(name)[1]) is not None or (
        directory != "" and os.path.isdir(directory)
    )


class Withheld:
    """Removes the secrets of one command line from texts.

    A value that is the name of an existing file is repeated. A shell may split a PEM into short words, so the words
    between `-----BEGIN` and `-----END` are withheld too.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        values = list(values)
        self._values: dict[str, _Fragments] = {}
        for value in (*values, *_within_pem(values)):
            if value and is_withheld(value):
                self._values[value] = _Fragments(value)
        for value in _within_pem(values):
            self._values.setdefault(value, _Fragments(value))

    def redact(self, text: str) -> str:
        """`text` with `NOT_SHOWN` in place of every secret, also an escaped, quoted or truncated one."""
        text = _PEM.sub(NOT_SHOWN, text)
        pieces = [found for value, found in self._values.items() if not os.path.lexists(value.replace("\0", ""))]
        if not pieces:
            return text
        low = text.translate(_LOWER)
        hidden = bytearray(len(text))
        for piece in pieces:
            piece.mark(low, hidden)
        return _without(text, hidden)

    def redact_all(self, data: object) -> object:
        """JSON-ready data with every string in it redacted."""
        if isinstance(data, str):
            return self.redact(data)
        if isinstance(data, dict):
            return {self.redact(str(key)): self.redact_all(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.redact_all(value) for value in data]
        return data


class _Fragments:
    """The texts that reveal one secret: its spellings, its lines, parts of its long words, and longer passages."""

    def __init__(self, value: str) -> None:
        lines = [line.strip() for line in re.split(r"\n|\r|\\n|\\r", value)]
        whole = {value, value.strip(), *_spellings(value)}
        self._whole = {text.translate(_LOWER) for text in whole if text}
        self._whole |= {line.translate(_LOWER) for line in lines if len(line) >= _SHORT_LINE}
        low = value.translate(_LOWER)
        words = [word for word in _WORD.findall(low) if len(word) >= _LONG_WORD]
        self._parts = {
            _PART: {part for word in words for part in _windows(word, _PART)},
            _PASSAGE: set(_windows(low, _PASSAGE)),
        }

    def mark(self, text: str, hidden: bytearray) -> None:
        for whole in self._whole:
            at = text.find(whole)
            while at >= 0:
                hidden[at : at + len(whole)] = b"\1" * len(whole)
                at = text.find(whole, at + 1)
        for length, parts in self._parts.items():
            for at, part in enumerate(_windows(text, length) if parts else ()):
                if part in parts:
                    hidden[at : at + length] = b"\1" * length


def _windows(text: str, length: int) -> Iterator[str]:
    return (text[i : i + length] for i in range(len(text) - length + 1))


def _spellings(value: str) -> Iterable[str]:
    """The escaped forms of a value: those of Python, JSON and `files.display`."""
    import json

    yield repr(value)[1:-1]
    yield ascii(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield value.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _within_pem(values: list[str]) -> list[str]:
    start = next((i for i, value in enumerate(values) if "-----BEGIN" in value), None)
    if start is None:
        return []
    end = next((i for i, value in enumerate(values[start:], start) if "-----END" in value), len(values) - 1)
    # Short words of a PEM's first and last line occur in other messages.
    return [value for value in values[start : end + 1] if len(value) > _SHORT_LINE]


def _without(text: str, hidden: bytearray) -> str:
    found: list[str] = []
    at = 0
    for match in re.finditer(rb"\x01+", hidden):
        found += [text[at : match.start()], NOT_SHOWN]
        at = match.end()
    return "".join([*found, text[at:]])
