"""The contract of a ledger: SQLite's, that of memory and a plain model agree, whatever happens and however the clock
moves; and each case that is hard to think of, by itself."""

import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger import LEASE, Ledger, Moment, ReservationRow, Use, open_ledger
from batuta_cli.serve.budget.ledger.base import GREATEST, REMEMBERED
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.ledger.redis import GREATEST_IN_REDIS, RedisLedger
from batuta_cli.serve.budget.ledger.redis_place import RedisPlace
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.redis_server import Redis, redis_server
from tests.serve.budget.ledger.support import START, at

HOUR = 3_600_000
DAY = 24 * HOUR
CLIENTS = ("", "ci", "laptop")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made: Ledger
    if request.param == "redis":
        server: Redis = request.getfixturevalue("redis_for_all")
        with closing(server.client()) as client:
            client.flushall()
        made = RedisLedger(server.server, RedisPlace("test", tmp_path), server_clock=False)
    else:
        made = open_ledger("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/ledger")
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        Agreement.server = server
        yield server


def hold(ledger: Ledger, amount: int, time: int = START, *, id: str = "r", limit: int = 1000) -> None:
    accepted, _ = ledger.reserve(at(time), ReservationRow(id, amount, "me", "m", "B"), limit)
    assert accepted


@pytest.mark.parametrize("dispatched", [True, False])
def test_a_reservation_nobody_renews_is_spent_when_it_was_dispatched_and_dropped_otherwise(
    ledger: Ledger, dispatched: bool
) -> None:
    hold(ledger, 60)
    assert ledger.dispatch(at(START), "r") if dispatched else True
    still = ledger.day_status(at(START + LEASE - 1))
    assert (still.spent, still.reserved) == (0, 60)
    gone = ledger.day_status(at(START + LEASE))
    assert (gone.spent, gone.reserved) == (60 if dispatched else 0, 0)
    ledger.reserve(at(START + LEASE), ReservationRow("other", 1, "me"), 1000)
    after = ledger.day_status(at(START + LEASE))
    assert (after.spent, after.reserved) == (60 if dispatched else 0, 1)


@pytest.mark.parametrize("dispatched", [True, False])
@pytest.mark.parametrize("actual", [0, 10, 60, 90])
def test_a_late_settlement_corrects_what_was_charged_once_on_the_day_of_the_reservation(
    ledger: Ledger, dispatched: bool, actual: int
) -> None:
    hold(ledger, 60)
    if dispatched:
        ledger.dispatch(at(START), "r")
    tomorrow = START + DAY
    ledger.reserve(at(tomorrow), ReservationRow("other", 5, "me"), 1000)
    settled = ledger.settle(at(tomorrow), "r", actual, Use("m", "B", 7, 8))
    assert settled is not None and settled.late and settled.day_status.spent == actual
    assert ledger.settle(at(tomorrow), "r", actual, Use()) is None
    assert ledger.day_status(at(tomorrow)).spent == 0
    (line,) = ledger.history(dt.date(2028, 1, 1))
    assert (line.day, line.model, line.requests, line.cost) == (at(START).day, "m", 1, actual)
    assert (line.input_tokens, line.output_tokens) == (7, 8)


def test_a_late_release_takes_back_the_charge_and_the_request(ledger: Ledger) -> None:
    hold(ledger, 60)
    ledger.dispatch(at(START), "r")
    hold(ledger, 1, START + LEASE, id="other")
    assert ledger.settle(at(START + LEASE), "r", 0, Use(), requests=0) is not None
    (line,) = ledger.history(dt.date(2028, 1, 1))
    assert (line.requests, line.cost) == (0, 0)


def test_a_request_cannot_be_dispatched_under_a_reservation_that_has_expired(ledger: Ledger) -> None:
    hold(ledger, 60)
    assert not ledger.dispatch(at(START + LEASE), "r")
    assert not ledger.dispatch(at(START), "never made")


def test_to_dispatch_and_to_renew_begin_the_lease_anew(ledger: Ledger) -> None:
    hold(ledger, 60)
    ledger.dispatch(at(START + 50_000), "r")
    assert ledger.day_status(at(START + 109_999)).reserved == 60
    ledger.renew(at(START + 109_999), "somebody else")
    assert ledger.day_status(at(START + 110_000)).reserved == 0
    ledger.renew(at(START + 109_999), "me")
    assert ledger.day_status(at(START + 169_998)).reserved == 60


