"""A ledger in Redis 7 or Valkey, for any number of gateways on any number of hosts.

Each step is one Lua script (`redis_steps.lua`), which Redis runs alone, so that spent + reserved never exceeds the
budget whatever the number of hosts. The clock is Redis' own (`TIME`): the hosts' clocks decide nothing. Amounts are
below 2⁵³ nano-dollars, about nine million dollars, because Lua counts in floating point.

A Redis that cannot be used is a `LedgerError`, and paid requests are refused: it is away, slow, read-only, out of
memory, or not the ledger that this process knows. The latter is noticed by two values. The *epoch* is random and made
with the ledger, by its first use, also a reading one. It is remembered in this process and, for later ones, in a file
(`redis_place.py`). The *counter* grows with every write, so that a smaller one shows that writes were lost: in a
failover to a replica that was behind, or a restart without persistence.

A step whose response is lost may have been done. A reservation that may exist is released with the next step. A
settlement is sent again, and when Redis no longer knows the reservation, it has been done.
"""

import datetime as dt
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from batuta_cli.config.ledger_url import LedgerUrl
from batuta_cli.errors import LedgerError, MissingDependencyError, MissingLedgerError, OtherLedgerError, UsageError
from batuta_cli.serve.budget.budget_day import day_after, day_at, time_zone
from batuta_cli.serve.budget.ledger.base import (
    LEASE,
    REMEMBERED,
    DayStatus,
    LedgerEntry,
    Moment,
    ReservationRow,
    Reset,
    Rezoned,
    Settled,
    Use,
)
from batuta_cli.serve.budget.ledger.redis_place import RedisPlace
from batuta_cli.serve.budget.ledger.rules import REPAIR, ahead, other_zone

if TYPE_CHECKING:
    import redis

    from batuta_cli.serve.budget.ledger import LedgerOptions

GREATEST_IN_REDIS = 2**53 - 1
"""The largest amount in nano-dollars."""

_PREFIX = "{batuta}:ledger"
_TRIES = 4  # of a step that needs the days of another zone or time
_BEFORE = 120_000  # milliseconds by which Redis' clock may be behind the estimate of it


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """How Redis is reached."""

    host: str
    port: int = 6379
    database: int = 0
    tls: bool = False
    """Encrypted, with a certificate that is verified."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    """Certificate authorities in PEM instead of the system's."""
    timeout: float = 2.0
    """Seconds to wait for a connection, and for a response."""

    @property
    def url(self) -> str:
        """The ledger's URL, without a password."""
        return f"redis{'s' * self.tls}://{self.host}:{self.port}/{self.database}"

    def client(self) -> "redis.Redis":
        """A client with a pool of connections. Raises `MissingDependencyError`."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingDependencyError(
                "a Redis ledger needs the package redis", hint="pip install 'batuta-cli[redis]'"
            ) from None
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": self.ca_file} if self.tls else {}
        return redis.Redis(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.username,
            password=self.password,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            health_check_interval=15,  # seconds; a connection that Redis has closed is replaced before it is used
            retry=Retry(NoBackoff(), 0),  # the client must not send a step twice by itself
            **tls,
        )


@dataclass
class _Known:
    """What this process knows of the ledger."""

    epoch: str = ""
    counter: int = 0
    zones: tuple[str, ...] = ()
    """The zone in which the ledger counts days, and the next one."""
    offset: int = 0
    """Milliseconds by which Redis' clock is ahead of ours, as far as is known."""
    release: set[str] = field(default_factory=set)
    """Reservations that may exist although their callers saw an error."""
    unsure: set[str] = field(default_factory=set)
    """Reservations whose settlement may have been done."""


