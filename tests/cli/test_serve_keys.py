"""`batuta serve keys`: a key is shown once, listed without itself, and revoked."""

import datetime as dt
import re
from pathlib import Path

import pytest

from tests.cli.support import answer, result, shows_no
from tests.conftest import Run


def keys_file(home: Path) -> Path:
    return home / "data" / "batuta" / "gateway" / "keys.toml"


def test_a_key_alone_is_on_stdout_and_never_shown_again(batuta: Run, home: Path) -> None:
    made = batuta("serve", "keys", "create", "laptop", code=0)
    key = made.stdout.rstrip("\n")
    assert re.fullmatch(r"btk_[A-Za-z0-9_-]{43}", key)
    assert "once" in made.stderr
    assert key not in made.stderr
    listed = batuta("serve", "keys", "list", code=0)
    assert re.search(r"^laptop +\d{4}-\S+Z +active", listed.stdout, re.MULTILINE)
    shows_no(
        key, listed, batuta("serve", "keys", "list", "--json", code=0), batuta("serve", "keys", "revoke", "laptop")
    )
    assert key not in keys_file(home).read_text()


def test_no_key_is_made_that_nobody_would_see(batuta: Run, home: Path) -> None:
    refused = batuta("serve", "keys", "create", "ci", "--quiet", code=2)
    assert "--quiet" in refused.stderr and refused.stdout == ""
    assert not keys_file(home).exists()
    assert result(batuta("serve", "keys", "create", "ci", "--quiet", "--json", code=0))["key"].startswith("btk_")


def test_json_has_the_key_when_it_is_made_and_never_after(batuta: Run) -> None:
    made = result(batuta("serve", "keys", "create", "ci", "--json", code=0))
    limits = {"expires", "privacy", "models", "requests_per_minute", "concurrent", "daily_budget_usd"}
    assert set(made) == {"name", "sha256", "created", "revoked", "admin", "key", *limits}
    assert made["key"].startswith("btk_")
    (listed,) = result(batuta("serve", "keys", "list", "--json", code=0))
    assert listed.pop("today")["spent_usd"] == "0.00"
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_a_revoked_key_stays_listed_and_its_name_is_free_again(batuta: Run) -> None:
    batuta("serve", "keys", "create", "ci", code=0)
    again = batuta("serve", "keys", "create", "ci", code=2)
    assert "batuta serve keys revoke ci" in again.stderr
    assert again.stdout == ""
    batuta("serve", "keys", "revoke", "ci", code=0)
    batuta("serve", "keys", "create", "ci", code=0)
    states = [line.split()[2] for line in batuta("serve", "keys", "list", code=0).stdout.splitlines()[1:]]
    assert states == ["revoked", "active"]


def test_an_unknown_key_cannot_be_revoked(batuta: Run) -> None:
    done = batuta("serve", "keys", "revoke", "nobody", "--json", code=1)
    assert answer(done)["error"]["hint"] == "batuta serve keys list"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
def test_a_bad_name_is_refused(batuta: Run, home: Path, name: str) -> None:
    batuta("serve", "keys", "create", name, code=2)
    assert not keys_file(home).exists()


def test_a_damaged_list_is_told_and_left_alone(batuta: Run, home: Path) -> None:
    batuta("serve", "keys", "create", "ci", code=0)
    keys_file(home).write_text("damaged")
    for arguments in (("create", "x"), ("list",), ("revoke", "ci")):
        assert "damaged" in batuta("serve", "keys", *arguments, code=1).stderr
    assert keys_file(home).read_text() == "damaged"


def test_no_keys_are_told_with_the_line_that_makes_one(batuta: Run) -> None:
    done = batuta("serve", "keys", "list", code=0)
    assert done.stdout == ""
    assert "batuta serve keys create" in done.stderr


def test_an_admin_key_is_listed_as_one(batuta: Run) -> None:
    assert result(batuta("serve", "keys", "create", "prometheus", "--admin", "--json", code=0))["admin"] is True
    batuta("serve", "keys", "create", "laptop", code=0)
    rows = [line.split() for line in batuta("serve", "keys", "list", code=0).stdout.splitlines()[1:]]
    assert [(row[0], row[3]) for row in rows] == [("prometheus", "admin"), ("laptop", "models")]


def test_a_key_is_made_and_listed_with_its_limits(batuta: Run, home: Path) -> None:
    limits = ("--privacy", "private", "--models", "qwen*,llama-3*", "--requests-per-minute", "60", "--concurrent", "4")
    made = result(batuta("serve", "keys", "create", "app", *limits, "--expires", "90d", "--json", code=0))
    created, expires = (dt.datetime.fromisoformat(made[name]) for name in ("created", "expires"))
    assert expires - created == dt.timedelta(days=90)
    assert (made["privacy"], made["models"]) == ("private", ["qwen*", "llama-3*"])
    assert (made["requests_per_minute"], made["concurrent"]) == (60, 4)
    listed = batuta("serve", "keys", "list", code=0, env={"COLUMNS": "300"}).stdout
    assert f"until {made['expires']}, private, models qwen* llama-3*, 60 a minute, 4 at a time" in listed


def test_an_expired_key_is_listed_as_expired(batuta: Run, home: Path) -> None:
    batuta("serve", "keys", "create", "old", "--expires", "1h", code=0)
    file = keys_file(home)
    file.write_text(re.sub(r"expires = .*", "expires = 2026-01-01T00:00:00Z", file.read_text()))
    assert batuta("serve", "keys", "list", code=0).stdout.splitlines()[1].split()[2] == "expired"
    done = batuta("serve", "gateway", "--host", "0.0.0.0", code=2)  # noqa: S104 - refused
    assert "no active client key" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--privacy", "secret"),
        ("--models", ""),
        ("--requests-per-minute", "0"),
        ("--concurrent", "-1"),
        ("--expires", "90"),
        ("--daily-budget", "$5"),
    ],
)
def test_a_limit_that_is_wrong_makes_no_key(batuta: Run, home: Path, option: str, value: str) -> None:
    refused = batuta("serve", "keys", "create", "app", option, value, code=2)
    assert refused.stdout == "" and not keys_file(home).exists()


def test_a_daily_budget_is_listed_and_survives_the_list_without_a_ledger(batuta: Run, home: Path) -> None:
    assert result(batuta("serve", "keys", "create", "app", "--daily-budget", "5", "--json", code=0))[
        "daily_budget_usd"
    ] == ("5.00")
    assert "$5.00 a day" in batuta("serve", "keys", "list", code=0, env={"COLUMNS": "300"}).stdout
    ledger = home / "state" / "batuta" / "ledger.sqlite3"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_text("damaged")
    listed = batuta("serve", "keys", "list", "--json", code=0)
    assert "the spending is not known" in listed.stderr
    assert result(listed)[0]["today"] is None
    assert batuta("serve", "budget", "status", "--key", "nobody", code=1).stderr.startswith("error: no client key")
