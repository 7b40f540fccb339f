"""`batuta serve budget`: as steps of a script, and as a person reads it."""

import csv
import datetime as dt
import io
import json
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batuta_cli.serve.budget.ledger import Moment, ReservationRow, Use, open_ledger
from tests.cli.support import answer, hints, in_a_shell, names_in, on_a_terminal, result
from tests.conftest import BATUTA, Run
from tests.redis_server import redis_server


@pytest.fixture
def budget(batuta: Run) -> Run:
    """`budget("check", …)`: one of its commands."""

    def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
        return batuta("serve", "budget", *arguments, **options)

    return run


@pytest.fixture
def ledger_file(home: Path) -> Path:
    return home / "state" / "batuta" / "ledger.sqlite3"


def config_file(home: Path) -> Path:
    return home / "config" / "batuta" / "config.toml"


def today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def moment(days: int = 0) -> Moment:
    return Moment(int((dt.datetime.now(dt.UTC).timestamp() + days * 86400) * 1000), today() + dt.timedelta(days))


# status


def test_on_a_fresh_machine_the_whole_budget_is_there_and_nothing_is_made(budget: Run, home: Path) -> None:
    shown = budget("status", code=0)
    assert "$10.00 of $10.00" in shown.stdout and shown.stderr == ""
    budget("check", "--estimate", "1", code=0)
    assert budget("history", code=0).stdout == ""
    assert "no spending today" in budget("reset", code=0).stdout
    assert names_in(home) == []


def test_status_in_json_has_what_scripts_rely_on(budget: Run) -> None:
    budget("record", "--cost", "0.15", code=0)
    found = result(budget("status", "--json", code=0))
    assert (found["spent_usd"], found["reserved_usd"], found["remaining_usd"]) == ("0.15", "0.00", "9.85")
    assert (found["daily_budget_usd"], found["max_request_cost_usd"], found["warning"]) == ("10.00", "1.00", False)
    assert (found["day"], found["timezone"]) == (today().isoformat(), "UTC")
    assert found["resets_at"] == f"{today() + dt.timedelta(days=1)}T00:00:00Z"


def test_status_draws_what_is_spent_reserved_and_left_and_where_the_warning_is(budget: Run, ledger_file: Path) -> None:
    budget("record", "--cost", "5", code=0)
    ledger = open_ledger(f"sqlite:///{ledger_file}")
    ledger.reserve(moment(), ReservationRow("r", 2 * 10**9, "me"), 10**12)
    ledger.close()
    lines = budget("status", code=0).stdout.splitlines()
    assert lines[0] == f"[{'#' * 25}{'=' * 10}{'.' * 5}|{'.' * 10}]  50 %"
    shown = {line[:10].strip(): line[10:].strip() for line in lines[1:]}
    assert (shown["spent"], shown["reserved"], shown["left"]) == ("$5.00", "$2.00", "$3.00 of $10.00")
    assert shown["warning"] == "at $8.00"
    assert str(today() + dt.timedelta(days=1)) in shown["resets at"]


@pytest.mark.parametrize(
    ("limit", "spent", "bar"),
    [
        ("0", "0", f"[{'.' * 50}]  the budget is 0"),
        ("0", "1", f"[{'#' * 50}]  the budget is 0"),
        ("1", "3", f"[{'#' * 40}|{'#' * 10}]  300 %"),
    ],
)
def test_the_bar_stays_within_its_frame(budget: Run, limit: str, spent: str, bar: str) -> None:
    budget("record", "--cost", spent, code=0)
    shown = budget("status", env={"BATUTA_BUDGET_DAILY_BUDGET_USD": limit}, code=0).stdout
    assert shown.splitlines()[0] == bar


def test_the_time_zone_says_when_the_day_ends(budget: Run) -> None:
    found = result(budget("status", "--json", env={"BATUTA_BUDGET_TIMEZONE": "Asia/Tokyo"}, code=0))
    assert found["resets_at"].endswith("T15:00:00Z") and found["timezone"] == "Asia/Tokyo"


# check


@pytest.mark.parametrize(("estimate", "code"), [("0", 0), ("1.00", 0), ("1.000000001", 5), ("0.05", 0), ("1e-3", 0)])
def test_check_says_by_its_exit_code_whether_a_request_may_be_sent(budget: Run, estimate: str, code: int) -> None:
    budget("check", "--estimate", estimate, code=code)


