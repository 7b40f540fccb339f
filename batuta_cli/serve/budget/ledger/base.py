"""The contract `Ledger` and its value types.

Amounts are whole nano-dollars, times are whole milliseconds since 1970. A ledger has no clock: the caller passes the
`Moment`.

A ledger stores the time zone in which it counts days: the zone of its first use, until `rezone` changes it from the
next day on. A caller with another zone is refused, because its days would begin at other times.

A ledger stores three sums a day: *spent*, *forgiven* (the part of it that a reset no longer counts) and *reserved*. At
every moment, reserved is the sum of the day's reservations, and spent is the sum of the day's history.

Reservations and costs may name a *client*, the name of a client key of the gateway. The same three sums are stored for
each client, and `reserve` keeps two limits in one step: the day's and the client's.

A ledger of your own stores rows and provides transactions; `RowLedger` applies the rules. This one keeps all rows in
one pickled file, for any number of processes:

    import contextlib, os, pickle
    from batuta_cli.serve.budget.ledger.file_lock import file_lock
    from batuta_cli.serve.budget.ledger.memory import MemoryRows
    from batuta_cli.serve.budget.ledger.row_ledger import RowLedger

    class PickleLedger(RowLedger):
        def __init__(self, path):
            self.path = path

        def read(self, body):
            with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
                return body(pickle.load(file))
            return body(MemoryRows())

        def write(self, body):
            with file_lock(f"{self.path}.lock"):
                rows = self.read(lambda rows: rows)
                result = body(rows)
                with open(f"{self.path}.new", "wb") as file:
                    pickle.dump(rows, file)
                os.replace(f"{self.path}.new", self.path)
                return result

Pass it to the breaker: `CostCircuitBreaker(config, PickleLedger("/var/lib/app/ledger"))`. A ledger for real money also
turns each `OSError` into a `LedgerError`, and calls `fsync`.
"""

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple, Protocol

LEASE = 60_000
"""Milliseconds after which a reservation expires unless it is renewed."""

REMEMBERED = 7 * 24 * 3600 * 1000
"""Milliseconds for which a late settlement can still correct an expired reservation; no request takes longer."""

GREATEST = 2**63 - 1
"""The largest sum: the largest integer of SQLite and Redis."""


class Moment(NamedTuple):
    """A time, with its day in the caller's time zone."""

    time: int
    day: date
    zone: str = "UTC"
    """The caller's time zone, a name of the IANA database."""


class ReservationRow(NamedTuple):
    """A reservation: `amount` stays reserved until it is settled, or expires because it was not renewed."""

    id: str
    amount: int
    owner: str
    """The process that renews it."""
    model: str = ""
    backend: str = ""
    dispatched: bool = False
    """Whether sending its request has begun; see `Ledger.dispatch`."""
    client: str = ""
    """The name of the client key; empty without one."""


class Use(NamedTuple):
    """The model, backend, tokens and client of a paid request."""

    model: str = ""
    backend: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    client: str = ""


class DayStatus(NamedTuple):
    """The sums of a day. `spent` excludes forgiven spending."""

    day: date
    spent: int = 0
    reserved: int = 0
    warned: bool = False
    """The warning of this day has been sent."""
    ahead: bool = False
    """The ledger's newest day is more than one day after the clock's day: the clock is or was wrong."""
    zone: str = "UTC"
    """The time zone in which the ledger counts days now."""
    next_zone: str | None = None
    """The time zone from the next day on; None when it stays the same."""
    client_spent: int = 0
    """The part of `spent` of the client that the step names; 0 without one."""
    client_reserved: int = 0
    """The part of `reserved` of that client."""


@dataclass(frozen=True, slots=True)
class Rezoned:
    """The result of a change of the time zone."""

    zone: str
    """The time zone of the current day."""
    next_zone: str | None
    """The time zone from the next day on; None when it stays the same."""
    before: str
    """The time zone from the next day on as it was before this change."""


class Settled(NamedTuple):
    """The result of a settlement."""

    day_status: DayStatus
    reserved: int
    """The amount that had been reserved."""
    late: bool
    """The reservation had expired, and its charge was corrected."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A line of the history: one day, model, backend and client."""

    day: date
    model: str
    backend: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost: int
    client: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The result of a reset."""

    day: date
    forgiven: int
    """The spending that no longer counts against the day's budget."""
    moved: tuple[date, ...]
    """Days after the clock's day, whose sums were added to this day."""


class Ledger(Protocol):
    """Stores spending. Each method is one atomic step for any number of threads and processes.

    Every method raises `LedgerError` when the ledger cannot be used, and has then changed nothing.
    """

    def day_status(self, moment: Moment, client: str = "") -> DayStatus:
        """The sums of the current day, and those of `client`. Changes no sums.

        The current day is the later of the clock's day and the ledger's newest day.

        Raises `LedgerError` also when the ledger cannot be written, or counts days in another time zone.
        """

    def reserve(
        self, moment: Moment, row: ReservationRow, limit: int, client_limit: int | None = None
    ) -> tuple[bool, DayStatus]:
        """Add a reservation if spent + reserved + amount ≤ limit. Returns whether it was added, and the day's sums.

        With `client_limit` the sums of the row's client must fit it too; else nothing is added to either.

        Raises `LedgerError` also when the ledger is more than a day ahead of the clock, or counts days in another
        time zone.
        """

    def dispatch(self, moment: Moment, id: str) -> bool:
        """Mark a reservation as dispatched: it is charged in full when it expires without a settlement.

        False when the reservation has expired. Then its request must not be sent.
        """

    def renew(self, moment: Moment, owner: str) -> None:
        """Start the leases of all reservations of `owner` again."""

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """Replace a reservation by the actual cost, on the day of the reservation, exactly once.

        The history gets the model and backend of the reservation. The charge of an expired reservation is corrected,
        once. None when the reservation is unknown, or has been settled.
        """

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """Add a cost without a reservation. It may exceed any limit.

        It counts on the ledger's current day, also when the caller has another time zone.
        """

    def warn_once(self, day: date) -> bool:
        """Whether the caller must send the warning of this day: true once a day."""

    def history(self, since: date) -> list[LedgerEntry]:
        """The spending from that day on, the newest day first."""

    def reset(self, moment: Moment) -> Reset:
        """Forgive the spending of the clock's day, and move later days to it.

        The history and the reservations keep their amounts. A ledger whose file is missing is created again.
        """

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """Count days in another time zone from the next day on; at once in an empty ledger.

        The current day ends when it has ended in both time zones, so that no day has two budgets. Raises `LedgerError`
        also when the ledger is more than a day ahead of the clock.
        """

    def close(self) -> None:
        """Close files and connections. The next use opens them again."""
