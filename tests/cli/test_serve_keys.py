"""`batuta serve keys`: a key is shown once, listed without itself, and revoked."""

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
    assert set(made) == {"name", "sha256", "created", "revoked", "admin", "key"}
    assert made["key"].startswith("btk_")
    (listed,) = result(batuta("serve", "keys", "list", "--json", code=0))
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