def test_check_is_a_step_in_a_script(budget: Run, environment: dict[str, str], work: Path) -> None:
    in_a_shell("batuta serve budget check --estimate 0.05 --quiet && touch sent", environment, work)
    assert names_in(work) == ["sent"]
    budget("record", "--cost", "9.99", code=0)
    in_a_shell("batuta serve budget check --estimate 0.05 --quiet 2>said || test $? -eq 5", environment, work)
    assert (work / "said").read_text().startswith("error: the request may cost $0.05, and $0.01 is left")
    quiet = budget("check", "--estimate", "0.01", "--quiet", code=0)
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_a_refusal_says_in_json_how_much_is_left(budget: Run) -> None:
    budget("record", "--cost", "9.90", code=0)
    found = answer(budget("check", "--estimate", "0.42", "--json", code=5))
    assert found["error"]["kind"] == "daily_budget_exceeded"
    assert found["result"]["allowed"] is False
    assert (found["result"]["estimate_usd"], found["result"]["remaining_usd"]) == ("0.42", "0.10")
    dear = answer(budget("check", "--estimate", "2", "--json", code=5))
    assert dear["error"]["kind"] == "request_too_expensive"
    fits = result(budget("check", "--estimate", "0.10", "--json", code=0))
    assert (fits["allowed"], fits["remaining_usd"]) == (True, "0.10")


def test_check_works_the_estimate_out_from_tokens(budget: Run) -> None:
    tokens = ("--input-tokens", "1000", "--max-output-tokens", "500")
    found = result(budget("check", "--model", "gpt-4-turbo", *tokens, "--json", code=0))
    assert found["estimate_usd"] == "0.025"  # 1000 × $10 + 500 × $30 per million
    dear = ("--input-tokens", "50000", "--max-output-tokens", "20001")
    assert "$1.10003" in budget("check", "--model", "gpt-4-turbo", *dear, code=5).stderr


def test_a_price_that_is_not_known_is_a_refusal_unless_allowed(budget: Run) -> None:
    request = ("check", "--model", "no-such-model", "--input-tokens", "1", "--max-output-tokens", "1")
    refused = answer(budget(*request, "--json", code=5))
    assert refused["error"]["kind"] == "unknown_price" and refused["result"] == {"allowed": False}
    allowed = budget(*request, "--allow-unpriced", code=0)
    assert "price of no-such-model is not known" in allowed.stderr
    assert budget(*request, "--backend", "ollama", code=0).stderr == ""  # local, so it costs nothing


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--model", "gpt-4", "--input-tokens", "5"),
        ("--input-tokens", "5", "--max-output-tokens", "5"),
        ("--estimate", "1", "--backend", "groq"),
        ("--estimate", "1", "--model", "gpt-4", "--input-tokens", "5", "--max-output-tokens", "5"),
        ("--model", "gpt-4", "--input-tokens", "-5", "--max-output-tokens", "5"),
        ("--model", "gpt-4", "--input-tokens", "1e3", "--max-output-tokens", "5"),
        ("--model", "gpt-4", "--input-tokens", "1", "--max-output-tokens", "1", "--backend", "no-such"),
    ],
)
def test_a_check_that_says_not_what_it_is_about_is_wrong_usage(budget: Run, arguments: tuple[str, ...]) -> None:
    done = budget("check", *arguments, code=2)
    assert hints(done) != [] and done.stdout == ""


@pytest.mark.parametrize("amount", ["-1", "nan", "1000000001", "ten", ""])
def test_an_amount_that_is_none_is_wrong_usage_and_changes_nothing(budget: Run, home: Path, amount: str) -> None:
    for command in (
        ("check", "--estimate", amount),
        ("check", f"--estimate={amount}"),
        ("record", "--cost", amount),
        ("set", "--daily-budget", amount),
    ):
        assert "amount of US dollars" in budget(*command, code=2).stderr
    assert not list(home.rglob("*.toml")) and not list(home.rglob("*.sqlite3"))


# record and history