def test_what_is_reserved_in_the_evening_does_not_weigh_on_the_next_day(ledger: Ledger) -> None:
    midnight = START + DAY // 2
    hold(ledger, 1000, midnight - 1)
    hold(ledger, 1000, midnight, id="next")
    ledger.settle(at(midnight), "r", 700, Use())
    assert ledger.day_status(at(midnight)).spent == 0
    assert ledger.history(dt.date(2028, 1, 1))[0].day == dt.date(2028, 2, 28)


def test_a_clock_set_back_over_midnight_opens_no_second_budget(ledger: Ledger) -> None:
    ledger.record(at(START + DAY), 900, Use())
    for back in (HOUR, DAY):
        found = ledger.day_status(at(START + DAY - back))
        assert (found.spent, found.day, found.ahead) == (900, at(START + DAY).day, False)
        accepted, _ = ledger.reserve(at(START + DAY - back), ReservationRow("r", 101, "me"), 1000)
        assert not accepted


@pytest.mark.parametrize("days", [2, 7, 3650])
def test_a_ledger_more_than_a_day_ahead_refuses_until_it_is_reset(ledger: Ledger, days: int) -> None:
    ledger.record(at(START), 5, Use("early"))
    future = START + days * DAY
    ledger.record(at(future), 900, Use("late"))
    hold(ledger, 50, future)
    assert ledger.day_status(at(START)).ahead
    with pytest.raises(LedgerError) as refused:
        ledger.reserve(at(START), ReservationRow("r2", 1, "me"), 1000)
    assert str(at(future).day) in refused.value.message and "batuta serve budget reset" in str(refused.value.hint)
    ledger.record(at(START), 3, Use("late"))  # what was paid is noted all the same

    done = ledger.reset(at(START))
    assert (done.forgiven, done.moved) == (908, (at(future).day,))
    found = ledger.day_status(at(START))
    assert (found.spent, found.reserved, found.day, found.ahead) == (0, 50, at(START).day, False)
    assert [(e.day, e.model, e.requests, e.cost) for e in ledger.history(dt.date.min)] == [
        (at(START).day, "early", 1, 5),
        (at(START).day, "late", 2, 903),
    ]
    assert ledger.day_status(at(START + LEASE)).reserved == 0  # and not only when the wrong clock's lease runs out
    ledger.settle(at(START), "r", 20, Use())
    assert ledger.day_status(at(START)).spent == 20


def test_after_a_reset_a_late_settlement_takes_nothing_from_what_was_spent_since(ledger: Ledger) -> None:
    hold(ledger, 60)
    ledger.dispatch(at(START), "r")
    later = START + LEASE
    assert ledger.reset(at(later)).forgiven == 60
    ledger.record(at(later), 30, Use())
    settled = ledger.settle(at(later), "r", 10, Use())
    assert settled is not None and settled.day_status.spent == 30
    assert sum(e.cost for e in ledger.history(dt.date.min)) == 40


def test_after_a_reset_what_a_late_settlement_adds_counts(ledger: Ledger) -> None:
    hold(ledger, 60)
    ledger.dispatch(at(START), "r")
    ledger.reset(at(START + LEASE))
    settled = ledger.settle(at(START + LEASE), "r", 75, Use())
    assert settled is not None and settled.day_status.spent == 15


def test_a_tombstone_is_forgotten_after_a_week(ledger: Ledger) -> None:
    hold(ledger, 60)
    hold(ledger, 1, START + LEASE, id="second")
    hold(ledger, 1, START + LEASE + REMEMBERED + 1, id="third")
    assert ledger.settle(at(START + LEASE + REMEMBERED + 1), "r", 60, Use()) is None


def test_somebody_is_told_to_warn_once_a_day(ledger: Ledger) -> None:
    ledger.record(at(START), 900, Use())
    day = at(START).day
    assert [ledger.warn_once(day) for _ in range(3)] == [True, False, False]
    assert ledger.day_status(at(START)).warned
    assert not ledger.day_status(at(START + DAY)).warned
    ledger.reset(at(START))
    assert not ledger.day_status(at(START)).warned


