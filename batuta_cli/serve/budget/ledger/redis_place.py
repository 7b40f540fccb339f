"""What this host remembers of a Redis ledger between processes: its epoch, and the largest known counter of writes.

Without this file, a Redis that was restarted empty would be taken for a new ledger with a fresh budget.
"""

import hashlib
import json
from pathlib import Path

from batuta_cli import paths
from batuta_cli.errors import BatutaError, InvalidInputError, LedgerError, NotFoundError
from batuta_cli.files import display, read_limited, write_file

_LIMIT = 4096  # bytes


class RedisPlace:
    """The file of one ledger in the directory of the state. Methods raise `LedgerError`."""

    def __init__(self, url: str, directory: Path | None = None) -> None:
        """`directory`: by default the user's state directory."""
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._directory = directory
        self._name = f"redis-{name}.recorded"

    @property
    def path(self) -> Path:
        """The file."""
        return (self._directory or paths.state_dir()) / self._name

    def read(self) -> tuple[str, int]:
        """Epoch and counter; an empty epoch when no ledger was used here."""
        try:
            document = json.loads(read_limited(self.path, _LIMIT))
            return str(document["epoch"]), int(document["counter"])
        except NotFoundError:
            return "", 0
        except (ValueError, KeyError, TypeError, InvalidInputError) as error:
            raise LedgerError(
                f"{display(self.path)}: damaged", hint=f"check the budget in Redis, then: rm {display(self.path)}"
            ) from error

    def write(self, epoch: str, counter: int) -> None:
        """Store both, whole or not at all."""
        try:
            paths.private_dir(self.path.parent)
            write_file(self.path, json.dumps({"epoch": epoch, "counter": counter}).encode(), force=True, mode=0o600)
        except BatutaError as error:
            raise LedgerError(f"cannot remember the ledger in Redis: {error.message}", hint=error.hint) from error