def test_record_notes_an_amount_or_tokens_and_history_shows_them(budget: Run) -> None:
    budget("record", "--cost", "0.42", "--model", "gpt-4", "--backend", "openai", "--input-tokens", "7", code=0)
    tokens = ("--input-tokens", "1000", "--output-tokens", "100")
    done = budget("record", "--model", "gpt-4", "--backend", "OpenAI", *tokens, code=0)
    assert "recorded $0.036" in done.stdout
    budget("record", "--cost", "0.01", code=0)
    day = today().isoformat()
    shown = [line.split() for line in budget("history", code=0).stdout.splitlines()]
    assert shown == [
        ["DAY", "MODEL", "BACKEND", "REQUESTS", "INPUT", "OUTPUT", "USD"],
        [day, "-", "-", "1", "0", "0", "0.01"],
        [day, "gpt-4", "OpenAI", "2", "1007", "100", "0.456"],
        ["total", "3", "1007", "100", "0.466"],
    ]
    found = result(budget("history", "--json", code=0))
    assert found["total_usd"] == "0.466"
    assert found["entries"][1] == {
        "day": day,
        "model": "gpt-4",
        "backend": "OpenAI",
        "requests": 2,
        "input_tokens": 1007,
        "output_tokens": 100,
        "cost_usd": "0.456",
    }


def test_record_may_exceed_the_budget_and_the_next_check_refuses(budget: Run) -> None:
    budget("record", "--cost", "25", code=0)
    assert result(budget("status", "--json", code=0))["remaining_usd"] == "0.00"
    budget("check", "--estimate", "0.000000001", code=5)
    budget("check", "--estimate", "0", code=0)


def test_the_warning_comes_once_a_day_and_status_keeps_showing_it(budget: Run) -> None:
    assert budget("record", "--cost", "7.99", code=0).stderr == ""
    assert "$8.00 of the day's $10.00 is spent" in budget("record", "--cost", "0.01", code=0).stderr
    assert budget("record", "--cost", "0.01", code=0).stderr == ""
    assert "at $8.00, reached" in budget("status", code=0).stdout
    assert result(budget("status", "--json", code=0))["warning"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--model", "gpt-4"),
        ("--model", "gpt-4", "--input-tokens", "5"),
        ("--input-tokens", "5", "--output-tokens", "5"),
    ],
)
def test_a_record_without_an_amount_is_wrong_usage(budget: Run, home: Path, arguments: tuple[str, ...]) -> None:
    budget("record", *arguments, code=2)
    assert names_in(home) == []


def test_an_unknown_backend_is_refused_with_the_nearest(budget: Run, home: Path) -> None:
    done = budget("record", "--cost", "1", "--backend", "Grok", code=2)
    assert "did you mean Groq?" in done.stderr
    assert names_in(home) == []


def test_history_as_csv_reads_back_whatever_the_names(budget: Run, ledger_file: Path) -> None:
    ledger = open_ledger(f"sqlite:///{ledger_file}")
    names = ['a,"b"', "'=1+1", "ünï cöde", ""]
    ledger.record(moment(-40), 1, Use("old"))
    ledger.record(moment(-1), 10**18, Use("m"))
    for name in names:
        ledger.record(moment(), 15, Use(name, "B", 1, 2))
    ledger.close()
    done = budget("history", "--csv", text=False, code=0)
    lines = list(csv.DictReader(io.StringIO(str(done.stdout, "utf-8"), newline="")))  # type: ignore[call-overload]
    assert {line["model"] for line in lines} == {*names, "m"}
    assert lines[-1]["cost_usd"] == "1000000000.00"
    assert {line["cost_usd"] for line in lines[:-1]} == {"0.000000015"}
    assert len(budget("history", "--days", "41", "--csv", code=0).stdout.splitlines()) == 7
    assert len(budget("history", "--days", "1", "--csv", code=0).stdout.splitlines()) == 5


@pytest.mark.parametrize("days", ["0", "-1", "ten", "100001"])
def test_days_of_history_are_a_whole_number(budget: Run, days: str) -> None:
    budget("history", "--days", days, code=2)


# set


def test_set_writes_the_configuration_and_the_next_command_obeys(budget: Run, home: Path) -> None:
    done = budget("set", "--daily-budget", "5.00", "--max-request-cost", "0.50", "--timezone", "Asia/Tokyo", code=0)
    assert 'budget.daily_budget_usd = "5.00"' in done.stdout
    written = tomllib.loads(config_file(home).read_text())
    assert written == {"budget": {"daily_budget_usd": "5.00", "max_request_cost_usd": "0.50", "timezone": "Asia/Tokyo"}}
    assert config_file(home).stat().st_mode & 0o777 == 0o600
    budget("check", "--estimate", "0.51", code=5)
    assert result(budget("status", "--json", code=0))["daily_budget_usd"] == "5.00"
    budget("set", "--warning-threshold", "0.1", code=0)
    assert "at $0.50" in budget("status", code=0).stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ("--max-request-cost", "-1"),
        ("--timezone", "Europe/Berln"),
        ("--warning-threshold", "1.5"),
        ("--warning-threshold", "nan"),
    ],
)
def test_set_writes_all_or_nothing(budget: Run, home: Path, wrong: tuple[str, str]) -> None:
    budget("set", "--daily-budget", "7", code=0)
    before = config_file(home).read_bytes()
    budget("set", "--daily-budget", "5.00", *wrong, code=2)
    assert config_file(home).read_bytes() == before