def test_a_sum_that_no_integer_holds_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    most = GREATEST_IN_REDIS if isinstance(ledger, RedisLedger) else GREATEST
    ledger.record(at(START), most - 9, Use("m"))
    hold(ledger, 5, limit=2**64)
    for attempt in (
        lambda: ledger.record(at(START), 10, Use("m")),
        lambda: ledger.settle(at(START), "r", 10, Use("m")),
    ):
        with pytest.raises(LedgerError, match="exceeds the ledger's largest number"):
            attempt()
    found = ledger.day_status(at(START))
    assert (found.spent, found.reserved) == (most - 9, 5)
    (line,) = ledger.history(dt.date.min)
    assert (line.requests, line.cost) == (1, most - 9)


def held_for(ledger: Ledger, client: str, amount: int, id: str, *, limit: int = 1000, most: int | None = 100) -> bool:
    return ledger.reserve(at(START), ReservationRow(id, amount, "me", "m", "B", client=client), limit, most)[0]


def test_a_clients_limit_and_the_days_are_kept_in_one_step(ledger: Ledger) -> None:
    assert held_for(ledger, "ci", 60, "a")
    assert not held_for(ledger, "ci", 41, "b")  # above the client's
    assert held_for(ledger, "ci", 40, "c")
    assert held_for(ledger, "laptop", 100, "d")
    assert not held_for(ledger, "other", 50, "e", limit=249)  # above the day's
    for client, reserved in (("ci", 100), ("laptop", 100), ("other", 0)):
        found = ledger.day_status(at(START), client)
        assert (found.reserved, found.client_reserved, found.client_spent) == (200, reserved, 0)


