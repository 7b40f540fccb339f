"""`batuta config`, as installed: what is printed where, and with which exit status."""

import json
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]
SECRET = "gsk_abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture
def file(home: Path) -> Path:
    return home / "config" / "batuta" / "config.toml"


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_path_is_printed_whether_it_exists_or_not(batuta: Run, file: Path) -> None:
    assert batuta("config", "path", code=0).stdout == f"{file}\n"
    assert json.loads(batuta("config", "path", "--json").stdout)["result"] == {"path": str(file), "exists": False}
    written(file, "broken = [")
    assert json.loads(batuta("config", "path", "--json").stdout)["result"] == {"path": str(file), "exists": True}
    assert not (file.parent / "config.lock").exists()


def test_init_set_get_show_work_together(batuta: Run, file: Path) -> None:
    assert batuta("config", "init", code=0).stdout == f"wrote {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = batuta("config", "set", "budget.daily_budget_usd", "25.00", code=0)
    assert done.stderr == ""
    assert done.stdout.startswith(f'budget.daily_budget_usd = "25.00"  ({file}:')
    assert batuta("config", "get", "budget.daily_budget_usd", code=0).stdout == "25.00\n"
    batuta("config", "set", "backends.groq.models", "llama-3.3-70b,gemma2-9b", code=0)
    assert batuta("config", "get", "backends.groq.models", code=0).stdout == '["llama-3.3-70b", "gemma2-9b"]\n'
    assert batuta("config", "get", "pacha.allow_pacha1", code=0).stdout == "false\n"
    shown = tomllib.loads(batuta("config", "show", code=0).stdout)
    assert shown["budget"]["daily_budget_usd"] == "25.00"
    assert shown["backends"]["groq"]["models"] == ["llama-3.3-70b", "gemma2-9b"]
    assert "# US dollars that all requests of a day may cost" in file.read_text()


def test_what_show_prints_is_a_configuration(batuta: Run, file: Path) -> None:
    shown = batuta("config", "show", env={"BATUTA_PRIVACY_LOCAL_NETWORKS": "10.0.0.0/8"}, code=0).stdout
    written(file, shown)
    assert batuta("config", "show", code=0).stdout == shown


def test_origin_tells_default_line_and_variable(batuta: Run, file: Path) -> None:
    written(file, '[budget]\ntimezone = "Europe/Berlin"\n')
    env = {"BATUTA_ROUTER_MAX_QUEUE_DEPTH": "7"}
    rows = {
        r[0]: r[1:] for r in map(str.split, batuta("config", "show", "--origin", env=env, code=0).stdout.splitlines())
    }
    assert rows["KEY"] == ["VALUE", "ORIGIN"]
    assert rows["budget.timezone"] == ['"Europe/Berlin"', f"{file}:2"]
    assert rows["router.max_queue_depth"] == ["7", "BATUTA_ROUTER_MAX_QUEUE_DEPTH"]
    assert rows["budget.warning_threshold"] == ["0.8", "default"]


def test_json_is_nested_with_origins_when_asked(batuta: Run, file: Path) -> None:
    written(file, "[backends.a]\nmodels = ['m']\n")
    document = json.loads(batuta("config", "show", "--json", code=0).stdout)
    assert (document["ok"], document["command"], document["error"]) == (True, "config show", None)
    assert document["result"]["budget"]["daily_budget_usd"] == "10.00"
    assert document["result"]["backends"]["a"]["models"] == ["m"]
    result = json.loads(batuta("config", "show", "--json", "--origin", code=0).stdout)["result"]
    assert result["backends"]["a"]["models"] == {
        "value": ["m"],
        "origin": {"source": "file", "file": str(file), "line": 2},
    }
    assert result["budget"]["timezone"] == {"value": "UTC", "origin": {"source": "default"}}


def test_an_unknown_key_is_exit_2_with_the_nearest(batuta: Run) -> None:
    done = batuta("config", "get", "budget.daily_budget", code=2)
    assert done.stdout == ""
    assert "unknown key budget.daily_budget, did you mean budget.daily_budget_usd?" in done.stderr
    assert "did you mean budget.timezone?" in batuta("config", "set", "timezone", "UTC", code=2).stderr
    assert "its keys: spillover_threshold, max_queue_depth" in batuta("config", "get", "router", code=2).stderr
    assert "no backend groq is configured" in batuta("config", "get", "backends.groq.models", code=2).stderr


def test_a_mistake_in_the_file_is_exit_2_for_all_that_read_it(batuta: Run, file: Path) -> None:
    written(file, "[budget]\n\ndaily_budget = 3\n")
    for command in (("show",), ("get", "budget.timezone"), ("set", "budget.timezone", "UTC")):
        done = batuta("config", *command, "--json", code=2)
        error = json.loads(done.stdout)["error"]
        assert error["kind"] == "invalid_config"
        assert error["message"] == f"{file}:3: unknown key budget.daily_budget, did you mean daily_budget_usd?"
    assert file.read_text() == "[budget]\n\ndaily_budget = 3\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("backends.groq.api_key", SECRET),
        ("backends.groq.api_key_env", SECRET),
        ("backends.groq.api_key", "-----BEGIN " + SECRET),
        ("backends.groq.api_key", "=", SECRET),
        ("backends.groq.api_key=" + SECRET, "x"),
        ("backends.groq.models", SECRET),
        ("budget.ledger", f"redis://:{SECRET}@host"),
        ("pacha.password", SECRET),
    ],
)
def test_a_secret_is_refused_and_not_repeated(batuta: Run, file: Path, arguments: tuple[str, ...]) -> None:
    for flags in ((), ("--json",)):
        done = batuta("config", "set", *arguments, *flags, env={"BATUTA_DEBUG": "0"}, code=2)
        assert SECRET not in done.stdout + done.stderr
    assert not file.exists()