class RedisLedger:
    """See `Ledger`. Connections are made when they are needed, also after a fork."""

    def __init__(self, server: RedisServer, place: RedisPlace, *, server_clock: bool = True) -> None:
        """`server_clock`: False for tests, which move the clock by the moments that they pass."""
        self.server = server
        self._place = place
        self._server_clock = server_clock
        self._lock = threading.Lock()
        self._known = _Known(*place.read())
        self._calendars: dict[str, list[tuple[int, int, int]]] = {}
        self._redis: redis.Redis | None = None

    def day_status(self, moment: Moment, client: str = "") -> DayStatus:
        """See `Ledger`."""
        return self._status(self._step("status", moment, client=client))

    def reserve(
        self, moment: Moment, row: ReservationRow, limit: int, client_limit: int | None = None
    ) -> tuple[bool, DayStatus]:
        """See `Ledger`."""
        fields = row._asdict() | {
            "amount": _amount(row.amount),
            "limit": str(min(limit, GREATEST_IN_REDIS)),
            "client_limit": None if client_limit is None else str(min(client_limit, GREATEST_IN_REDIS)),
        }
        try:
            accepted, *status = self._step("reserve", moment, **fields)
        except _LostResponseError:
            with self._lock:
                self._known.release.add(row.id)
            raise
        return bool(accepted), self._status(status)

    def dispatch(self, moment: Moment, id: str) -> bool:
        """See `Ledger`."""
        return bool(self._step("dispatch", moment, id=id)[0])

    def renew(self, moment: Moment, owner: str) -> None:
        """See `Ledger`."""
        self._step("renew", moment, owner=owner)
        self._remember()

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """See `Ledger`."""
        try:
            found, *result = self._step(
                "settle",
                moment,
                id=id,
                cost=_amount(cost),
                input_tokens=use.input_tokens,
                output_tokens=use.output_tokens,
                requests=requests,
            )
        except _LostResponseError:
            with self._lock:
                self._known.unsure.add(id)
            raise
        with self._lock:
            was_unsure = id in self._known.unsure
            self._known.unsure.discard(id)
            self._known.release.discard(id)
        if found:
            amount, late, *status = result
            return Settled(self._status(status), int(amount), bool(late))
        return Settled(self.day_status(moment), 0, late=False) if was_unsure else None

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """See `Ledger`. When the response is lost, the error says that the cost may have been recorded."""
        return self._status(self._step("record", moment, **(use._asdict() | {"cost": _amount(cost)})))

    def warn_once(self, day: date) -> bool:
        """See `Ledger`."""
        return bool(self._step("warn", None, day=day.toordinal())[0])

    def history(self, since: date) -> list[LedgerEntry]:
        """See `Ledger`."""
        [rows] = self._step("history", None, since=since.toordinal())
        entries = []
        for ordinal, names, *counts in rows:
            model, backend, *clients = names.decode().split("\0")
            requests, tokens_in, tokens_out, cost = map(int, counts)
            day = date.fromordinal(int(ordinal))
            entries.append(LedgerEntry(day, model, backend, requests, tokens_in, tokens_out, cost, *clients))
        return sorted(sorted(entries, key=lambda e: (e.model, e.backend, e.client)), key=lambda e: e.day, reverse=True)

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`. Accepts the rows in Redis, so that a lost or replaced ledger can be used again."""
        day, forgiven, moved = self._step("reset", moment)
        self._remember()
        return Reset(_date(day), int(forgiven), tuple(map(_date, moved)))

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`."""
        kept, following, before = self._step("rezone", moment, new_zone=zone)
        return Rezoned(kept.decode(), following.decode() or None, before.decode())

    def close(self) -> None:
        """See `Ledger`."""
        self._remember()
        if self._redis is not None:
            self._redis.close()

    def _step(self, name: str, moment: Moment | None, **fields: Any) -> Any:
        """Run one step, and return its values. Raises `LedgerError`."""
        script = self._script()
        for _ in range(_TRIES):
            with self._lock:
                known = self._known
                release = sorted(known.release)
                calendar = {zone: self._calendars.get(zone, []) for zone in (*known.zones, *_zone_of(moment))}
            arguments = fields | {
                "epoch": known.epoch,
                "counter": known.counter,
                "new_epoch": os.urandom(16).hex(),
                "time": None if self._server_clock or moment is None else moment.time,
                "zone": moment.zone if moment else "",
                "calendar": calendar,
                "release": release,
                "lease": LEASE,
                "remembered": REMEMBERED,
            }
            kind, *values = self._call(script, name, json.dumps(arguments))
            if kind == b"ok":
                self._note(values[0].decode(), int(values[1]), release)
                return values[2:]
            if kind != b"calendar":
                raise self._refusal(kind.decode(), [value.decode() for value in values], arguments["zone"])
            self._learn(values[0].decode(), int(values[1]))
        raise self._error("cannot agree with this host on the day", hint="is the tzdata package the same on all hosts?")

    def _call(self, script: Callable[..., Any], name: str, arguments: str) -> Any:
        import redis

        try:
            return script(keys=[_PREFIX], args=[name, arguments])
        except redis.RedisError as error:
            raise self._explained(error) from error

    def _script(self) -> Callable[..., Any]:
        if self._redis is None:
            self._redis = self.server.client()
        return self._redis.register_script(_source())

    def _note(self, epoch: str, counter: int, released: list[str]) -> None:
        with self._lock:
            first = epoch != "" and epoch != self._known.epoch
            if first:
                self._known.epoch, self._known.counter = epoch, 0
            self._known.counter = max(self._known.counter, counter)
            self._known.release.difference_update(released)
        if first:
            self._remember()

    def _remember(self) -> None:
        with self._lock:
            epoch, counter = self._known.epoch, self._known.counter
        if epoch:
            self._place.write(epoch, counter)

    def _learn(self, zone: str, now: int) -> None:
        """Find the days of a zone around a time of Redis' clock."""
        try:
            calendar = time_zone(zone)
        except UsageError as unknown:
            raise self._error(
                "the ledger counts days in a time zone that this system does not know",
                hint="install the tzdata package",
            ) from unknown
        since, days = now - _BEFORE, []
        for _ in range(2):
            day = day_at(since / 1000, calendar)
            until = int(day_after(day, since / 1000, calendar).timestamp() * 1000)
            days.append((day.toordinal(), since, until))
            since = until
        with self._lock:
            self._calendars[zone] = days

    def _status(self, values: list[Any]) -> DayStatus:
        day, spent, reserved, warned, is_ahead, zone, following, client_spent, client_reserved = values
        zone, following = zone.decode(), following.decode() or None
        with self._lock:
            self._known.zones = (zone, following) if following else (zone,)
        return DayStatus(
            _date(day),
            int(spent),
            int(reserved),
            bool(warned),
            bool(is_ahead),
            zone,
            following,
            int(client_spent),
            int(client_reserved),
        )

    def _refusal(self, kind: str, values: list[str], zone: str) -> LedgerError:
        """The error for a step that the script refused; `zone` is the caller's."""
        if kind == "other-zone":
            return other_zone(values[0], zone)
        if kind == "ahead":
            return ahead(_date(values[0]), _date(values[1]))
        error, message = _REFUSALS[kind]
        return self._error(message, hint=None if kind == "too-large" else _REPAIR_HINT, kind=error)

    def _explained(self, error: "redis.RedisError") -> LedgerError:
        """The error for a failure of the connection or the server. The server's text may quote arguments."""
        import redis

        for kind, message, hint in _failures():
            if isinstance(error, kind):
                lost = isinstance(error, redis.ConnectionError | redis.TimeoutError)
                text = message.format(timeout=self.server.timeout)
                return self._error(text, hint=hint, kind=_LostResponseError if lost else LedgerError)
        code = str(error).split(" ", 1)[0][:20]
        message, hint = _CODES.get(code, ("answered with an error", None))
        return self._error(f"{message} ({code})" if code.isupper() else message, hint=hint)

    def _error(self, message: str, *, hint: str | None = None, kind: type[LedgerError] = LedgerError) -> LedgerError:
        return kind(f"{self.server.url}: {message}; paid requests are refused", hint=hint)


