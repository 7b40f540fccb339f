"""Changing config.toml: an edit changes one value and nothing else; the documented file changes nothing."""

import re
import stat
import threading
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.config import Config, load, set_value, set_values, unset
from batuta_cli.config import document as toml
from batuta_cli.config.schema import NAMED, SETTINGS, find, split, variable
from batuta_cli.errors import ConfigError, OutputExistsError
from tests.config.support import NO_ENV, plain, written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batuta" / "config.toml"


# Changing it

WORD = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\x7f"), min_size=1, max_size=20)
NETWORK = st.ip_addresses().map(str) | st.builds(
    lambda a, bits: str(ip_network((a, bits), strict=False)), st.ip_addresses(v=4), st.integers(1, 32)
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "pacha.allow_pacha1": st.booleans(),
    "pacha.default_key": st.just("") | WORD | WORD.map(lambda w: f"{w} {w}"),
    "budget.daily_budget_usd": st.decimals(0, 10**9, places=9).map("{:f}".format) | st.integers(0, 10**9).map(str),
    "budget.max_request_cost_usd": st.decimals(0, 100, places=2).map("{:f}".format),
    "budget.warning_threshold": st.floats(0, 1).map(abs),
    "budget.timezone": st.sampled_from(sorted(available_timezones() | {"UTC"})),
    "budget.ledger": st.sampled_from(["sqlite", "sqlite:////a/b", "sqlite:///a b", "memory:"]),
    "privacy.tier": st.sampled_from(["standard", "private", "sovereign"]),
    "privacy.local_networks": st.lists(NETWORK, max_size=3),
    "privacy.private_networks": st.lists(NETWORK, max_size=3),
    "router.spillover_threshold": st.integers(0, 1_000_000),
    "router.max_queue_depth": st.integers(1, 1_000_000),
    "router.local_backend": st.sampled_from(["", "Realizar", "my-vllm"]),
    "router.spillover_backends": st.lists(WORD, max_size=3),
    "router.spillover_enabled": st.booleans(),
    "budget.reservation_wait": st.integers(0, 60),
    "audit.rotate_bytes": st.integers(65_536, 1 << 40),
    "audit.rotate_hours": st.integers(0, 87_600),
    "audit.keep_bytes": st.integers(0, 1 << 50),
    "audit.keep_days": st.integers(0, 36_500),
    "timeouts.connect": st.floats(0.1, 600).map(lambda s: round(s, 3)),
    "timeouts.first_token": st.integers(1, 86_400),
    "timeouts.idle": st.integers(1, 86_400),
    "timeouts.total": st.integers(1, 604_800),
    "failover.max_retries": st.integers(0, 100),
    "failover.prompted": st.booleans(),
    "failover.cooldown": st.integers(1, 3600),
    "failover.max_cooldown": st.integers(1, 86_400),
    "failover.max_retry_after": st.integers(0, 86_400),
    "network.proxy": st.sampled_from(["", "http://proxy.example:3128"]),
    "redis.username": st.sampled_from(["", "batuta"]),
    "redis.password_env": st.sampled_from(["", "REDIS_PASSWORD"]),
    "redis.ca_file": st.sampled_from(["", "/etc/ssl/redis.pem"]),
    "redis.timeout": st.sampled_from([0.1, 2, 60]),
    "gateway.host": st.sampled_from(["", "127.0.0.1", "::1", "localhost"]),
    "gateway.port": st.integers(0, 65535),
    "gateway.workers": st.integers(1, 64),
    "gateway.origins": st.lists(st.sampled_from(["http://localhost:3000", "https://chat.example"]), max_size=2),
    "gateway.max_body_bytes": st.integers(1024, 1 << 30),
    "gateway.max_bodies_bytes": st.integers(1024, 1 << 40),
    "gateway.max_connections": st.integers(1, 1_000_000),
    "gateway.client_seconds": st.integers(1, 3600),
    "gateway.drain_seconds": st.integers(0, 3600),
    "gateway.key_queue": st.integers(0, 10_000),
    "gateway.key_queue_wait": st.integers(1, 600),
    "gateway.media_hosts": st.lists(st.sampled_from(["images.example.com", "*.example.org"]), max_size=2),
    "budget.allow_unbounded_tools": st.booleans(),
    "budget.unknown_fields": st.sampled_from(["pass", "refuse"]),
    "budget.durability": st.sampled_from(["normal", "full"]),
    "backends.a-b.profile": st.sampled_from(["", "vllm"]),
    "models.llama-3.3/70b:q4.context_window": st.integers(0, 10**9),
    "models.llama-3.3/70b:q4.output_reserve": st.integers(0, 10**9),
    "models.m.input_usd_per_million": st.just("") | st.decimals(0, 10**9, places=9).map("{:f}".format),
    "models.m.output_usd_per_million": st.just("") | st.decimals(0, 100, places=2).map("{:f}".format),
    "models.m.cached_input_usd_per_million": st.just("") | st.decimals(0, 100, places=2).map("{:f}".format),
    "models.m.cache_write_usd_per_million": st.just("") | st.decimals(0, 100, places=2).map("{:f}".format),
    "models.m.cache_write_1h_usd_per_million": st.just("") | st.decimals(0, 100, places=2).map("{:f}".format),
    "models.m.reasoning_usd_per_million": st.just("") | st.decimals(0, 100, places=2).map("{:f}".format),
    "models.a.b.template": st.sampled_from(["", "llama3.1"]),
    "models.a.b.tokenizer": st.sampled_from(["", "/models/a b/tokenizer.json"]),
    "backends.a-b.base_url": st.sampled_from(["", "http://127.0.0.1:8080/v1", "https://x.example/a%20b"]),
    "backends.a-b.models": st.lists(WORD, max_size=3),
    "backends.X_1.api_key_env": st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True),
}
CHANGES = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda key: st.tuples(st.just(key), VALUES[key])), min_size=1, max_size=8
)
BEGINNINGS = st.sampled_from(
    [
        "",
        "# a comment",
        config.documented(),
        config.documented().replace("\n", "\r\n"),
        "[budget]  # money\n  timezone = 'UTC'  # zone\n\n# end\n[pacha]",
        "budget.timezone = 'UTC' # dotted\nbackends = { a-b = { models = ['m'] } }\n",
        'privacy = { tier = "private" }\n[router] # r\n"max_queue_depth" = 0x10\n[backends]\n'
        '[backends."a-b"]\nmodels = [\n "x", # c\n]',
    ]
)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else toml.literal(value)