def test_the_hint_at_a_secret_is_a_command_that_works(batuta: Run) -> None:
    hint = batuta("config", "set", "backends.groq.api_key", SECRET, code=2).stderr.splitlines()[1]
    command = hint.partition("batuta ")[2].split()
    assert command == ["config", "set", "backends.groq.api_key_env", "GROQ_API_KEY"]
    batuta(*command, code=0)


def test_a_value_may_begin_with_a_dash(batuta: Run) -> None:
    assert "from 1 to 1000000" in batuta("config", "set", "router.max_queue_depth", "-5", code=2).stderr
    batuta("config", "set", "pacha.default_key", "-alice", code=0)
    assert batuta("config", "get", "pacha.default_key").stdout == "-alice\n"


def test_set_warns_of_lost_comments_and_of_a_variable_that_hides_it(batuta: Run, file: Path) -> None:
    written(file, "budget = { ledger = 'sqlite' } # mine\n")
    env = {"BATUTA_BUDGET_TIMEZONE": "UTC"}
    done = batuta("config", "set", "budget.timezone", "Europe/Berlin", env=env, code=0)
    assert "comments of this file were lost" in done.stderr
    assert "BATUTA_BUDGET_TIMEZONE overrides it" in done.stderr
    result = json.loads(batuta("config", "set", "budget.timezone", "UTC", "--json", env=env).stdout)["result"]
    assert (result["comments_lost"], result["overridden_by"]) == (False, "BATUTA_BUDGET_TIMEZONE")


def test_init_refuses_to_overwrite_without_force(batuta: Run, file: Path) -> None:
    written(file, "# mine\n")
    done = batuta("config", "init", "--json", code=2)
    assert json.loads(done.stdout)["error"]["kind"] == "output_exists"
    assert file.read_text() == "# mine\n"
    batuta("config", "init", "--force", code=0)
    batuta("config", "show", code=0)
    assert "# daily_budget_usd" in file.read_text()


def test_a_directory_in_its_place_is_exit_2(batuta: Run, file: Path) -> None:
    file.mkdir(parents=True)
    for command in (("show",), ("set", "budget.timezone", "UTC"), ("init", "--force")):
        assert "is a directory" in batuta("config", *command, code=2).stderr


@pytest.mark.parametrize("command", ["path", "show", "get", "set", "init"])
def test_every_command_has_help_with_examples(batuta: Run, command: str) -> None:
    text = batuta("config", command, "--help", code=0).stdout
    assert f"  $ batuta config {command}" in text


def test_unset_brings_the_default_back(batuta: Run, home: Path) -> None:
    batuta("config", "set", "budget.daily_budget_usd", "25", code=0)
    done = batuta("config", "unset", "budget.daily_budget_usd", code=0)
    assert done.stdout == 'budget.daily_budget_usd = "10.00"  (default)\n'
    assert batuta("config", "get", "budget.daily_budget_usd", code=0).stdout == "10.00\n"
    again = batuta("config", "unset", "budget.daily_budget_usd", code=0)
    assert (again.stdout, "is not set in" in again.stderr) == ("", True)
    assert (
        json.loads(batuta("config", "unset", "pacha.default_key", "--json", code=0).stdout)["result"]["changed"]
        is False
    )
    assert "did you mean budget.timezone?" in batuta("config", "unset", "budget.timezon", code=2).stderr


def test_unset_takes_a_whole_backend_out(batuta: Run, home: Path) -> None:
    file = home / "config" / "batuta" / "config.toml"
    written(file, "# mine\n[backends.y]\nprofile = 'vllm'\n\n[backends.z]\nmodels = ['m'] # keep\n")
    assert batuta("config", "unset", "backends.y", code=0).stdout == "backends.y is removed\n"
    assert file.read_text() == "# mine\n\n[backends.z]\nmodels = ['m'] # keep\n"
    assert "is not in" in batuta("config", "unset", "backends.y", code=0).stderr
    batuta("config", "set", "models.llama-3.3.template", "llama3", code=0)
    batuta("config", "unset", "models.llama-3.3", code=0)
    assert "models" not in json.loads(batuta("config", "show", "--json", code=0).stdout)["result"]


def test_a_misspelt_profile_is_refused_when_it_is_set(batuta: Run, home: Path) -> None:
    done = batuta("config", "set", "backends.y.profile", "vlm", code=2)
    assert "unknown backend vlm, did you mean Vllm?" in done.stderr
    assert not (home / "config" / "batuta" / "config.toml").exists()
