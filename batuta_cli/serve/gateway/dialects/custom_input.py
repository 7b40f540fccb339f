"""The free text of a custom tool's call, from the JSON arguments of the function that stands for it. No I/O.

Arguments come in parts, `{"inp`, `ut": "*** Begin`, ` Patch\\n…"}`. The text inside is returned as it is read, so that
a client sees a long patch grow. Other arguments are held back to the end: an object with one text is that text, and
anything else is taken as the text itself.
"""

import json
import re

from batuta_cli.serve.gateway.dialects.responses_tools import INPUT

_HEAD = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_RUN = re.compile(r'[^"\\]+')
_UNIT = re.compile(r"\\u([0-9A-Fa-f]{4})")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE_LENGTH = 6  # characters of \uXXXX
_LONGEST_HEAD = 100  # characters, white space included


class CustomInput:
    """Reads the arguments of one call, part by part, then `end`."""

    def __init__(self) -> None:
        self._held = ""
        """Arguments that are not decoded yet."""
        self._decodes = False
        self._ended = False
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def add(self, part: str) -> str:
        """The text that a further part of the arguments adds."""
        if self._ended:
            return ""
        self._held += part
        if not self._decodes:
            head = _HEAD.match(self._held) if len(self._held) - len(part) < _LONGEST_HEAD else None
            if head is None:
                return ""
            self._decodes, self._held = True, self._held[head.end() :]
        return self._keep(self._decoded(last=False))

    def end(self) -> str:
        """The rest of the text."""
        if self._decodes:
            return self._keep(self._decoded(last=True))
        return self._keep(_other(self._held))

    def _keep(self, text: str) -> str:
        if text:
            self._texts.append(text)
        return text

    def _decoded(self, *, last: bool) -> str:
        """Decode what is held of the JSON string; an escape that may go on stays held unless it is the last."""
        held, place, texts = self._held, 0, []
        while place < len(held) and not self._ended:
            if run := _RUN.match(held, place):
                texts.append(run.group())
                place = run.end()
            elif held[place] == '"':
                self._ended = True
            else:
                text, length = _escape(held[place : place + 2 * _ESCAPE_LENGTH], last=last)
                if not length:
                    break
                texts.append(text)
                place += length
        self._held = held[place:]
        return "".join(texts)


def _escape(held: str, *, last: bool) -> tuple[str, int]:
    """The text of the escape at the beginning and its length; the length is 0 when more may come."""
    if len(held) < 2:
        return "", 0
    if held[1] != "u":  # an unknown escape, such as \d, is what the model meant
        return _ESCAPES.get(held[1], held[:2]), 2
    first = _UNIT.match(held)
    if first is None:
        return ("", 0) if len(held) < _ESCAPE_LENGTH and not last else (held[:2], 2)
    unit = int(first.group(1), 16)
    if not 0xD800 <= unit <= 0xDBFF:
        return ("\ufffd" if 0xDC00 <= unit <= 0xDFFF else chr(unit)), _ESCAPE_LENGTH
    rest = held[_ESCAPE_LENGTH:]
    second = _UNIT.match(rest)
    low = int(second.group(1), 16) if second else 0
    if 0xDC00 <= low <= 0xDFFF:
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)), 2 * _ESCAPE_LENGTH
    may_go_on = not last and second is None and len(rest) < _ESCAPE_LENGTH and (not rest or rest[0] == "\\")
    return ("", 0) if may_go_on else ("\ufffd", _ESCAPE_LENGTH)


def _other(arguments: str) -> str:
    """The text of arguments that are not the expected object."""
    try:
        value = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(value, dict):
        texts = [value[INPUT]] if INPUT in value else list(value.values())
        value = texts[0] if len(texts) == 1 else None
    return value if isinstance(value, str) else arguments
