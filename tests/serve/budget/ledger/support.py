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
