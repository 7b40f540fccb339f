"""config.toml: what it may say, and what is said of mistakes, there and in the environment."""

from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.config import Config, load
from batuta_cli.errors import ConfigError
from tests.config.support import NO_ENV, written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batuta" / "config.toml"


# What it says


def test_without_a_file_everything_is_the_default(file: Path) -> None:
    loaded = load(file, NO_ENV)
    assert loaded == Config()
    assert loaded.budget.daily_budget_usd == Decimal("10.00")
    assert {str(entry.origin) for entry in loaded.entries()} == {"default"}


def test_a_file_is_read_into_one_value_type_a_table(file: Path) -> None:
    text = """
[pacha]
allow_pacha1 = true
default_key = "alice@example.com"
[budget]
daily_budget_usd = "25.50"
warning_threshold = 1
ledger = "sqlite:////var/lib/batuta/ledger"
[privacy]
tier = "private"
local_networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]
[backends.llamacpp]
base_url = "http://127.0.0.1:8080/v1"
models = ["smollm2-135m"]
[backends.groq]
api_key_env = "GROQ_API_KEY"
[backends.empty]
"""
    loaded = load(written(file, text), NO_ENV)
    assert loaded.pacha == config.PachaSection(allow_pacha1=True, default_key="alice@example.com")
    assert loaded.budget.daily_budget_usd == Decimal("25.50")
    assert loaded.budget.warning_threshold == 1.0
    assert loaded.budget.ledger == "sqlite:////var/lib/batuta/ledger"
    assert loaded.budget.max_request_cost_usd == Decimal("1.00")
    assert loaded.privacy.tier == "private"
    assert loaded.privacy.local_networks == tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.7")))
    assert loaded.backends == {
        "llamacpp": config.BackendSection(base_url="http://127.0.0.1:8080/v1", models=("smollm2-135m",)),
        "groq": config.BackendSection(api_key_env="GROQ_API_KEY"),
        "empty": config.BackendSection(),
    }


def test_a_model_has_a_table_under_its_name_dots_and_all(file: Path) -> None:
    text = '[models."org/llama-3.3-70b:q4"]\ncontext_window = 8192\ninput_usd_per_million = "0"\n[models.empty]\n'
    loaded = load(written(file, text), {"BATUTA_MODELS_ORG_LLAMA_3_3_70B_Q4_TEMPLATE": "llama3.1"})
    assert loaded.models == {
        "org/llama-3.3-70b:q4": config.ModelSection(8192, input_usd_per_million=Decimal(0), template="llama3.1"),
        "empty": config.ModelSection(),
    }
    assert loaded.models["empty"].input_usd_per_million is None
    assert loaded.entry("models.org/llama-3.3-70b:q4.context_window").value == 8192


def test_every_value_knows_its_line_or_its_variable(file: Path) -> None:
    text = (
        '# one\n[budget]\n"timezone" = "UTC"\nledger = """\\\n   sqlite"""\n'
        '[privacy]\nlocal_networks = [\n  "10.0.0.0/8",\n'
        "] # end\n[backends]\ngroq = { models = [] }\n"
    )
    loaded = load(written(file, text), {"BATUTA_BUDGET_LEDGER": "memory:"})
    origins = {entry.key: str(entry.origin) for entry in loaded.entries() if entry.origin.source != "default"}
    assert origins == {
        "budget.timezone": f"{file}:3",
        "budget.ledger": "BATUTA_BUDGET_LEDGER",
        "privacy.local_networks": f"{file}:7",
        "backends.groq.models": f"{file}:11",
    }


MONEY = [
    ("3", "3"),
    ('"0"', "0"),
    ('"0.000000001"', "0.000000001"),
    ("0.1", "0.1"),
    ("1e2", "100"),
    ("-0.0", "0.0"),
    ('"1e-05"', "0.00001"),
    ('"0.0000000001"', "0.000000001"),
    ("1e-10", "0.000000001"),
    ('".5"', "0.5"),
]


@pytest.mark.parametrize(
    ("source", "amount"), [*MONEY, ("1_000_000_000", "1000000000"), ('"1000000000.00"', "1000000000.00")]
)
def test_money_is_exact_however_it_is_written(file: Path, source: str, amount: str) -> None:
    entry = load(written(file, f"[budget]\ndaily_budget_usd = {source}\n"), NO_ENV).entry("budget.daily_budget_usd")
    assert (entry.text, entry.value) == (amount, Decimal(amount))


@pytest.mark.parametrize(
    ("day", "request_", "warned"),
    [("0.50", "1.00", True), ("1", "1.00", False), ("0.999999999", "1", True), ("0", "1", False), ("0", "0", False)],
)
def test_a_request_limit_above_the_daily_budget_is_warned_of(file: Path, day: str, request_: str, warned: bool) -> None:
    text = f'[budget]\ndaily_budget_usd = "{day}"\nmax_request_cost_usd = "{request_}"\n'
    assert bool(load(written(file, text), NO_ENV).warnings) is warned


# What is said of mistakes


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_content_raises_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = written(tmp_path_factory.getbasetemp() / "arbitrary" / "config.toml", content)
    try:
        load(file, NO_ENV)
    except ConfigError as error:
        assert error.message.startswith(str(file))


# The environment


def test_a_variable_overrides_the_file_and_has_the_same_checks(file: Path) -> None:
    written(file, '[budget]\ndaily_budget_usd = "7"\n[backends.my-groq]\nmodels = ["a"]\n[backends.Big]\n')
    environ = {
        "BATUTA_PACHA_ALLOW_PACHA1": "TRUE",
        "BATUTA_BUDGET_DAILY_BUDGET_USD": "5",
        "BATUTA_PRIVACY_LOCAL_NETWORKS": "10.0.0.0/8, fd00::/8",
        "BATUTA_BACKENDS_MY_GROQ_API_KEY_ENV": "GROQ",
        "BATUTA_BACKENDS_MY_GROQ_MODELS": "",
        "BATUTA_BACKENDS_BIG_MODELS": '["a,b"]',
        "BATUTA_BACKENDS_NEW_BASE_URL": "https://new.example",
        "BATUTA_DEBUG": "1",
        "BATUTA_HOME": "elsewhere",
        "BATUTA_BUDGETING": "x",
        "batuta_budget_foo": "x",
    }
    loaded = load(file, environ)
    assert loaded.pacha.allow_pacha1 is True
    assert loaded.budget.daily_budget_usd == 5
    assert loaded.privacy.local_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert loaded.backends == {
        "my-groq": config.BackendSection(api_key_env="GROQ"),
        "Big": config.BackendSection(models=("a,b",)),
        "new": config.BackendSection(base_url="https://new.example"),
    }


def test_an_option_overrides_the_environment_which_overrides_the_file(file: Path) -> None:
    written(file, "[timeouts]\nfirst_token = 10\nidle = 20\nconnect = 0.5\n")
    environ = {"BATUTA_TIMEOUTS_FIRST_TOKEN": "30.5", "BATUTA_TIMEOUTS_IDLE": "40"}
    loaded = load(file, environ, ["timeouts.first_token=300", "backends.groq.api_key_env=GROQ"])
    assert (loaded.timeouts.first_token, loaded.timeouts.idle, loaded.timeouts.connect) == (300, 40, 0.5)
    assert str(loaded.entry("timeouts.first_token").origin) == "option"
    assert loaded.backends["groq"].api_key_env == "GROQ"
    assert (loaded.timeouts.total, loaded.failover.max_retries, loaded.failover.prompted) == (3600, 2, False)