def test_a_settlement_counts_for_its_client_on_the_day_of_the_reservation(ledger: Ledger) -> None:
    held_for(ledger, "ci", 60, "a")
    tomorrow = at(START + LEASE // 2)
    ledger.settle(tomorrow, "a", 90, Use("m", "B", 3, 4))
    found = ledger.day_status(at(START), "ci")
    assert (found.client_spent, found.client_reserved) == (90, 0)
    (line,) = ledger.history(dt.date.min)
    assert (line.client, line.cost, line.requests, line.input_tokens) == ("ci", 90, 1, 3)
    assert not held_for(ledger, "ci", 11, "b")
    assert held_for(ledger, "ci", 10, "c")


def test_a_clients_spending_is_forgiven_by_a_reset_and_begins_again_the_next_day(ledger: Ledger) -> None:
    ledger.record(at(START), 100, Use(client="ci"))
    ledger.record(at(START + DAY), 7, Use(client="ci"))
    assert ledger.day_status(at(START + DAY), "ci").client_spent == 7
    ledger.reset(at(START + DAY))
    found = ledger.day_status(at(START + DAY), "ci")
    assert (found.spent, found.client_spent) == (0, 0)
    assert sum(line.cost for line in ledger.history(dt.date.min) if line.client == "ci") == 107


def test_reading_makes_no_file(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/new/ledger")
    assert ledger.day_status(at(START)).spent == 0
    assert ledger.history(dt.date.min) == []
    assert list(tmp_path.iterdir()) == []


@dataclass
class Reserved:
    day: dt.date
    amount: int
    expires: int
    owner: str
    dispatched: bool = False


@dataclass
class Model:
    """The contract, computed from a list of what happened: no running sums."""

    days: set[dt.date] = field(default_factory=set)
    charges: dict[str, tuple[dt.date, int, bool]] = field(default_factory=dict)
    """By id of the request: day, cost, and whether it counts against the budget."""
    clients: dict[str, str] = field(default_factory=dict)
    """By id of the request: for whom it is."""
    holds: dict[str, Reserved] = field(default_factory=dict)
    tombstones: dict[str, tuple[dt.date, int]] = field(default_factory=dict)

    def today(self, now: Moment) -> dt.date:
        return max({now.day} | self.days)

    def ahead(self, now: Moment) -> bool:
        return self.today(now) > now.day + dt.timedelta(days=1)

    def sweep(self, now: Moment) -> None:
        expired = {id: held for id, held in self.holds.items() if held.expires <= now.time}
        for id, held in expired.items():
            del self.holds[id]
            self.tombstones[id] = (held.day, now.time)
            if held.dispatched:
                self.charges[id] = (held.day, held.amount, True)
        if expired:
            self.tombstones = {i: t for i, t in self.tombstones.items() if t[1] >= now.time - REMEMBERED}

    def of_client(self, id: str, client: str | None) -> bool:
        return client is None or self.clients.get(id.removesuffix("+"), "") == client

    def spent(self, day: dt.date, client: str | None) -> int:
        return sum(
            cost for id, (d, cost, counts) in self.charges.items() if d == day and counts and self.of_client(id, client)
        )

    def seen(self, now: Moment, client: str | None = None) -> tuple[dt.date, int, int]:
        """What `day_status` shows of all or of a client, expired reservations as if they were swept."""
        swept = replace(self, holds=dict(self.holds), charges=dict(self.charges), tombstones=dict(self.tombstones))
        swept.sweep(now)
        day = self.today(now)
        holds = {id: held for id, held in swept.holds.items() if held.day == day and self.of_client(id, client)}
        return day, swept.spent(day, client), sum(held.amount for held in holds.values())


class Agreement(RuleBasedStateMachine):
    """All steps at all times; after each, the two ledgers and the model show the same, and the file is balanced."""

    ids = Bundle("ids")
    server: ClassVar[Redis]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.path = f"{self.directory.name}/ledger"
        self.sqlite = SqliteLedger(self.path)
        self.memory = MemoryLedger()
        with closing(self.server.client()) as client:
            client.flushall()
        self.place = RedisPlace("test", Path(self.directory.name))
        self.redis = RedisLedger(self.server.server, self.place, server_clock=False)
        self.model = Model()
        self.time = START
        self.count = 0

    def teardown(self) -> None:
        self.sqlite.close()
        self.redis.close()
        self.directory.cleanup()

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        return self.sqlite, self.memory, self.redis

    @property
    def now(self) -> Moment:
        return at(self.time)

    @initialize(offset=st.integers(0, DAY))
    def begin(self, offset: int) -> None:
        self.time += offset

    @rule(
        step=st.one_of(
            st.integers(0, 2 * LEASE),
            st.sampled_from([HOUR, -HOUR, 10 * HOUR, DAY, -DAY, -2 * DAY, 7 * DAY, -7 * DAY, LEASE, LEASE - 1]),
        )
    )
    def the_clock_moves(self, step: int) -> None:
        self.time += step

    @rule(
        target=ids,
        amount=st.integers(1, 60),
        limit=st.sampled_from([60, 100]),
        owner=st.sampled_from("ab"),
        client=st.sampled_from(CLIENTS),
        client_limit=st.sampled_from([None, 0, 30, 70]),
    )
    def reserve(self, amount: int, limit: int, owner: str, client: str, client_limit: int | None) -> str:
        self.count += 1
        id = f"r{self.count}"
        client_limit = client_limit if client else None
        held = ReservationRow(id, amount, owner, f"model-{amount % 2}", "B", client=client)
        if self.model.ahead(self.now):
            for ledger in self.ledgers:
                with pytest.raises(LedgerError, match="newest day"):
                    ledger.reserve(self.now, held, limit, client_limit)
            return id
        self.model.sweep(self.now)
        day, spent, reserved = self.model.seen(self.now)
        _, client_spent, client_reserved = self.model.seen(self.now, client)
        fits_client = client_limit is None or client_spent + client_reserved + amount <= client_limit
        fits = spent + reserved + amount <= limit and fits_client
        self.model.clients[id] = client
        if fits:
            self.model.holds[id] = Reserved(day, amount, self.time + LEASE, owner)
            self.model.days.add(day)
        for ledger in self.ledgers:
            accepted, day_status = ledger.reserve(self.now, held, limit, client_limit)
            assert accepted == fits
            assert day_status.spent + day_status.reserved <= limit or not fits
            if client:
                now_reserved = client_reserved + (amount if fits else 0)
                assert (day_status.client_spent, day_status.client_reserved) == (client_spent, now_reserved)
        return id

    @rule(id=ids)
    def dispatch(self, id: str) -> None:
        held = self.model.holds.get(id)
        possible = held is not None and held.expires > self.time
        if held is not None and possible:
            held.dispatched, held.expires = True, self.time + LEASE
        assert [ledger.dispatch(self.now, id) for ledger in self.ledgers] == [possible] * 3

    @rule(owner=st.sampled_from("ab"))
    def renew(self, owner: str) -> None:
        for held in self.model.holds.values():
            if held.owner == owner:
                held.expires = self.time + LEASE
        for ledger in self.ledgers:
            ledger.renew(self.now, owner)

    @rule(id=ids, cost=st.integers(0, 90))
    def settle(self, id: str, cost: int) -> None:
        held = self.model.holds.pop(id, None)
        tombstone = self.model.tombstones.pop(id, None)
        if held is not None:
            self.model.charges[id] = (held.day, cost, True)
        elif tombstone is not None:
            _, before, counts = self.model.charges.get(id, (None, 0, True))
            self.model.charges[id] = (tombstone[0], cost, True)
            if not counts:  # forgiven: what is above the old charge counts, and nothing else
                self.model.charges[id] = (tombstone[0], min(cost, before), False)
                self.model.charges[f"{id}+"] = (tombstone[0], max(0, cost - before), True)
        known = held is not None or tombstone is not None
        for ledger in self.ledgers:
            settled = ledger.settle(self.now, id, cost, Use(input_tokens=3, output_tokens=4))
            assert (settled is not None) == known
            assert settled is None or settled.late == (held is None)

    @rule(cost=st.integers(0, 30), client=st.sampled_from(CLIENTS))
    def record(self, cost: int, client: str) -> None:
        self.count += 1
        self.model.clients[f"c{self.count}"] = client
        day = self.model.today(self.now)
        self.model.days.add(day)
        self.model.charges[f"c{self.count}"] = (day, cost, True)
        for ledger in self.ledgers:
            ledger.record(self.now, cost, Use("model-0", "B", 1, 2, client))

    @rule()
    def reset(self) -> None:
        self.model.sweep(self.now)
        day = self.now.day
        later = {d for d in self.model.days if d > day}
        moved = {id: (day if d in later else d, cost, counts) for id, (d, cost, counts) in self.model.charges.items()}
        forgiven = sum(cost for d, cost, counts in moved.values() if d == day and counts)
        self.model.charges = {id: (d, cost, counts and d != day) for id, (d, cost, counts) in moved.items()}
        for held in self.model.holds.values():
            held.day = day if held.day in later else held.day
            held.expires = min(held.expires, self.time + LEASE)
        self.model.tombstones = {
            id: (day if d in later else d, time) for id, (d, time) in self.model.tombstones.items()
        }
        self.model.days = (self.model.days - later) | {day}
        for ledger in self.ledgers:
            assert ledger.reset(self.now).forgiven == forgiven

    @rule()
    def the_process_starts_again(self) -> None:
        self.sqlite.close()
        self.sqlite = SqliteLedger(self.path)
        self.redis.close()
        self.redis = RedisLedger(self.server.server, self.place, server_clock=False)

    @invariant()
    def all_show_the_same(self) -> None:
        for ledger in self.ledgers:
            day_status = ledger.day_status(self.now)
            assert (day_status.day, day_status.spent, day_status.reserved) == self.model.seen(self.now)
            assert day_status.ahead == self.model.ahead(self.now)
            for client in filter(None, CLIENTS):
                found = ledger.day_status(self.now, client)
                assert (found.client_spent, found.client_reserved) == self.model.seen(self.now, client)[1:]
                assert found[:7] == day_status[:7]
        histories = [ledger.history(dt.date.min) for ledger in self.ledgers]
        assert histories[0] == histories[1] == histories[2]
        totals: dict[dt.date, int] = {}
        for day, cost, _ in self.model.charges.values():
            totals[day] = totals.get(day, 0) + cost
        shown: dict[dt.date, int] = {}
        for entry in self.memory.history(dt.date.min):
            shown[entry.day] = shown.get(entry.day, 0) + entry.cost
        assert {d: c for d, c in shown.items() if c} == {d: c for d, c in totals.items() if c}
        for client in CLIENTS:
            paid = sum(cost for id, (_, cost, _) in self.model.charges.items() if self.model.of_client(id, client))
            assert paid == sum(entry.cost for entry in self.memory.history(dt.date.min) if entry.client == client)


Agreement.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgreement = pytest.mark.usefixtures("redis_for_all")(Agreement.TestCase)
