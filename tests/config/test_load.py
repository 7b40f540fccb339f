"""config.toml: what it may say, and what is said of mistakes, there and in the environment."""

import os
import re
import tomllib
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.config import Config, load, set_value
from batuta_cli.config import document as toml
from batuta_cli.errors import ConfigError, OperationError
from tests.config.support import NO_ENV, written

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batuta" / "config.toml"


def error_of(file: Path, text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(written(file, text), NO_ENV)
    return caught.value


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


def test_what_is_no_text_file_is_a_typed_error(file: Path, tmp_path: Path) -> None:
    assert error_of(file, b"[budget]\n# caf\xe9\n").message == f"{file}:2: not UTF-8 text"
    assert "larger than" in error_of(file, b"#" * (256 * 1024 + 1)).message
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is a FIFO"):
        load(file, NO_ENV)
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, NO_ENV)
    with pytest.raises(OperationError, match="not a directory"):
        load(file / "below", NO_ENV)
    with pytest.raises(ConfigError, match="not a usable file name"):
        load(Path("a\0b"), NO_ENV)


def test_a_file_that_cannot_be_read_is_no_mistake_of_its_content(file: Path) -> None:
    written(file, "").chmod(0)
    privileged = os.geteuid() == 0
    if privileged:  # root reads everything
        os.seteuid(65534)
    try:
        with pytest.raises(OperationError, match="permission denied") as caught:
            load(file, NO_ENV)
    finally:
        if privileged:
            os.seteuid(0)
    assert caught.value.exit_code == 1


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


WORDS = (
    '[ ] [[x]] budget backends .x . timezone models = " \' """ \'\'\' \\ # { } , 1 0.5 nan true "UTC" 12:00:00 é "a"='
)
FRAGMENTS = st.sampled_from([*WORDS.split(), " ", "\t", "\n", "\r\n", "\0"])


@given(st.lists(FRAGMENTS, max_size=40).map("".join))
@example('[budget]\nx = """a""""" # c')
@example("a.'b.c'.\"d\\n\" = [ 1, # ]\n 2 ]\n[[x]]\n[ y . 'z' ]\r\nq = ''''a'''''")
def test_no_arrangement_of_toml_raises_anything_but_a_config_error_and_its_lines_are_found(text: str) -> None:
    try:
        document = toml.parse(text, "config.toml")
    except ConfigError:
        return
    for statement in document.statements:
        assert 1 <= document.line(statement.path) <= text.count("\n") + 1
        if not statement.header:
            tomllib.loads(f"value = {text[statement.value : statement.end]}")


PLAIN = st.recursive(
    st.text() | st.integers(-(2**63), 2**63) | st.booleans() | st.floats(allow_nan=False) | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN), st.booleans())
def test_the_scanner_finds_every_value_that_tomllib_reads(data: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    document = toml.parse(text, "config.toml")
    for statement in document.statements:
        if not statement.header:
            value: Any = document.data
            for part in statement.path:
                if isinstance(value, list):  # an array of tables: which one it is, a path does not say
                    break
                value = value[part]
            else:
                assert tomllib.loads(f"v = {text[statement.value : statement.end]}", parse_float=Decimal)["v"] == value
                assert text.split("\n")[document.line(statement.path) - 1].strip()


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
