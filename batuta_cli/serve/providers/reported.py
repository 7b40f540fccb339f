"""The errors that backends report: read from the formats in use, bounded, and without keys or the request's text.

Formats: OpenAI and llama.cpp `{"error": {"message", "type", "param", "code"}}`, Anthropic
`{"type": "error", "error": {"type", "message"}}`, Ollama and TGI `{"error": "text"}`, FastAPI
`{"detail": "text" | [{"loc", "msg"}]}` (RFC 9457 has `detail` too), AWS and older vLLM `{"message"}`, and plain text.

A message may quote the request or a key. `Redaction` replaces both, so that what it returns may be logged.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from batuta_cli.secrecy import NOT_SHOWN, hide_tokens, is_key, is_token
from batuta_cli.serve.providers.tolerant_json import json_value, mended
from batuta_cli.serve.providers.wire import BackendError, ReportedError

BODY_LIMIT = 64 * 1024
"""Bytes of an error's body that are read."""

MESSAGE_LIMIT = 600
"""Characters of a message that are kept."""

_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,60}")
_PARAM = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")
_QUOTED = 16  # consecutive characters that a message and the request have in common
_HALF = _QUOTED // 2
_SHORTEST = 6  # characters of a whole text of the request that a message quotes
_MASKED_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|r8|btk|AIza)[-_]?[\w*.…-]*\*{2,}[\w*.…-]*")  # sk-ab**…**yz
_PASSWORD = re.compile(r"(?<=://)[^/?#@\s]*@")
_BEARER = re.compile(r"(?i)\b(bearer|api[-_ ]?key[\"']?\s*[:=])\s*[\"']?[\w.~+/=-]{12,}")

REQUEST_FAULTS = frozenset(
    (
        "400",  # llama.cpp and vLLM write the status into `code`
        "413",
        "422",
        "BadRequestError",
        "context_length_exceeded",
        "exceed_context_size_error",
        "invalid_request_error",
        "request_too_large",
    )
)
"""Error codes and types that mean an invalid request (OpenAI, Anthropic, llama.cpp, vLLM)."""

_CODES = {"exceed_context_size_error": "context_length_exceeded"}
"""Types of llama.cpp that OpenAI has a code for."""
_TOO_LONG = re.compile(r"maximum context length|prompt is too long|exceeds the available context size", re.IGNORECASE)


def read_error(document: object) -> ReportedError:
    """The error in a JSON document; empty when it has none."""
    if isinstance(document, list) and document:  # Google wraps its error in a list
        document = document[0]
    if not isinstance(document, dict):
        return ReportedError()
    error = document.get("error")
    table = error if isinstance(error, dict) else document
    text = error if isinstance(error, str) else next((t for n in _MESSAGES if (t := _text_of(table.get(n)))), "")
    kind = _word(table.get("type")) or _word(document.get("error_type")) or _word(table.get("status"))
    code = _word(table.get("code"))
    code = (kind if not code or code.isdecimal() else code) if error or code else ""
    too_long = "context_length_exceeded" if _TOO_LONG.search(text) else ""
    param = table.get("param")
    return ReportedError(
        message=str(mended(text)),
        code=_CODES.get(code, too_long or code),
        type="" if kind == "error" else kind,
        param=param if isinstance(param, str) and _PARAM.fullmatch(param) else "",
        status=int(found) if (found := _word(table.get("code"))).isdecimal() and len(found) == 3 else None,
    )


_MESSAGES = ("message", "Message", "msg", "detail", "title")


def read_error_body(body: bytes) -> ReportedError:
    """The error in the body of an HTTP response. A page in HTML has none."""
    try:
        document = json_value(body)
    except BackendError:
        text = body.decode(errors="replace").strip()
        return ReportedError() if text.startswith("<") else ReportedError(message=text)
    return ReportedError(message=document) if isinstance(document, str) else read_error(document)


def reported_error(document: object) -> BackendError:
    """The `BackendError` for the error in a document. Its text is added by `Redaction`."""
    reported = read_error(document)
    request_fault = bool(REQUEST_FAULTS & {reported.code, reported.type, str(reported.status)})
    shown = f" ({reported.code})" if reported.code else ""
    status = (reported.status or 400) if request_fault else None
    return BackendError(
        f"the backend reports an error{shown}", status=status, retryable=not request_fault, reported=reported
    )


def _text_of(value: object) -> str:
    """The text of a message; FastAPI's list of faults as `body.messages: field required`."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((text for name in _MESSAGES if isinstance(text := value.get(name), str)), "")
    faults = []
    for fault in value if isinstance(value, list) else ():
        if isinstance(fault, dict) and isinstance(fault.get("msg"), str):  # `input` quotes the request
            place = fault.get("loc")
            where = (
                ".".join(str(each) for each in place if isinstance(each, str | int)) if isinstance(place, list) else ""
            )
            faults.append(f"{where}: {fault['msg']}" if where else fault["msg"])
    return "; ".join(faults)


def _word(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and _WORD.fullmatch(value) and not is_token(value) else ""


class Redaction:
    """Removes keys and the texts of one request from what its backend reports."""

    def __init__(self, keys: Iterable[str], texts: Iterable[str]) -> None:
        self._keys = [key for key in keys if key]
        self._texts = [text for text in texts if text]

    def apply(self, error: BackendError) -> BackendError:
        """Complete an error with the redacted text of its report."""
        reported = error.reported
        if reported is None or error.redacted:
            return error
        error.reported = replace(
            reported,
            message=self._text(reported.message),
            code=self._word(reported.code),
            type=self._word(reported.type),
            param=self._word(reported.param),
        )
        error.redacted = True
        if error.reported.message:
            error.message += f": {error.reported.message}"
            error.args = (error.message,)
        return error

    def _word(self, word: str) -> str:
        return "" if any(key in word for key in self._keys) or self._text(word) != word else word

    def _text(self, text: str) -> str:
        text = "".join(c if c.isprintable() else " " for c in text[: 8 * MESSAGE_LIMIT])
        if is_key(text):
            return NOT_SHOWN
        text = hide_tokens(text)
        for key in self._keys:
            text = text.replace(key, NOT_SHOWN)
        for pattern, shown in ((_MASKED_KEY, NOT_SHOWN), (_PASSWORD, ""), (_BEARER, rf"\1 {NOT_SHOWN}")):
            text = pattern.sub(shown, text)
        text = re.sub(r" {2,}", " ", text[: 2 * MESSAGE_LIMIT]).strip()
        text = self._without_quotes(text)
        return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"

    def _without_quotes(self, text: str) -> str:
        for whole in sorted({each.strip() for each in self._texts}, key=len, reverse=True):
            if len(whole) >= _SHORTEST and whole in text:
                text = text.replace(whole, NOT_SHOWN)
        hidden = bytearray(len(text))
        for at in range(0, len(text), _HALF):  # a quotation contains one of these halves whole
            if self._quotes(text[at : at + _HALF]):
                for start in range(max(0, at - _HALF), at + 1):
                    if len(part := text[start : start + _QUOTED]) == _QUOTED and self._quotes(part):
                        hidden[start : start + _QUOTED] = b"\1" * _QUOTED
        pieces, last = [], 0
        for match in re.finditer(rb"\x01+", hidden):
            pieces += [text[last : match.start()], NOT_SHOWN]
            last = match.end()
        return "".join([*pieces, text[last:]])

    def _quotes(self, part: str) -> bool:
        return any(part in text for text in self._texts)
