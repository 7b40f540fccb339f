r"""Restores PEM texts that a CI system changed on their way into a variable or file.

Secrets lose their line breaks, which become the two characters `\n`, or spaces. They are put into quotes, or encoded in
Base64 as a whole. `restored` undoes this, and leaves all other inputs as they are. The caller decides whether the
result is a valid key.
"""

import base64
import binascii
import re

_QUOTES = (b'"', b"'")
_BEGIN = b"-----BEGIN "
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END \1-----")
_LINE = 64  # characters, RFC 7468 section 2


def restored(data: bytes) -> bytes:
    """`data` as PEM with its line breaks, when it was one; else unchanged."""
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    if len(text) > 1 and text[:1] in _QUOTES and text[-1:] == text[:1]:
        text = text[1:-1].strip()
    if not text.startswith(_BEGIN):
        text = _decoded(text)
    if not text.startswith(_BEGIN):
        return data
    if b"\n" not in text and b"\r" not in text:
        text = text.replace(b"\\r", b"").replace(b"\\n", b"\n").strip()
    if b"\n" not in text and (match := _PEM.fullmatch(text)):
        body = b"".join(match[2].split())
        lines = [body[at : at + _LINE] for at in range(0, len(body), _LINE)]
        text = b"\n".join((b"-----BEGIN %s-----" % match[1], *lines, b"-----END %s-----" % match[1]))
    return text + b"\n"


def _decoded(text: bytes) -> bytes:
    """What `text` is the Base64 of; `text` when it is not Base64."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True).strip()
    except binascii.Error:
        return text
