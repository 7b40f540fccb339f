"""What is said of mistakes in a configuration file, in the environment and in `--set`."""

import re
from pathlib import Path

import pytest

from batuta_cli.config import load, set_value
from batuta_cli.errors import ConfigError
from tests.config.support import NO_ENV, written

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batuta" / "config.toml"


def error_of(file: Path, text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(written(file, text), NO_ENV)
    return caught.value


MISTAKES = [
    ("daily_budget = 1", "1: unknown key daily_budget, did you mean budget.daily_budget_usd?"),
    ("frobnicate = 1", "1: unknown key frobnicate"),
    ("budget = 3", "1: budget must be a table"),
    ("[[budget]]\n", "1: budget must be a table"),
    ("[budgte]\ntimezone = 'UTC'", "1: unknown table budgte, did you mean budget?"),
    ("[server.deep.down]\n", "1: unknown table server"),
    ("[budget]\n\ndaily_budget = 1", "3: unknown key budget.daily_budget, did you mean daily_budget_usd?"),
    ("[budget]\n'a\\n' = 1", "2: unknown key budget.a\\n"),
    ("[budget]\ndaily_budget_usd = '-1'", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = -1", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = 1000000001", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = '$3'", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = '1,000'", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = nan", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = inf", "2: budget.daily_budget_usd must be an amount of US dollars"),
    ("[budget]\ndaily_budget_usd = 1e99999999999999999999", "2: budget.daily_budget_usd must be an amount"),
    ("[budget]\ndaily_budget_usd = true", "thousands separators, not true or false"),
    ("[budget]\nwarning_threshold = 1.01", "2: budget.warning_threshold must be a number from 0 to 1"),
    ("[budget]\nwarning_threshold = -1", "2: budget.warning_threshold must be a number from 0 to 1"),
    ("[budget]\nwarning_threshold = nan", "2: budget.warning_threshold must be a number from 0 to 1"),
    ("[budget]\nwarning_threshold = '0.8'", "must be a number from 0 to 1, not a string"),
    ("[budget]\ntimezone = 'europe/berlin'", "did you mean Europe/Berlin?"),
    ("[budget]\ntimezone = '../../etc/passwd'", "2: budget.timezone must be a time zone this system knows"),
    ("[budget]\ntimezone = 'Europe'", "2: budget.timezone must be a time zone this system knows"),
    (
        "[budget]\ntimezone = 1979-05-27",
        "2: budget.timezone must be a time zone such as UTC or Europe/Berlin, not a date",
    ),
    ("[budget.timezone]\n", "1: budget.timezone must be a time zone such as UTC or Europe/Berlin, not a table"),
    (
        "[budget]\nledger = 'postgres://x'",
        "2: budget.ledger is refused: a ledger URL must be sqlite, sqlite:////absolute",
    ),
    ("[budget]\nledger = 'sqlite://host/x'", "sqlite:// takes no host; use sqlite:////absolute/path"),
    ("[budget]\nledger = 'sqlite:///~/x'", "2: budget.ledger is refused: a ledger URL must not have ~"),
    (
        "[budget]\nledger = 'redis://h:6379/zero'",
        "2: budget.ledger is refused: must be redis://host:6379/0",
    ),
    ("[budget]\nledger = 'redis://:hunter2@h/0'", "a ledger URL must not have a user or a password"),
    ("[pacha]\nallow_pacha1 = 'yes'", "2: pacha.allow_pacha1 must be true or false, not a string"),
    ("[pacha]\nallow_pacha1 = 1", "2: pacha.allow_pacha1 must be true or false, not a whole number"),
    ("[pacha]\ndefault_key = 'a\u200bb'", "2: pacha.default_key must not have invisible characters: a\\u200bb"),
    ("[pacha]\ndefault_key = ' '", "2: pacha.default_key must be an identity"),
    (f"[pacha]\ndefault_key = '{'é' * 101}'", "2: pacha.default_key must be an identity"),
    ("[pacha]\ndefault_key = 'a\\u202e'".replace("'", '"'), "2: pacha.default_key must be one short line of Unicode"),
    (
        "[privacy]\ntier = 'sovereing'",
        "2: privacy.tier must be one of standard, private, sovereign, did you mean sovereign?",
    ),
    ("[privacy]\ntier = 'Private'", "did you mean private?"),
    ("[privacy]\nlocal_networks = '10.0.0.0/8'", "must be a list of networks such as 10.0.0.0/8, not a string"),
    ("[privacy]\nlocal_networks = ['10.0.0.0/8', 'x']", "and its value 2 is not valid"),
    ("[privacy]\nlocal_networks = [1]", "and its value 1 is not valid, not a whole number"),
    ("[privacy]\nlocal_networks = ['10.1.0.0/8']", "the address has host bits, did you mean 10.0.0.0/8?"),
    (
        "[privacy]\nlocal_networks = ['::/0']",
        "2: privacy.local_networks must not have a network of all addresses",
    ),
    ("[privacy]\nprivate_networks = ['0.0.0.0/0']", "must not have a network of all addresses"),
    ("[privacy]\nlocal_networks = ['fe80::1%eth0']", "and its value 1 is not valid"),
    ("[router]\nmax_queue_depth = 0", "2: router.max_queue_depth must be a whole number from 1 to 1000000"),
    ("[router]\nmax_queue_depth = 10.0", "must be a whole number from 1 to 1000000, not a fraction"),
    ("[router]\nmax_queue_depth = true", "must be a whole number from 1 to 1000000, not true or false"),
    ("[timeouts]\nidle = 0", "2: timeouts.idle must be a number of seconds from 1 to 86400"),
    ("[timeouts]\nidle = '60'", "2: timeouts.idle must be a number of seconds from 1 to 86400, not a string"),
    ("[timeouts]\nidle = nan", "2: timeouts.idle must be a number of seconds"),
    ("[timeouts]\nconnect = inf", "2: timeouts.connect must be a number of seconds"),
    ("[timeouts]\nfirst_tokens = 1", "2: unknown key timeouts.first_tokens, did you mean first_token?"),
    ("[failover]\nmax_retries = 101", "2: failover.max_retries must be a whole number from 0 to 100"),
    ("backends = 1", "1: backends must be a table of tables"),
    ("[backends]\nbase_url = 'http://x'", "2: backends.base_url must be a table, one for each backend"),
    ("[backends.'a.b']\n", "1: backends.a.b: a backend's name has letters"),
    ("[backends.x]\nbase_ulr = 'http://x'", "2: unknown key backends.x.base_ulr, did you mean base_url?"),
    ("[backends.x]\nbase_url = 'ftp://x'", "2: backends.x.base_url must be an address"),
    ("[backends.x]\nbase_url = 'http://x/?key=1'", "2: backends.x.base_url must be an address"),
    ("[backends.x]\nbase_url = 'http://[::1'", "2: backends.x.base_url must be an address"),
    ("[backends.x]\nbase_url = 'http://a b'", "2: backends.x.base_url must be an address"),
    ("[backends.x]\nbase_url = 'http://alice@x'", "2: backends.x.base_url must not have a user or a password"),
    ("[backends.x]\nmodels = ['']", "2: backends.x.models must be a list of names"),
    ("[backends.x]\napi_key_env = 'groq'", "2: backends.x.api_key_env must be the name of an environment variable"),
    ("models = 1", "1: models must be a table of tables, one for each model"),
    ("[models]\ntemplate = 'x'", "2: models.template must be a table, one for each model"),
    ("[models.'a b']\n", "1: models.a b: a model's name has letters"),
    ("[models.x]\ncontext_windows = 1", "2: unknown key models.x.context_windows, did you mean context_window?"),
    ("[models.x]\ninput_usd_per_million = '-1'", "2: models.x.input_usd_per_million must be an amount of US dollars"),
    ("[models.x]\ntemplate = ' chatml'", "2: models.x.template must not begin or end with blanks"),
    ("[network]\nproxy = 'http://u:p@x'", "2: network.proxy must not have a user or a password"),
    ("[budget]\ndurability = 'ful'", "2: budget.durability must be one of normal, full, did you mean full?"),
    ("[backends.x]\napi_key = 'v'", "2: backends.x.api_key is a secret"),
    ("[budget]\ntimezone = ", "2: not valid TOML: "),
    ("[budget]\n[budget]\n", "2: not valid TOML: "),
    ("[budget]\ntimezone = '", "2: not valid TOML: "),
    ('[budget]\ntimezone = """', "2: not valid TOML: "),
    ("a = 1\nb = 'x\0'", "2: not valid TOML: found invalid character '\\x00'"),
    ("a = " + "[" * 5000, "nested too deeply"),
    ("a = " + "9" * 5000, "not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[repr(text[:50]) for text, _ in MISTAKES])
def test_a_mistake_is_told_with_file_line_and_what_was_meant(file: Path, text: str, message: str) -> None:
    error = error_of(file, text)
    assert error.exit_code == 2
    assert message in error.message
    if "nested" not in message:
        assert re.match(rf"{re.escape(str(file))}:\d+: ", error.message)
        if message[0].isdigit():
            assert error.message.startswith(f"{file}:{message}")


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_lines(file: Path) -> None:
    error = error_of(file, "[router]\nmax_queue_depth = 0\n[budget]\nx = 1\n[router.y]\n")
    assert [line.split(":")[1] for line in error.message.split("\n")] == ["2", "4", "5"]
    many = error_of(file, "[router]\n" + "".join(f"k{n} = {n}\n" for n in range(25)))
    assert many.message.split("\n")[-1] == "and 15 more"


@pytest.mark.parametrize(
    "template",
    [
        "[backends.groq]\napi_key = '{}'",
        "[backends.groq]\napi_key_env = '{}'",
        "[backends.groq]\nbase_url = '{}'",
        "[backends.groq]\nbase_url = 'http://h/{}'",
        "[backends.groq]\nmodels = ['{}']",
        "[backends.'{}']\nnope = 1",
        "[backends.{}]\nmodels = 1",
        "[budget]\nledger = 'redis://:{}@host'",
        "[budget]\ntimezone = '{}'",
        "[budget]\ndaily_budget_usd = '{}'",
        "[privacy]\ntier = '{}'",
        "[privacy]\nlocal_networks = ['{}']",
        "[pacha]\ndefault_key = '{}'",
        "[pacha]\npassphrase = '{}'",
        "api_key = '{}'",
        "token = '{}'",
        "{} = 1",
        "[{}]",
        "[{0}]\n[{0}]",
        "api_key = {}",
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_never_shown(file: Path, template: str) -> None:
    error = error_of(file, template.format(SECRET))
    assert SECRET not in f"{error} {error.hint}"
    assert "abcdefghij" not in f"{error} {error.hint}"


def test_the_hint_at_a_secret_says_what_to_type_instead(file: Path) -> None:
    error = error_of(file, "[backends.my-groq]\napi_key = 'short'")
    assert error.hint is not None
    assert "batuta config set backends.my-groq.api_key_env MY_GROQ_API_KEY" in error.hint
    set_value("backends.my-groq.api_key_env", "MY_GROQ_API_KEY", written(file, ""))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("timeouts.first_token", "--set takes KEY=VALUE"),
        ("timeouts.first=1", "unknown key timeouts.first, did you mean timeouts.first_token?"),
        ("timeouts.first_token=soon", "--set timeouts.first_token must be a number of seconds"),
        (f"backends.groq.api_key_env={SECRET}", "looks like a secret"),
    ],
)
def test_a_mistake_in_an_option_is_an_error_that_does_not_repeat_the_value(
    file: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, NO_ENV, [override])
    assert message in caught.value.message
    assert SECRET not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BATUTA_BUDGET_DAILY_BUDGET", "1", "unknown key, did you mean BATUTA_BUDGET_DAILY_BUDGET_USD?"),
        ("BATUTA_BUDGET_FOO", "1", "unknown key"),
        ("BATUTA_BUDGET_DAILY_BUDGET_USD", "lots", "budget.daily_budget_usd must be an amount of US dollars"),
        ("BATUTA_BUDGET_DAILY_BUDGET_USD", "", "budget.daily_budget_usd must be an amount of US dollars"),
        ("BATUTA_BUDGET_WARNING_THRESHOLD", "0_5", "budget.warning_threshold must be a number from 0 to 1"),
        ("BATUTA_PACHA_ALLOW_PACHA1", "perhaps", "pacha.allow_pacha1 must be true or false"),
        ("BATUTA_ROUTER_MAX_QUEUE_DEPTH", "9" * 5000, "router.max_queue_depth must be a whole number"),
        ("BATUTA_ROUTER_MAX_QUEUE_DEPTH", "٣", "router.max_queue_depth must be a whole number"),
        ("BATUTA_TIMEOUTS_IDLE", "1e2", "timeouts.idle must be a number of seconds"),
        ("BATUTA_TIMEOUTS_IDLE", "", "timeouts.idle must be a number of seconds"),
        ("BATUTA_FAILOVER_COOLDOWN", "0", "failover.cooldown must be a number of seconds from 0.01"),
        ("BATUTA_BACKENDS_GROQ_MODELS", "[", "backends.groq.models must be names, separated by commas"),
        ("BATUTA_BACKENDS_GROQ_MODELS", "[1.5]", "backends.groq.models must be a list of names"),
        ("BATUTA_BACKENDS_GROQ_MODELS", "[" * 9000, "backends.groq.models must be names, separated by commas"),
        ("BATUTA_BACKENDS_GROQ_API_KEY", SECRET, "unknown key; the configuration must not contain secrets"),
        ("BATUTA_BACKENDS_GROQ_API_KEY_ENV", SECRET, "looks like a secret"),
        ("BATUTA_BACKENDS_MODELS", "a", "unknown key"),
        ("BATUTA_BACKENDS__MODELS", "a", "unknown key"),
        ("BATUTA_PACHA_DEFAULT_KEY", "a\udcff", "must be one short line of Unicode text"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(file: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, {name: value})
    assert caught.value.message.startswith(f"{name}: ")
    assert message in caught.value.message
    assert SECRET not in f"{caught.value} {caught.value.hint}"
