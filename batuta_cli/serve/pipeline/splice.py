"""The seam of a failover: where one backend's text is joined to what another one had said.

Nothing is lost and nothing stands there twice. A backend that continues a text may first repeat it, or may have
dropped the white space it ended in; what of that is to be expected is a fact about the backend, told to the filter.
Only a whole echo is taken off, never a part of one.

Texts are `str`, so no character is ever cut. Where a text cannot be joined, that is an error and not a guess.
"""

from batuta_cli.errors import OperationError
from batuta_cli.serve.names import NameEnum

ECHO_EVIDENCE = 16
"""Characters from which a repetition counts as an echo where nothing is known; a shorter one may be the text's own."""


class Echo(NameEnum):
    """Whether a backend repeats the text it continues before it goes on.

    llama.cpp does so always when it answers in one piece, and never when it streams (seen on xllamacpp 2026.10).
    """

    NEVER = "never"
    ALWAYS = "always"
    UNKNOWN = "unknown"


class SpliceError(OperationError):
    """A backend did not continue the text it was given, so what it said cannot be joined to it. Exit 1."""

    kind = "broken_seam"


class Splice:
    """Takes the echo of `prefix` off the text that continues it, piece by piece as it arrives.

    `trims`: the backend drops white space at the end of `prefix`, and so may write it a second time.

    What may yet be an echo is held back. A leg that breaks off is not finished: what it held never was in the text.
    """

    def __init__(self, prefix: str, *, echo: Echo = Echo.UNKNOWN, trims: bool = False) -> None:
        given = prefix.rstrip() if trims else prefix
        looked_for = echo is Echo.ALWAYS or (echo is Echo.UNKNOWN and len(given) >= ECHO_EVIDENCE)
        self._echo = given if looked_for else ""
        self._matched = 0
        self._required = echo is Echo.ALWAYS
        self._blank = prefix[len(given) :]

    def feed(self, text: str) -> str:
        """What of the text so far is new.

        Raises `SpliceError` when the echo is missing of a backend that always gives one.
        """
        if self._echo and text:
            text = self._without_echo(text)
        if self._blank and text:
            while self._blank and text and self._blank[0] == text[0]:
                self._blank, text = self._blank[1:], text[1:]
            self._blank = "" if text else self._blank
        return text

    def finish(self) -> str:
        """What was held back, when the backend has said that its text is complete. Raises `SpliceError`."""
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
    return SpliceError("the backend answered with another text than the one it was to continue")


def remaining_tokens(max_tokens: int | None, sent: int) -> int | None:
    """The `max_tokens` of a leg that continues after `sent` tokens; None where there is no limit.

    At 0 there is nothing left to ask for: the text ends there, with the finish reason `length`.
    """
    return None if max_tokens is None else max(0, max_tokens - sent)
