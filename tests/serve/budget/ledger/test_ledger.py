"""A ledger is opened by its URL, and a URL that names none is an error that does not repeat it."""

from pathlib import Path

import pytest

from batuta_cli.errors import UsageError
from batuta_cli.serve.budget.ledger import Use, open_ledger
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.ledger.redis import RedisLedger
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.serve.budget.ledger.support import START, at


def test_the_scheme_of_the_url_is_the_kind_of_the_ledger(tmp_path: Path) -> None:
    assert isinstance(open_ledger("memory:"), MemoryLedger)
    assert isinstance(open_ledger(f"sqlite:///{tmp_path}/ledger"), SqliteLedger)
    assert isinstance(open_ledger("redis://127.0.0.1:9/0"), RedisLedger)  # the first use connects


def test_a_path_is_relative_to_the_directory_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, file in (("sqlite:///one", "one"), (f"sqlite:///{tmp_path}/two", "two")):
        open_ledger(url).record(at(START), 1, Use())
        assert (tmp_path / file).is_file()


def test_the_ledger_without_a_path_is_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    open_ledger("sqlite").record(at(START), 1, Use())
    assert [path.parent.name for path in tmp_path.rglob("*.sqlite3")] == ["batuta"]


@pytest.mark.parametrize("url", ["", "PRIVATE", "postgres://user:PRIVATE@host/db", "sqlite://PRIVATE", "redis://"])
def test_a_url_that_names_no_ledger_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_ledger(url)
    assert "PRIVATE" not in f"{caught.value.message} {caught.value.hint}"
