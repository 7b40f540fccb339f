"""A ledger in a SQLite file, for all threads and processes of one host.

A transaction takes the write lock first, so that the rows it has read are current when it writes. Operations of
several threads share a transaction (`group_writer.py`); a method returns when its transaction is committed. After
`kill -9` the file holds the state of the last transaction. Processes take a file lock (`file_lock.py`) one after the
other; a method that has waited for `patience` seconds raises `LedgerError`.

A forked child opens the file again, because a SQLite connection must not be used after a fork. When the file has been
removed or replaced, the process raises `LedgerError` until it is restarted, because the new file lacks its spending.
"""

import contextlib
import copy
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from batuta_cli import paths
from batuta_cli.config.ledger_url import LedgerUrl
from batuta_cli.errors import LedgerError, OperationError
from batuta_cli.files import display
from batuta_cli.serve.budget.ledger import rules, sqlite_file, sqlite_place
from batuta_cli.serve.budget.ledger.base import Moment, Reset, Rezoned
from batuta_cli.serve.budget.ledger.file_lock import file_lock
from batuta_cli.serve.budget.ledger.group_writer import GroupWriter, Operation, Take
from batuta_cli.serve.budget.ledger.memory import MemoryRows
from batuta_cli.serve.budget.ledger.row_ledger import RowLedger
from batuta_cli.serve.budget.ledger.sqlite_rows import SqliteRows
from batuta_cli.serve.budget.ledger.stored_rows import LedgerRows

