"""The limits of a key: their ranges, their place in keys.toml, and what the gateway refuses because of them."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import DamagedStateError, InvalidInputError, UsageError
from batuta_cli.serve.gateway import keys
from batuta_cli.serve.gateway.key_limits import KeyLimits, expiry_after, patterns_of
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.support import CHAT, MESSAGES, Asking, ask, chat, message, run

NOW = dt.datetime(2026, 11, 26, 6, tzinfo=dt.UTC)
SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD
ALL = KeyLimits(
    expires=NOW,
    privacy=PRIVATE,
    models=("qwen*", "llama-3*"),
    requests_per_minute=60,
    concurrent=4,
    daily_budget=5 * 10**9 + 1,
)


def made(tmp_path: Path, name: str = "ci", **limits: Any) -> dict[str, str]:
    """The header with a new key of these limits."""
    key, _ = keys.create(name, tmp_path / "keys.toml", limits=KeyLimits(**limits))
    return {"x-api-key": key}


def test_limits_are_kept_beside_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    keys.create("with", path, limits=ALL)
    keys.create("without", path)
    keys.revoke("with", path)
    assert [entry.limits for entry in keys.load(path)] == [ALL, KeyLimits()]


@pytest.mark.parametrize(
    "line",
    [
        "expires = 5",
        "expires = 2026-11-26T06:00:00",
        'privacy = "secret"',
        "privacy = 1",
        'models = "qwen*"',
        "models = [1]",
        'models = [""]',
        "requests_per_minute = 0",
        "requests_per_minute = 1.5",
        "requests_per_minute = true",
        'concurrent = "4"',
        "daily_budget_usd = 5",
        'daily_budget_usd = "-5"',
        "tokens_per_minute = 5",
    ],
)
def test_a_limit_that_cannot_be_read_is_never_taken_for_no_limit(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys.toml"
    keys.create("ci", path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DamagedStateError):
        keys.load(path)


@pytest.mark.parametrize(
    "wrong", [{"concurrent": 0}, {"concurrent": 100_001}, {"requests_per_minute": -1}, {"models": ("a" * 201,)}]
)
def test_a_limit_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        KeyLimits(**wrong)


@pytest.mark.parametrize(("lifetime", "hours"), [("1h", 1), ("90d", 2160), ("4w", 672), ("36500d", 876_000)])
def test_a_lifetime_is_hours_days_or_weeks(lifetime: str, hours: int) -> None:
    assert expiry_after(lifetime, NOW) == NOW + dt.timedelta(hours=hours)


@pytest.mark.parametrize("lifetime", ["", "90", "0d", "-1d", "1.5d", "90 d", "36501d", "99999w", "tomorrow"])
def test_any_other_lifetime_is_refused(lifetime: str) -> None:
    with pytest.raises(UsageError):
        expiry_after(lifetime, NOW)


def test_patterns_are_given_apart_or_with_commas() -> None:
    assert patterns_of(["qwen*, llama-3*", "gpt-4o"]) == ("qwen*", "llama-3*", "gpt-4o")


def test_a_key_is_refused_from_the_second_on_in_which_it_expires() -> None:
    limits = KeyLimits(expires=NOW)
    assert [limits.expired(NOW + dt.timedelta(seconds=s)) for s in (-1, 0, 1)] == [False, True, True]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/models", "/metrics"])
def test_an_expired_key_is_refused_in_words_everywhere(tmp_path: Path, path: str) -> None:
    header = made(tmp_path, expires=keys.now() - dt.timedelta(days=1))
    body = message() if path in (CHAT, MESSAGES) else None
    done = ask(tmp_path, path, body, headers=header)
    assert (done.status, done.error["code"]) == (401, "expired_key")
    assert "the client key expired at 20" in done.error["message"]
    fresh = made(tmp_path, "fresh", expires=keys.now() + dt.timedelta(days=1))
    assert ask(tmp_path, path, body, headers=fresh).status == 200


@pytest.mark.parametrize(
    ("configured", "of_key", "header", "expected"),
    [
        (STANDARD, PRIVATE, None, PRIVATE),
        (PRIVATE, STANDARD, None, PRIVATE),
        (SOVEREIGN, PRIVATE, None, SOVEREIGN),
        (STANDARD, None, None, STANDARD),
        (STANDARD, PRIVATE, SOVEREIGN, SOVEREIGN),
        (STANDARD, PRIVATE, PRIVATE, PRIVATE),
        (STANDARD, PRIVATE, STANDARD, None),
        (PRIVATE, SOVEREIGN, PRIVATE, None),
        (PRIVATE, STANDARD, STANDARD, None),
    ],
)
def test_the_strictest_of_key_header_and_configuration_holds(
    tmp_path: Path, configured: PrivacyTier, of_key: PrivacyTier | None, header: PrivacyTier | None,
    expected: PrivacyTier | None,
) -> None:  # fmt: skip
    async def scenario(asking: Asking) -> None:
        headers = made(tmp_path, privacy=of_key) | ({"x-batuta-privacy": str(header)} if header else {})
        for path in (CHAT, MESSAGES, "/v1/messages/count_tokens"):
            done = await asking.ask(path, message(), headers=headers)
            if expected is None:
                assert (done.status, done.error["code"]) == (403, "privacy")
            else:
                assert (done.status, done.headers["x-batuta-tier"]) == (200, str(expected))
        assert {request.privacy for request in asking.pipeline.requests} <= {expected}

    run(tmp_path, scenario, GatewaySettings(privacy=configured))


def test_a_key_sees_its_models_only(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header = made(tmp_path, models=("to*", "org/*"))
        listed = (await asking.ask("/v1/models", headers=header)).json["data"]
        assert [model["id"] for model in listed] == ["tools", "org/model:q4"]
        tags = (await asking.ask("/api/tags", headers=header)).json["models"]
        assert [model["name"] for model in tags] == ["tools", "org/model:q4"]
        assert (await asking.ask("/v1/models/tools", headers=header)).status == 200
        assert (await asking.ask("/v1/models/echo", headers=header)).status == 404
        assert (await asking.ask("/api/show", {"model": "tools"}, headers=header)).status == 200
        hidden = await asking.ask("/api/show", {"model": "ech"}, headers=header)
        assert hidden.status == 404
        assert "echo" not in hidden.body.decode()  # no suggestion of a model that the key may not see

    run(tmp_path, scenario)


@pytest.mark.parametrize("model", ["echo", "no-such-model"])
def test_another_model_is_403_whether_or_not_it_exists(tmp_path: Path, model: str) -> None:
    header = made(tmp_path, models=("tools", "missing-*"))
    done = ask(tmp_path, CHAT, chat(model), headers=header)
    assert (done.status, done.error["code"]) == (403, "model_not_allowed")
    assert "this key may not use this model" in done.error["message"]
    assert ask(tmp_path, CHAT, chat("tools"), headers=header).status == 200
    assert ask(tmp_path, CHAT, chat("missing-1"), headers=header).status == 404


def test_a_name_that_no_backend_has_is_not_corrected_to_a_model_that_the_key_may_not_use(tmp_path: Path) -> None:
    done = ask(tmp_path, CHAT, chat("tool"), headers=made(tmp_path, models=("tool",)))
    assert done.status == 404 and "tools" not in done.body.decode()