def test_set_without_a_limit_says_what_to_type(budget: Run, environment: dict[str, str], work: Path) -> None:
    (line,) = hints(budget("set", code=2))
    in_a_shell(line, environment, work)


def test_set_says_when_a_variable_hides_the_new_limit(budget: Run) -> None:
    done = budget("set", "--daily-budget", "5", env={"BATUTA_BUDGET_DAILY_BUDGET_USD": "9"}, code=0)
    assert "BATUTA_BUDGET_DAILY_BUDGET_USD overrides it" in done.stderr


# reset


def test_reset_asks_and_without_a_terminal_wants_yes(budget: Run) -> None:
    budget("record", "--cost", "9.50", code=0)
    refused = budget("reset", code=2)
    assert "--yes" in refused.stderr
    assert result(budget("status", "--json"))["spent_usd"] == "9.50"
    done = budget("reset", "--yes", "--json", code=0)
    assert result(done) == {"day": today().isoformat(), "forgiven_usd": "9.50", "moved_days": []}
    assert result(budget("status", "--json"))["spent_usd"] == "0.00"
    budget("check", "--estimate", "1", code=0)
    assert result(budget("history", "--json"))["total_usd"] == "9.50"


@pytest.mark.parametrize(("typed", "code", "spent"), [("y", 0, "0.00"), ("n", 1, "9.50"), ("", 1, "9.50")])
def test_reset_obeys_the_answer(
    budget: Run, environment: dict[str, str], work: Path, typed: str, code: int, spent: str
) -> None:
    budget("record", "--cost", "9.50", code=0)
    question = "forgive the $9.50 spent on "
    done, shown = on_a_terminal(["serve", "budget", "reset"], environment, work, [(question, typed)])
    assert done == code, shown
    assert result(budget("status", "--json"))["spent_usd"] == spent


def test_a_ledger_ahead_of_the_clock_is_repaired_by_the_command_that_the_error_names(
    budget: Run, ledger_file: Path, environment: dict[str, str], work: Path
) -> None:
    ledger = open_ledger(f"sqlite:///{ledger_file}")
    ledger.record(moment(400), 5 * 10**9, Use("m"))
    ledger.close()
    refused = budget("check", "--estimate", "0.01", code=1)
    assert str(today()) in refused.stderr
    budget("check", "--estimate", "0", code=0)
    assert "after today by this clock" in budget("status", code=0).stderr
    assert result(budget("status", "--json", code=0))["ledger_ahead"] is True
    command = hints(refused)[0].rpartition(": ")[2]
    in_a_shell(command, environment, work)
    budget("check", "--estimate", "1", code=0)
    assert result(budget("history", "--json", code=0))["entries"][0]["day"] == today().isoformat()


# A ledger that cannot be used.


def broken(path: Path, how: str) -> None:
    if how == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "directory":
        path.unlink()
        path.mkdir()
    else:
        statement = {"newer": "PRAGMA user_version = 9", "unbalanced": "UPDATE day SET spent = 0"}[how]
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)


@pytest.mark.parametrize("how", ["garbage", "empty", "directory", "newer", "unbalanced"])
def test_a_ledger_that_cannot_be_used_is_an_error_and_never_a_pass(budget: Run, ledger_file: Path, how: str) -> None:
    budget("record", "--cost", "9.99", code=0)
    broken(ledger_file, how)
    for command in (
        ("check", "--estimate", "0.01"),
        ("record", "--cost", "1"),
        ("status",),
        ("history",),
        ("reset", "--yes"),
    ):
        found = answer(budget(*command, "--json", code=1))
        assert found["error"]["kind"] == "ledger" and found["error"]["hint"]
        assert str(ledger_file) in found["error"]["message"]


