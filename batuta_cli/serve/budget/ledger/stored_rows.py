"""The rows of a ledger, and how `rules.py` reads and writes them."""

from datetime import date
from typing import NamedTuple, Protocol

from batuta_cli.serve.budget.ledger.base import LedgerEntry


class Day(NamedTuple):
    """The sums of a day."""

    day: date
    spent: int = 0
    forgiven: int = 0
    reserved: int = 0
    warned: bool = False


class ClientDay(NamedTuple):
    """The sums of a client on a day."""

    day: date
    client: str
    """The name of its client key."""
    spent: int = 0
    forgiven: int = 0
    reserved: int = 0

    def changed(self, spent: int = 0, forgiven: int = 0, reserved: int = 0) -> "ClientDay":
        """The sums with these amounts added."""
        return ClientDay(self.day, self.client, self.spent + spent, self.forgiven + forgiven, self.reserved + reserved)


class StoredReservation(NamedTuple):
    """A reservation as the ledger stores it."""

    id: str
    day: date
    amount: int
    expires: int
    owner: str
    dispatched: bool
    model: str
    backend: str
    client: str = ""


class Tombstone(NamedTuple):
    """The remains of an expired reservation."""

    id: str
    day: date
    amount: int
    charged: int
    """The part of the day's spending that the expiry added: its amount, or 0."""
    forgiven: bool
    """A reset has forgiven the charge."""
    at: int
    model: str
    backend: str
    client: str = ""


class Zoning(NamedTuple):
    """The time zone in which days are counted, and a pending change of it."""

    zone: str
    next: str | None = None
    """The zone that replaces `zone` when the day `after` has ended."""
    after: date | None = None
    """The day of the last change. The current day is never before it."""


class Counts(NamedTuple):
    """Numbers to add to a line of the history."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int


class LedgerRows(Protocol):
    """The rows of a ledger, read and written within one transaction."""

    def zoning(self) -> Zoning | None: ...
    def put_zoning(self, row: Zoning) -> None: ...
    def newest(self) -> Day | None: ...
    def day(self, day: date) -> Day | None: ...
    def put_day(self, row: Day) -> None: ...
    def client_day(self, day: date, client: str) -> ClientDay | None: ...
    def put_client_day(self, row: ClientDay) -> None: ...
    def client_days(self, day: date) -> list[ClientDay]: ...
    def reservation(self, id: str) -> StoredReservation | None: ...
    def put_reservation(self, row: StoredReservation) -> None: ...
    def drop_reservation(self, id: str) -> None: ...
    def renew(self, owner: str, expires: int) -> None:
        """Let the reservations of `owner` expire at `expires`."""

    def expired(self, time: int) -> list[StoredReservation]: ...
    def tombstone(self, id: str) -> Tombstone | None: ...
    def put_tombstone(self, row: Tombstone) -> None: ...
    def drop_tombstone(self, id: str) -> None: ...
    def drop_tombstones_before(self, time: int) -> None: ...
    def add_history(self, day: date, model: str, backend: str, counts: Counts, client: str = "") -> None: ...
    def history(self, since: date) -> list[LedgerEntry]:
        """The history from `since` on, the newest day first, then by model, backend and client."""

    def days_after(self, day: date) -> list[Day]: ...
    def move(self, day: date, to: date) -> None:
        """Move reservations, tombstones and history of `day` to the day `to`, and delete its sums, also of clients."""

    def forgive(self, day: date, latest: int) -> None:
        """Mark the day's tombstones as forgiven, and let every reservation expire at `latest` or earlier."""