def test_the_values_below_cover_every_key() -> None:
    known = {(table, name) for table, keys in SETTINGS.items() for name in keys}
    assert {(s.table, s.name) for key in VALUES if (s := find(split(key)))} == known


@settings(deadline=None, max_examples=50)  # each change is flushed to the disk
@given(BEGINNINGS, CHANGES)
def test_what_is_set_is_what_is_got_and_nothing_else_changes(
    tmp_path_factory: pytest.TempPathFactory, beginning: str, changes: list[tuple[str, Any]]
) -> None:
    file = written(tmp_path_factory.getbasetemp() / "round-trip" / "config.toml", beginning)
    expected = {entry.key: entry.text for entry in load(file, NO_ENV).entries()}
    for key, value in changes:
        before = file.read_bytes().decode()
        change = set_value(key, as_text(value), file)
        after = file.read_bytes().decode()
        if not change.comments_lost:
            assert set(re.findall("# [^=\r\n]*(?=[\r\n])", before)) <= set(re.findall("# [^=\r\n]*(?=[\r\n])", after))
        prefix = key.rpartition(".")[0] + "."
        table = key.partition(".")[0]
        if table in NAMED and key not in expected:
            expected |= {prefix + s.name: as_text(s.kind.toml(s.default)) for s in SETTINGS[table].values()}
        expected[key] = change.entry.text
        assert {entry.key: entry.text for entry in load(file, NO_ENV).entries()} == expected
        assert set_value(key, change.entry.text, file).entry == change.entry
        assert load(file, NO_ENV).entry(key) == change.entry
        assert load(file, {variable(split(key)): change.entry.text}).entry(key).value == change.entry.value


@settings(deadline=None, max_examples=50)
@given(BEGINNINGS, CHANGES)
def test_what_is_unset_has_its_default_again_and_nothing_else_changes(
    tmp_path_factory: pytest.TempPathFactory, beginning: str, changes: list[tuple[str, Any]]
) -> None:
    file = written(tmp_path_factory.getbasetemp() / "unset" / "config.toml", beginning)
    for key, value in changes:
        set_value(key, as_text(value), file)
    for key in dict(changes):
        before = {entry.key: entry for entry in load(file, NO_ENV).entries()}
        change = unset(key, file)
        assert change is not None
        after = {entry.key: entry for entry in load(file, NO_ENV).entries()}
        assert after[key].value == change.entry.value
        assert after[key].origin.source == "default"
        assert {k: e.text for k, e in before.items() if k != key} == {k: e.text for k, e in after.items() if k != key}
        assert unset(key, file) is None


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("# top\n[pacha]\ndefault_key = 'a'\n# end\n", "# top\n[pacha]\n# end\n", False),
        ("[pacha]\ndefault_key = 'a' # mine", "[pacha]\n", True),
        ("pacha.default_key = 'a'\n# end\n", "# end\n", False),
        ("# top\npacha = { default_key = 'a', allow_pacha1 = true }\n", "[pacha]\nallow_pacha1 = true\n", True),
    ],
)
def test_a_key_is_taken_out_with_its_line_alone(file: Path, before: str, after: str, lost: bool) -> None:
    change = unset("pacha.default_key", written(file, before))
    assert change is not None
    assert (file.read_text(), change.comments_lost) == (after, lost)


