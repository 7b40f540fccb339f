"""Which ledger the commands use, whether it can be used, and the time zone that its days are counted in."""

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import answer, hints, in_a_shell, names_in, on_a_terminal, result, shows_no
from tests.conftest import Run
from tests.serve.budget.ledger.support import rows
from tests.serve.gateway.live import live

EAST = {"BATUTA_BUDGET_TIMEZONE": "Pacific/Kiritimati"}


@pytest.fixture
def budget(batuta: Run) -> Run:
    """`budget("check", …)`: one of its commands."""

    def run(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        return batuta("serve", "budget", *arguments, **options)

    return run


@pytest.fixture
def ledger_file(home: Path) -> Path:
    return home / "state" / "batuta" / "ledger.sqlite3"


PAID = (("check", "--estimate", "0.5"), ("status",), ("record", "--cost", "0.5"), ("history",))


# Time zones


def test_another_time_zone_is_refused_and_the_error_says_what_to_type(
    budget: Run, environment: dict[str, str], work: Path, home: Path
) -> None:
    budget("set", "--daily-budget", "1", "--timezone", "UTC", code=0)
    budget("record", "--cost", "0.60", code=0)
    for command in PAID:
        found = answer(budget(*command, "--json", env=EAST, code=1))
        assert found["error"]["kind"] == "ledger"
        assert "UTC" in found["error"]["message"] and "Pacific/Kiritimati" in found["error"]["message"]
    refused = budget("check", "--estimate", "0.50", env=EAST, code=1)
    budget("check", "--estimate", "0.50", code=5)
    keep, change = (line.rpartition(": ")[2] for line in hints(refused))
    in_a_shell(change, environment, work)
    assert tomllib.loads((home / "config/batuta/config.toml").read_text())["budget"]["timezone"] == "Pacific/Kiritimati"
    found = result(budget("status", "--json", code=0))
    assert (found["spent_usd"], found["timezone"], found["next_timezone"]) == ("0.60", "UTC", "Pacific/Kiritimati")
    budget("check", "--estimate", "0.50", code=5)  # the day has one budget
    assert "Pacific/Kiritimati after the end of this day" in budget("status", code=0).stderr
    in_a_shell(keep, environment, work)
    found = result(budget("status", "--json", code=0))
    assert (found["timezone"], found["next_timezone"]) == ("UTC", None)


def test_to_change_the_time_zone_says_when_it_takes_effect(budget: Run) -> None:
    budget("record", "--cost", "0.60", code=0)
    done = budget("set", "--timezone", "Asia/Tokyo", code=0)
    assert 'budget.timezone = "Asia/Tokyo"' in done.stdout
    assert "counts today in UTC, and in Asia/Tokyo after today has ended in both time zones" in done.stderr


@pytest.mark.parametrize("wrong", ["a broken file", "another value", "an unknown zone"])
def test_the_time_zone_of_ledger_and_configuration_change_together_or_not(
    budget: Run, home: Path, ledger_file: Path, wrong: str
) -> None:
    budget("record", "--cost", "0.60", code=0)
    arguments = ["--timezone", "Asia/Tokyo"]
    if wrong == "a broken file":
        config = home / "config/batuta/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text("[budget")
    elif wrong == "another value":
        arguments += ["--daily-budget", "-1"]
    else:
        arguments = ["--timezone", "Asia/Tokio"]
    budget("set", *arguments, code=2)
    assert rows(ledger_file, "SELECT name, next FROM zone") == [("UTC", None)]


def test_a_configuration_that_cannot_be_written_leaves_the_ledgers_time_zone(
    budget: Run, home: Path, ledger_file: Path, unprivileged: Callable[[], None]
) -> None:
    budget("set", "--daily-budget", "9", code=0)
    budget("record", "--cost", "0.60", code=0)
    (home / "config/batuta").chmod(0o500)
    budget("set", "--timezone", "Asia/Tokyo", preexec_fn=unprivileged, code=1)
    (home / "config/batuta").chmod(0o700)
    assert rows(ledger_file, "SELECT name, next FROM zone") == [("UTC", None)]
    budget("check", "--estimate", "0.1", code=0)


def test_without_a_ledger_a_time_zone_makes_none(budget: Run, home: Path, ledger_file: Path) -> None:
    budget("set", "--timezone", "Asia/Tokyo", code=0)
    assert not ledger_file.exists()
    budget("record", "--cost", "1", code=0)
    assert rows(ledger_file, "SELECT name FROM zone") == [("Asia/Tokyo",)]


# A ledger that is missing, or could not be written


@pytest.mark.parametrize("how", ["removed", "link to nowhere"])
def test_a_missing_ledger_is_an_error_until_a_new_one_is_begun(
    budget: Run, ledger_file: Path, environment: dict[str, str], work: Path, how: str
) -> None:
    budget("record", "--cost", "9", code=0)
    ledger_file.unlink()
    if how == "link to nowhere":
        ledger_file.symlink_to("nowhere")
    for command in PAID:
        found = answer(budget(*command, "--json", code=1))
        assert found["error"]["kind"] == "ledger" and str(ledger_file) in found["error"]["message"]
    if how == "link to nowhere":
        budget("reset", "--yes", code=1)
        ledger_file.unlink()
    assert "--yes" in budget("reset", code=2).stderr
    budget("check", "--estimate", "0.5", code=1)
    code, shown = on_a_terminal(["serve", "budget", "reset"], environment, work, [("create a new, empty one?", "y")])
    assert code == 0, shown
    budget("check", "--estimate", "0.5", code=0)
    assert result(budget("status", "--json", code=0))["spent_usd"] == "0.00"


def test_the_hint_of_a_missing_ledger_repairs_the_ledger_that_was_named(
    budget: Run, ledger_file: Path, environment: dict[str, str], work: Path
) -> None:
    budget("record", "--cost", "9", code=0)
    url = f"sqlite:///{work}/my ledger"
    budget("record", "--cost", "1", "--ledger", url, code=0)
    (work / "my ledger").unlink()
    (hint,) = hints(budget("check", "--estimate", "1", "--ledger", url, code=1))
    in_a_shell(hint.rpartition("ledger: ")[2] + " --yes", environment, work)
    budget("check", "--estimate", "1", "--ledger", url, code=0)
    assert result(budget("status", "--json", code=0))["spent_usd"] == "9.00"


def test_a_damaged_ledger_is_replaced_by_the_commands_that_the_error_names(
    budget: Run, ledger_file: Path, environment: dict[str, str], work: Path
) -> None:
    budget("record", "--cost", "9", code=0)
    ledger_file.write_bytes(b"garbage" * 1000)
    (hint,) = hints(budget("status", code=1))
    in_a_shell(hint.partition("the spending of this one: ")[2], environment, work)
    budget("check", "--estimate", "0.5", code=0)
    assert "ledger.sqlite3.damaged" in names_in(ledger_file.parent)


@pytest.mark.parametrize("how", ["closed", "no directory", "file"])
def test_check_and_status_fail_where_nothing_could_be_recorded(
    budget: Run, home: Path, unprivileged: Callable[[], None], how: str
) -> None:
    state = home / "state"
    if how == "file":
        state.touch()
    else:
        state.mkdir()
        (state if how == "no directory" else state / "batuta").mkdir(exist_ok=True)
        (state if how == "no directory" else state / "batuta").chmod(0o500)
    for command in PAID:
        found = answer(budget(*command, "--json", preexec_fn=unprivileged, code=1))
        assert found["error"]["kind"] == "ledger" and found["error"]["hint"]
    budget("check", "--estimate", "0", code=0)  # what costs nothing needs no ledger


def test_check_and_status_fail_on_a_full_disk(budget: Run, small_disk: Path) -> None:
    with open(small_disk / "filling", "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(b"x" * 4096)
    for command in PAID:
        done = budget(*command, env={"XDG_STATE_HOME": str(small_disk)}, code=1)
        assert "disk is full" in done.stderr
    (small_disk / "filling").unlink()
    budget("check", "--estimate", "0.5", env={"XDG_STATE_HOME": str(small_disk)}, code=0)


# --ledger, and the configuration


def test_a_ledger_can_be_named_by_option_and_in_the_configuration(budget: Run, batuta: Run, work: Path) -> None:
    (work / "below").mkdir()
    absolute, relative = f"sqlite:///{work}/a.ledger", "sqlite:///below/b.ledger"
    budget("record", "--cost", "1", "--ledger", absolute, code=0)
    budget("record", "--cost", "2", "--ledger", relative, code=0)
    assert {"a.ledger", "below"} <= set(names_in(work)) and "b.ledger" in names_in(work / "below")
    batuta("config", "set", "budget.ledger", absolute, code=0)
    assert result(budget("status", "--json", code=0))["spent_usd"] == "1.00"
    assert result(budget("status", "--json", "--ledger", relative, code=0))["spent_usd"] == "2.00"
    # relative to the current directory
    again = budget("status", "--json", "--ledger", "sqlite:///b.ledger", cwd=work / "below", code=0)
    assert result(again)["spent_usd"] == "2.00"
    assert result(budget("history", "--json", "--ledger", relative, code=0))["total_usd"] == "2.00"
    budget("reset", "--yes", "--ledger", relative, code=0)
    assert result(budget("status", "--json", "--ledger", relative, code=0))["spent_usd"] == "0.00"
    assert result(budget("status", "--json", "--ledger", "sqlite", code=0))["spent_usd"] == "0.00"
    assert result(budget("status", "--json", code=0))["spent_usd"] == "1.00"


COMMANDS = (
    ("budget", "status"),
    ("budget", "check", "--estimate", "1"),
    ("budget", "record", "--cost", "1"),
    ("budget", "history"),
    ("budget", "set", "--timezone", "UTC"),
    ("budget", "reset", "--yes"),
    ("route", "--queue-depth", "1"),
    ("chat", "hello", "--model", "m"),
    ("gateway", "--port", "0"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_accepts_or_repeats_a_url_with_a_password(
    batuta: Run, home: Path, work: Path, command: tuple[str, ...]
) -> None:
    secret = "hunter2-canary"
    for scheme in ("redis", "rediss", "sqlite", "postgresql"):
        url = f"{scheme}://me:{secret}@host:6379/0"
        runs = [batuta("serve", *command, "--ledger", url, *more, code=2) for more in ((), ("--json",))]
        assert "user or a password" in runs[0].stderr
        shows_no(secret, *runs)
    assert names_in(home) == names_in(work) == []


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis://host:6379/zero", "must be redis://host:6379/0"),
        ("sqlite://host/path", "sqlite:// takes no host; use sqlite:////absolute/path"),
        ("sqlite:///~/ledger", "~"),
        ("sqlite:////a?mode=memory", "query"),
        ("mysql://host/x", "sqlite:////absolute/path"),
        ("/tmp/ledger", "sqlite:////absolute/path"),
    ],
)
def test_a_url_that_is_no_ledgers_is_refused_everywhere(
    batuta: Run, budget: Run, home: Path, work: Path, url: str, rule: str
) -> None:
    assert rule in budget("check", "--estimate", "1", "--ledger", url, code=2).stderr
    assert rule in batuta("config", "set", "budget.ledger", url, code=2).stderr
    assert rule in budget("status", env={"BATUTA_BUDGET_LEDGER": url}, code=2).stderr
    shutil.rmtree(home / "config", ignore_errors=True)
    assert names_in(home) == names_in(work) == []


def test_a_ledger_in_memory_is_refused_where_it_would_mean_nothing(batuta: Run, budget: Run) -> None:
    for command in (*PAID, ("reset", "--yes")):
        assert "memory:, which is lost when this command ends" in budget(*command, "--ledger", "memory:", code=2).stderr
    many = batuta("serve", "gateway", "--workers", "2", "--ledger", "memory:", code=2)
    assert "each of the 2 workers" in many.stderr and "--ledger sqlite" in many.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_says_at_its_start_that_paid_requests_are_refused(
    budget: Run, work: Path, environment: dict[str, str], workers: str
) -> None:
    url = f"sqlite:///{work}/ledger"
    budget("record", "--cost", "1", "--ledger", url, code=0)
    with live(environment, "--ledger", url, "--workers", workers) as gateway:
        assert not any("refused" in line for line in gateway.lines)
    with live(environment, "--ledger", url, "--workers", workers, env=EAST) as gateway:
        assert any("requests that cost money are refused" in line and "UTC" in line for line in gateway.lines)
        assert gateway.ask("/health")[0] == 200
    (work / "ledger").unlink()
    with live(environment, "--ledger", url, "--workers", workers) as gateway:
        assert any("requests that cost money are refused" in line and "is missing" in line for line in gateway.lines)
        assert not (work / "ledger").exists()


# Limits that contradict each other


def test_a_request_limit_above_the_daily_budget_is_warned_of(budget: Run, batuta: Run, home: Path) -> None:
    said = "max_request_cost_usd ($1.00) is above daily_budget_usd ($0.50)"
    assert said in budget("set", "--daily-budget", "0.50", code=0).stderr
    for command in (("budget", "status"), ("budget", "check", "--estimate", "0.1"), ("route", "--queue-depth", "1")):
        assert batuta("serve", *command).stderr.count(said) == 1
    assert batuta("config", "show", code=0).stderr.count(said) == 1
    assert budget("set", "--timezone", "UTC", code=0).stderr.count(said) == 1
    assert said not in batuta("config", "set", "budget.max_request_cost_usd", "0.50", code=0).stderr
    assert batuta("config", "unset", "budget.max_request_cost_usd", code=0).stderr.count(said) == 1
    assert "above" not in budget("set", "--daily-budget", "0", code=0).stderr


# Amounts


@pytest.mark.parametrize("amount", ["$1", "1,000", "1.", " 1", "+1", "-0", "nan", "inf", "1_0", "1e999", "0x1", "٣"])
def test_every_option_and_key_refuses_the_same_amounts(batuta: Run, budget: Run, home: Path, amount: str) -> None:
    for command in (
        ("check", f"--estimate={amount}"),
        ("record", f"--cost={amount}"),
        ("set", f"--daily-budget={amount}"),
        ("set", f"--max-request-cost={amount}"),
    ):
        assert "must be an amount of US dollars" in budget(*command, code=2).stderr
    assert "must be an amount of US dollars" in batuta("config", "set", "budget.daily_budget_usd", amount).stderr
    variable = {"BATUTA_BUDGET_MAX_REQUEST_COST_USD": amount}
    assert "must be an amount of US dollars" in budget("status", env=variable, code=2).stderr
    assert not list(home.rglob("*.toml")) and not list(home.rglob("*.sqlite3"))


@pytest.mark.parametrize(
    ("amount", "shown"), [(".5", "0.50"), ("1e-05", "0.00001"), ("0.0000000001", "0.000000001"), ("007.50", "7.50")]
)
def test_every_option_and_key_reads_an_amount_alike(batuta: Run, budget: Run, amount: str, shown: str) -> None:
    assert result(budget("record", "--cost", amount, "--json", code=0))["recorded_usd"] == shown
    budget("set", "--daily-budget", amount, code=0)
    assert result(budget("status", "--json", code=0))["daily_budget_usd"] == shown
