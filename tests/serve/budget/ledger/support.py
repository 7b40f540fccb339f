"""What the tests of the SQLite ledger look at the file with: the sqlite3 module, and no code of batuta's."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(path: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(statement, values).fetchall()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