@settings(deadline=None)
@given(st.sampled_from(sorted(VALUES)), st.text())
def test_no_text_raises_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-text" / "config.toml"
    try:
        change = set_value(key, text, file)
    except ConfigError as error:
        assert error.message.startswith(key)
    else:
        assert load(file, NO_ENV).entry(key) == change.entry


@settings(deadline=None)
@given(st.text())
def test_no_key_raises_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    with pytest.raises(ConfigError):
        set_value(key, "1", tmp_path_factory.getbasetemp() / "any-key" / "config.toml")
    with pytest.raises(ConfigError):
        Config().entry(key)


EDITS = [
    ("", "budget.timezone", '[budget]\ntimezone = "UTC"\n'),
    ("# x", "budget.timezone", '# x\n\n[budget]\ntimezone = "UTC"\n'),
    ("[budget]", "budget.timezone", '[budget]\ntimezone = "UTC"\n'),
    ("[budget] # c\n", "budget.timezone", '[budget] # c\ntimezone = "UTC"\n'),
    (
        "[budget]\nledger = 'sqlite' # l\n\n[pacha]\n",
        "budget.timezone",
        "[budget]\nledger = 'sqlite' # l\ntimezone = \"UTC\"\n\n[pacha]\n",
    ),
    (
        "[budget]\n  timezone   =  'Asia/Tokyo'   # here\n",
        "budget.timezone",
        '[budget]\n  timezone   =  "UTC"   # here\n',
    ),
    ("[budget]\n# timezone = 'Asia/Tokyo' # doc\n", "budget.timezone", '[budget]\ntimezone = "UTC" # doc\n'),
    ("[budget]\n# timezone = the zone\n", "budget.timezone", '[budget]\ntimezone = "UTC"\n# timezone = the zone\n'),
    ("[budget]\r\n#timezone='Asia/Tokyo'\r\n", "budget.timezone", '[budget]\r\ntimezone = "UTC"\r\n'),
    (
        "[pacha]\n# timezone = 'x'\n[budget]\n",
        "budget.timezone",
        "[pacha]\n# timezone = 'x'\n[budget]\ntimezone = \"UTC\"\n",
    ),
    ("budget.timezone = 'Asia/Tokyo' # d\n", "budget.timezone", 'budget.timezone = "UTC" # d\n'),
    ("[budget]\ntimezone = '''\nAsia/Tokyo'''\n", "budget.timezone", '[budget]\ntimezone = "UTC"\n'),
    (
        "[backends.a]\n# [backends.b]\n# models = []\n",
        "backends.a.models",
        '[backends.a]\nmodels = ["UTC"]\n# [backends.b]\n# models = []\n',
    ),
]


@pytest.mark.parametrize(("before", "key", "after"), EDITS)
def test_an_edit_changes_one_line_and_keeps_the_rest(file: Path, before: str, key: str, after: str) -> None:
    change = set_value(key, "UTC", written(file, before))
    assert file.read_bytes().decode() == after
    assert not change.comments_lost


@pytest.mark.parametrize("before", ["budget = { ledger = 'sqlite' } # c\n", "budget.ledger = 'sqlite' # c\n"])
def test_a_form_that_cannot_be_edited_is_written_anew_and_the_loss_of_comments_is_told(file: Path, before: str) -> None:
    change = set_value("budget.timezone", "UTC", written(file, before))
    assert change.comments_lost
    assert plain(file.read_text()) == {"budget": plain(before)["budget"] | {"timezone": "UTC"}}
    assert not set_value("budget.timezone", "UTC", written(file, before.replace(" # c", ""))).comments_lost


def test_comments_inside_a_replaced_list_are_told_as_lost(file: Path) -> None:
    written(file, "[privacy]\nlocal_networks = [\n  '10.0.0.0/8', # office\n]\n")
    assert set_value("privacy.local_networks", "", file).comments_lost
    assert file.read_text() == "[privacy]\nlocal_networks = []\n"