def test_a_ledger_that_cannot_be_written_is_an_error(
    budget: Run, ledger_file: Path, unprivileged: Callable[[], None]
) -> None:
    budget("record", "--cost", "1", code=0)
    ledger_file.chmod(0o400)
    for command in (("check", "--estimate", "0.01"), ("record", "--cost", "1"), ("status",)):
        assert "cannot be written" in budget(*command, code=1, preexec_fn=unprivileged).stderr


def test_on_a_full_disk_nothing_is_noted_and_the_command_fails(budget: Run, small_disk: Path) -> None:
    (small_disk / "filling").write_bytes(b"x" * 100 * 1024)
    done = budget("record", "--cost", "1", env={"XDG_STATE_HOME": str(small_disk)}, code=1)
    assert "disk is full" in done.stderr or "failed" in done.stderr
    (small_disk / "filling").unlink()
    budget("record", "--cost", "2", env={"XDG_STATE_HOME": str(small_disk)}, code=0)
    found = result(budget("status", "--json", env={"XDG_STATE_HOME": str(small_disk)}, code=0))
    assert found["spent_usd"] == "2.00"


def test_a_budget_in_redis_is_shared_by_hosts_and_refused_when_redis_is_away(budget: Run, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        hosts = [
            {"BATUTA_BUDGET_LEDGER": f"redis://127.0.0.1:{server.port}/0", "XDG_STATE_HOME": str(tmp_path / name)}
            for name in "ab"
        ]
        budget("record", "--cost", "7.5", env=hosts[0], code=0)
        assert result(budget("status", "--json", env=hosts[1], code=0))["spent_usd"] == "7.50"
        assert budget("check", "--estimate", "0.9", env=hosts[1], code=0)
        budget("record", "--cost", "2", env=hosts[1], code=0)
        budget("check", "--estimate", "0.9", env=hosts[0], code=5)
        with closing(server.client()) as client:
            client.flushall()
        assert "the ledger that was kept here is gone" in budget("status", env=hosts[0], code=1).stderr
    assert "cannot reach Redis" in budget("status", env=hosts[1], code=1).stderr


# Several at once, and start-up.


def test_what_ten_processes_record_at_once_is_all_there(budget: Run, environment: dict[str, str], work: Path) -> None:
    command = [BATUTA, "serve", "budget", "record", "--cost", "0.01", "--model", "m"]
    children = [subprocess.Popen(command, env=environment, cwd=work, stdout=subprocess.DEVNULL) for _ in range(10)]
    assert [child.wait() for child in children] == [0] * 10
    (entry,) = result(budget("history", "--json", code=0))["entries"]
    assert (entry["requests"], entry["cost_usd"]) == (10, "0.10")


def test_check_loads_nothing_that_it_does_not_use(environment: dict[str, str], work: Path) -> None:
    code = (
        "import sys; from batuta_cli.cli import app; app.run(['serve', 'budget', 'check', '--estimate', '0.05']);"
        "heavy = {'tiktoken', 'jinja2', 'aiohttp', 'rich', 'asyncio', 'cryptography', 'pydantic', 'zoneinfo', 'csv',"
        " 'logging', 'batuta_cli.serve.models.catalogue', 'batuta_cli.serve.backends', 'multiprocessing', 'tomli_w'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=work, capture_output=True, text=True)
    assert (done.stdout.splitlines()[1:], done.stderr) == ([""], "")


def test_every_command_answers_in_json(budget: Run) -> None:
    for command in (
        ("status",),
        ("check", "--estimate", "0.1"),
        ("record", "--cost", "0.1"),
        ("history",),
        ("history", "--csv"),
        ("set", "--daily-budget", "5"),
        ("reset", "--yes"),
    ):
        found = answer(budget(*command, "--json", code=0))
        assert found["command"] == f"serve budget {command[0]}"
        assert isinstance(found["result"], dict) and json.dumps(found["result"])


def test_a_server_of_a_local_kind_at_a_public_address_is_not_free(batuta: Run) -> None:
    batuta("config", "set", "backends.vllm.base_url", "http://203.0.113.5:8000/v1", code=0)
    asked = ("--model", "llama-3.3-70b", "--input-tokens", "9", "--max-output-tokens", "9")
    assert "is not known" in batuta("serve", "budget", "check", "--backend", "vllm", *asked, code=5).stderr
    batuta("config", "set", "backends.vllm.base_url", "http://127.0.0.1:8000/v1", code=0)
    batuta("serve", "budget", "check", "--backend", "vllm", *asked, code=0)
