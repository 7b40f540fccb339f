"""The splice of a failover: joins the text of one backend to the text that another one continues.

No character is lost and none is repeated. A backend that continues a text may repeat it first (an echo), or may drop
the white space at its end; its profile says which. Only a complete echo is removed, never a part of one.

Texts are `str`, so no character is cut. A text that cannot be joined is a `SpliceError`.
"""

from batuta_cli.errors import OperationError
from batuta_cli.serve.names import NameEnum

ECHO_EVIDENCE = 16
"""The shortest prefix, in characters, whose repetition counts as an echo of a backend of which nothing is known."""


class Echo(NameEnum):
    """Whether a backend repeats the text before it continues it.

    llama.cpp always does when the response is not streamed and never when it is (xllamacpp 2026.10).
    """

    NEVER = "never"
    ALWAYS = "always"
    UNKNOWN = "unknown"


class SpliceError(OperationError):
    """A backend did not continue the text it was given. Exit 1."""

    kind = "splice_failed"


class Splice:
    """Removes the echo of `prefix` from the text that continues it, piece by piece.

    `trims`: the backend drops the white space at the end of `prefix`, so it may write it a second time.

    Text that may be an echo is held back until that is decided. Do not call `finish` for an attempt that failed: the
    text held back is not part of the response.
    """

    def __init__(self, prefix: str, *, echo: Echo = Echo.UNKNOWN, trims: bool = False) -> None:
        given = prefix.rstrip() if trims else prefix
        looked_for = echo is Echo.ALWAYS or (echo is Echo.UNKNOWN and len(given) >= ECHO_EVIDENCE)
        self._echo = given if looked_for else ""
        self._matched = 0
        self._required = echo is Echo.ALWAYS
        self._blank = prefix[len(given) :]

    def feed(self, text: str) -> str:
        """The new text in this piece. Raises `SpliceError` when an echo that is always sent is missing."""
        if self._echo and text:
            text = self._without_echo(text)
        if self._blank and text:
            while self._blank and text and self._blank[0] == text[0]:
                self._blank, text = self._blank[1:], text[1:]
            self._blank = "" if text else self._blank
        return text

    def finish(self) -> str:
        """The text held back, once the backend's text is complete. Raises `SpliceError`."""
        if not self._matched or not self._echo:
            return ""
        if self._required:
            raise _not_continued()
        held, self._echo = self._echo[: self._matched], ""
        return self.feed(held)

    def _without_echo(self, text: str) -> str:
        expected = min(len(text), len(self._echo) - self._matched)
        if self._echo.startswith(text[:expected], self._matched):
            self._matched += expected
            if self._matched == len(self._echo):
                self._echo = ""
            return text[expected:]
        if self._required:
            raise _not_continued()
        held, self._echo = self._echo[: self._matched], ""
        return held + text


def _not_continued() -> SpliceError:
    return SpliceError("failover: the new backend did not continue the text already sent")


def remaining_tokens(max_tokens: int | None, sent: int) -> int | None:
    """The output limit of an attempt that continues after `sent` tokens; None without a limit.

    At 0 the text is complete, with the finish reason `length`.
    """
    return None if max_tokens is None else max(0, max_tokens - sent)