@pytest.mark.parametrize("text", ["[budget]\ntimezone = \n", "[budget]\nnope = 1\n", "[router]\nmax_queue_depth = 0\n"])
def test_setting_into_a_file_with_an_error_tells_it_and_changes_nothing(file: Path, text: str) -> None:
    written(file, text)
    with pytest.raises(ConfigError, match=r"config\.toml:2: "):
        set_value("budget.ledger", "sqlite", file)
    assert file.read_text() == text


def test_a_refused_value_changes_nothing(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^router\.max_queue_depth must be"):
        set_value("router.max_queue_depth", "0", file)
    assert not file.parent.exists()


def test_the_file_is_private_and_nothing_is_left_beside_it(file: Path) -> None:
    set_value("budget.timezone", "UTC", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    set_value("budget.timezone", "UTC", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in file.parent.iterdir()) == ["config.lock", "config.toml"]


def test_a_link_stays_a_link_and_its_target_is_changed(file: Path, tmp_path: Path) -> None:
    target = written(tmp_path / "dotfiles" / "batuta.toml", "# mine\n")
    file.parent.mkdir()
    file.symlink_to(target)
    set_value("budget.timezone", "UTC", file)
    assert file.is_symlink()
    assert target.read_text() == '# mine\n\n[budget]\ntimezone = "UTC"\n'


def test_changes_made_at_the_same_time_are_all_kept(file: Path) -> None:
    names = [f"b{n}" for n in range(16)]
    threads = [threading.Thread(target=set_value, args=(f"backends.{n}.models", n, file)) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: b.models for n, b in load(file, NO_ENV).backends.items()} == {n: (n,) for n in names}


def test_set_tells_that_a_variable_hides_the_new_value(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATUTA_BACKENDS_A_B_MODELS", "x")
    assert set_value("backends.a-b.models", "y", file).overridden_by == "BATUTA_BACKENDS_A_B_MODELS"
    assert set_value("budget.timezone", "UTC", file).overridden_by is None


# The documented file


def test_the_documented_file_changes_nothing(file: Path) -> None:
    config.init(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    loaded = load(file, NO_ENV)
    assert loaded == Config()
    assert {str(entry.origin) for entry in loaded.entries()} == {"default"}


def test_the_documented_file_has_every_key_with_its_default_and_its_meaning(file: Path) -> None:
    text = config.documented()
    uncommented = re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)
    loaded = load(written(file, uncommented), NO_ENV)
    assert loaded == Config(
        backends={"llamacpp": config.BackendSection()}, models={"llama-3.3-70b": config.ModelSection()}
    )
    assert {entry.origin.source for entry in loaded.entries()} == {"file"}
    for setting in (s for table in SETTINGS.values() for s in table.values()):
        assert f"# {setting.doc.splitlines()[0]}" in text
    assert max(map(len, text.splitlines())) <= 120


def test_init_replaces_only_when_told_to(file: Path) -> None:
    written(file, "not = [toml")
    with pytest.raises(OutputExistsError) as caught:
        config.init(file)
    assert caught.value.exit_code == 2
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    assert file.read_text() == "not = [toml"
    config.init(file, force=True)
    assert file.read_text() == config.documented()


# Several values at once


def test_several_values_are_written_in_one_step(file: Path) -> None:
    written(file, "# mine\n[budget]\n# the day's\ndaily_budget_usd = 1 # dollars\n")
    values = {"budget.daily_budget_usd": "5", "router.max_queue_depth": "7", "budget.timezone": "UTC"}
    changes = set_values(values, file)
    assert [(change.entry.key, change.comments_lost) for change in changes] == [(key, False) for key in values]
    text = file.read_text()
    assert plain(text) == {"budget": {"daily_budget_usd": "5", "timezone": "UTC"}, "router": {"max_queue_depth": 7}}
    assert text.startswith('# mine\n[budget]\n# the day\'s\ndaily_budget_usd = "5" # dollars\n')
    lines = text.splitlines()
    for change, name in zip(changes, ("daily_budget_usd", "max_queue_depth", "timezone"), strict=True):
        assert change.entry.origin.line is not None and lines[change.entry.origin.line - 1].startswith(name)


@pytest.mark.parametrize("wrong", [{"budget.timezone": "Mars"}, {"budget.timezne": "UTC"}, {"budget": "x"}])
def test_of_several_values_none_is_written_when_one_is_wrong(file: Path, wrong: dict[str, str]) -> None:
    written(file, "[budget]\ndaily_budget_usd = 1\n")
    before = file.read_bytes()
    with pytest.raises(ConfigError):
        set_values({"budget.daily_budget_usd": "5", **wrong}, file)
    assert file.read_bytes() == before
