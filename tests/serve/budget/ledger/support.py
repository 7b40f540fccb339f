"""Moments for the tests of the ledger; and access to a SQLite ledger's file without code of batuta's."""

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from batuta_cli.serve.budget.ledger import Moment

START = int(dt.datetime(2028, 2, 28, 12, tzinfo=dt.UTC).timestamp() * 1000)  # before a leap day


def at(time: int) -> Moment:
    return Moment(time, dt.datetime.fromtimestamp(time / 1000, dt.UTC).date())


def rows(path: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(statement, values).fetchall()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def become_version_2(path: Path) -> None:
    """Turn a ledger into one of version 2, which knew no clients: the tables as that version made them."""
    change(
        path,
        "BEGIN",
        "CREATE TABLE history_2 (day TEXT NOT NULL, model TEXT NOT NULL, backend TEXT NOT NULL,"
        " requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"
        " cost INTEGER NOT NULL, PRIMARY KEY (day, model, backend)) WITHOUT ROWID",
        "INSERT INTO history_2 SELECT day, model, backend, sum(requests), sum(input_tokens), sum(output_tokens),"
        " sum(cost) FROM history GROUP BY day, model, backend",
        "DROP TABLE history",
        "ALTER TABLE history_2 RENAME TO history",
        "ALTER TABLE hold DROP COLUMN client",
        "ALTER TABLE tombstone DROP COLUMN client",
        "DROP TABLE client_day",
        "PRAGMA user_version = 2",
        "COMMIT",
    )