class _LostResponseError(LedgerError):
    """The response to a step was lost: the step may have been done."""


_REPAIR_HINT = f"if this is right, begin again with the sums that Redis has: {REPAIR}"
_REFUSALS: dict[str, tuple[type[LedgerError], str]] = {
    "lost": (MissingLedgerError, "the ledger that was kept here is gone (flushed, or restarted without persistence)"),
    "replaced": (OtherLedgerError, "another ledger is in the place of the one that was kept here"),
    "rolled-back": (OtherLedgerError, "the ledger has lost writes (a failover, or an older copy)"),
    "too-large": (LedgerError, "the sum of a day's spending exceeds the ledger's largest number; nothing was written"),
}
_CODES = {
    "OOM": ("Redis is full", "raise maxmemory; the ledger's keys must not be evicted (maxmemory-policy noeviction)"),
    "MISCONF": ("Redis cannot save to its disk", "see the log of the Redis server"),
    "NOSCRIPT": ("Redis forgot its scripts", None),
    "WRONGTYPE": ("the ledger is damaged", "restore Redis from a backup"),
}


@cache
def _failures() -> list[tuple[type[Exception], str, str | None]]:
    """Exceptions of the client, the most specific first, with message and hint."""
    import redis
    from redis import exceptions

    return [
        (
            redis.AuthenticationError,
            "Redis refused the password, or wants one",
            "[redis] password_env names the variable that holds it",
        ),
        (exceptions.NoPermissionError, "the Redis user may not do this", "it needs the commands of @all on its keys"),
        (redis.ReadOnlyError, "Redis is a read-only replica", "name the primary in the ledger's URL"),
        (exceptions.OutOfMemoryError, *_CODES["OOM"]),
        (redis.BusyLoadingError, "Redis is loading its data", "try again"),
        (redis.TimeoutError, "Redis did not answer within {timeout:g} s", None),
        (redis.ConnectionError, "cannot reach Redis", "is the server running, and the ledger's URL right?"),
    ]


@cache
def _source() -> str:
    return resources.files(__package__).joinpath("redis_steps.lua").read_text()


def _zone_of(moment: Moment | None) -> tuple[str, ...]:
    return (moment.zone,) if moment else ()


def _amount(nano: int) -> str:
    if nano > GREATEST_IN_REDIS:
        raise LedgerError(f"an amount exceeds {GREATEST_IN_REDIS:,} nano-dollars, the most that a Redis ledger counts")
    return str(nano)


def _date(ordinal: Any) -> dt.date:
    return dt.date.fromordinal(int(ordinal))


def opened(url: LedgerUrl, options: "LedgerOptions") -> RedisLedger:
    """See `LedgerModule`. Raises `UsageError` when the variable of the password is not set."""
    section = options.redis
    password = os.environ.get(section.password_env) if section.password_env else None
    if section.password_env and not password:
        raise UsageError(f"[redis] password_env names {section.password_env}, which is not set")
    server = RedisServer(
        host=url.host,
        port=url.port,
        database=url.database,
        tls=url.scheme == "rediss",
        username=section.username or None,
        password=password,
        ca_file=section.ca_file or None,
        timeout=section.timeout,
    )
    return RedisLedger(server, RedisPlace(server.url))
