"""One JSON object a line on stderr: what happened, never what was said.

No field holds a message, a key, a query or a header, but for the request's id, which has an alphabet of its own. Of a
foreign exception only the type and the place are told: its text may quote what must not be shown.
"""

import asyncio
import datetime as dt
import sys
import traceback
from typing import Any, BinaryIO, Literal

import orjson

from batuta_cli.errors import BatutaError

Level = Literal["info", "warning", "error"]


class Log:
    """Writes to a binary stream, stderr by default. `quiet` leaves out what is no error."""

    def __init__(self, stream: BinaryIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr.buffer
        self._quiet = quiet
        self._waiting: list[bytes] = []

    def write(self, level: Level, event: str, **fields: Any) -> None:
        """One line; fields that are None are left out."""
        if self._quiet and level != "error":
            return
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": level, "event": event}
        line |= {name: value for name, value in fields.items() if value is not None}
        self._waiting.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if len(self._waiting) == 1:
            try:  # lines of one turn of the event loop are written together
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        lines, self._waiting = self._waiting, []
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more; requests are served all the same
            self._quiet = True


def describe(error: BaseException) -> dict[str, Any]:
    """An error as fields of a line."""
    if isinstance(error, BatutaError):
        return {"error": error.kind, "reason": error.message}
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {"error": type(error).__name__, "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]}