if TYPE_CHECKING:
    from batuta_cli.serve.budget.ledger import LedgerOptions

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for other processes. A transaction takes milliseconds, except on a slow disk."""

_INHERITED: list[Any] = []  # connections of the parent process, which a forked child must neither use nor close


class SqliteLedger(RowLedger):
    """See `Ledger`. The first write creates the file."""

    def __init__(self, path: str, *, durability: str = "normal", patience: float = PATIENCE) -> None:
        self.path = path
        self._durability = durability
        self._patience = patience
        self._used: sqlite_place.Identity | None = None
        """The file that this object has opened. No other file is used instead."""
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._writer = GroupWriter(self._run_group, _copy)
        self._connection: sqlite3.Connection | None = None
        self._rows: SqliteRows | None = None
        self._journal: sqlite_place.Identity | None = None
        self._prepared = False
        """The file has its marker and the current version."""

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`."""
        operation = Operation(lambda rows: rules.reset(rows, moment), anew=True)
        self._perform(operation)
        return cast(Reset, operation.result)

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`. Without a file nothing is created: the first use stores the zone."""
        self._begin_in_child()
        with self._exclusively(), self._named_errors():
            if not sqlite_file.exists(self.path):
                self._require_never_kept()
                return Rezoned(zone, None, before=moment.zone)
        return super().rezone(moment, zone)

    def close(self) -> None:
        """See `Ledger`."""
        self._begin_in_child()
        with self._exclusively():
            self._disconnect()

    def write(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`."""
        operation = Operation(body)
        self._perform(operation)
        return cast(T, operation.result)

    def _perform(self, operation: Operation) -> None:
        self._begin_in_child()
        try:
            self._writer.perform(operation, self._patience)
        except TimeoutError:
            raise self._locked() from None

    def _run_group(self, take: Take, wait: bool) -> None:
        """Run the waiting operations in one transaction; see `GroupWriter`."""
        with self._named_errors():
            if not sqlite_file.exists(self.path):
                if self._used is not None:
                    raise sqlite_place.changed(self.path, "removed")
                if not sqlite_place.is_marked(self.path):
                    _make_directory(self.path)
            with file_lock(f"{self.path}.lock", wait=wait):
                operations = take()
                if operations:  # else all callers have given up
                    with self._exclusively():
                        self._run_operations(operations)

    def _run_operations(self, operations: list[Operation]) -> None:
        try:
            self._transact(operations)
        except Exception as error:
            of_the_file = isinstance(error, OSError | LedgerError | sqlite3.OperationalError)
            if of_the_file or len(operations) == 1:
                raise
            self._run_alone(operations)

    def _run_alone(self, operations: list[Operation]) -> None:
        """Run each operation in a separate transaction, so that only the one at fault fails."""
        for operation in operations:
            try:
                with self._named_errors():
                    self._transact([operation])
            except Exception as error:
                operation.error = error

    def _transact(self, operations: list[Operation]) -> None:
        if self._connection is None and not sqlite_file.exists(self.path):
            self._require_never_kept(anew=any(operation.anew for operation in operations))
            sqlite_file.make(self.path)
        connection = self._connected()
        if not self._prepared:
            # Before the first transaction, so that every ledger with spending has its marker.
            sqlite_place.leave_marker(self.path)
            sqlite_file.upgrade(connection)
            self._prepared = True

        def run(rows: SqliteRows) -> None:
            for operation in operations:
                changes = rows.changes
                try:
                    operation.result = operation.body(rows)
                except LedgerError as error:
                    if rows.changes != changes:
                        raise _PartialChangeError from error
                    operation.error = error
            rows.flush()

        try:
            self._transaction(connection, "BEGIN IMMEDIATE", run)
        except BaseException:
            for operation in operations:
                operation.error = None
            raise

    def read(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`."""
        self._begin_in_child()
        with self._exclusively(), self._named_errors():
            there = sqlite_file.exists(self.path)
            if not there:
                self._require_never_kept()
            sqlite_place.require_writable(self.path)
            return self._transaction(self._connected(), "BEGIN", body) if there else body(MemoryRows())

    def _transaction(self, connection: sqlite3.Connection, begin: str, body: Callable[[SqliteRows], T]) -> T:
        rows = self._rows
        if rows is None:
            rows = self._rows = SqliteRows(connection)
        connection.execute(begin)
        try:
            rows.begin()
            result = body(rows)
            connection.execute("COMMIT")
        except BaseException:
            rows.forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if self._journal is None:  # SQLite keeps the journal while a connection that had a transaction is open
            self._journal = sqlite_place.identity(sqlite_place.journal(self.path))
        return result

    def _require_never_kept(self, *, anew: bool = False) -> None:
        if self._used is not None:
            raise sqlite_place.changed(self.path, "removed")
        # Another process may have created the ledger, then the marker, since the file was looked for.
        if not anew and sqlite_place.is_marked(self.path) and not sqlite_file.exists(self.path):
            raise sqlite_place.missing(self.path)

    def _connected(self) -> sqlite3.Connection:
        found = sqlite_place.identity(self.path)
        if self._used is not None and self._used != found:
            raise sqlite_place.changed(self.path, "removed" if found is None else "replaced")
        if self._connection is not None and self._journal is not None:
            journal = sqlite_place.journal(self.path)
            if sqlite_place.identity(journal) != self._journal:
                raise sqlite_place.changed(journal, "removed or replaced")
        if self._connection is None:
            self._connection = sqlite_file.connect(self.path, self._patience, self._durability)
            if sqlite_place.identity(self.path) != found:
                self._disconnect()
                raise sqlite_place.changed(self.path, "replaced")
            self._used = found
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection, self._journal, self._prepared = self._connection, None, None, False
        self._rows = None
        if connection is not None:
            connection.close()

    def _begin_in_child(self) -> None:
        """Give up the parent's connection and thread in a forked child."""
        if self._process != os.getpid():
            _INHERITED.append((self._connection, self._rows))
            self._begin()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Run the block in one thread at a time."""
        if not self._lock.acquire(timeout=self._patience):
            raise self._locked()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            sqlite_place.name_ledger(error, self.path)
            raise
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self.path, self._patience) from error
        except ValueError as error:  # an invalid date
            raise sqlite_file.damaged(self.path, "a row has an invalid value") from error
        except BlockingIOError:  # see `GroupWriter`
            raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise LedgerError(f"{display(self.path)}: cannot be used: {reason}") from error

    def _locked(self) -> LedgerError:
        return sqlite_file.locked(self.path, self._patience)


def _make_directory(path: str) -> None:
    try:
        paths.private_dir(Path(path).parent)
    except OperationError as error:
        raise LedgerError(f"{display(path)}: {error.message}", hint=sqlite_place.HINT) from error


class _PartialChangeError(Exception):
    """An operation failed after it had changed rows, so the transaction must not be committed."""


def _copy(error: BaseException) -> BaseException:
    duplicate = copy.copy(error)
    duplicate.__cause__ = error
    return duplicate


def opened(url: LedgerUrl, options: "LedgerOptions") -> SqliteLedger:
    """See `LedgerModule`."""
    return SqliteLedger(url.path or str(paths.ledger_file()), durability=options.durability)
