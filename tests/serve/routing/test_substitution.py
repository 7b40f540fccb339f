"""Which model answers in the place of another one, and for which failures."""

import pytest

from batuta_cli.config import Config
from batuta_cli.errors import (
    BatutaError,
    BudgetReservedError,
    ContextOverflowError,
    DailyBudgetExceeded,
    NoBackendError,
    PrivacyError,
    QueueFullError,
    UsageError,
)
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.routing.substitution import ModelNames, may_fall_back

NAMES = ModelNames(Config(aliases={"a": "b", "b": "c", "real": "other"}, fallbacks={"b": ("b", "x"), "x": ("y",)}))


def test_an_alias_takes_one_step_and_hides_no_model() -> None:
    assert NAMES.resolve("a", ()) == "b"
    assert NAMES.resolve("real", {"real"}) == "real"
    assert NAMES.resolve("unknown", ()) == "unknown"


def test_a_fallback_takes_one_step_and_is_another_model() -> None:
    assert list(NAMES.fallbacks("b")) == ["x"]
    assert list(NAMES.fallbacks("a")) == []


def test_an_alias_is_listed_where_its_model_is() -> None:
    assert NAMES.listed(["b", "real"]) == ["a", "b", "real"]


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (BackendError("down", reached=False), True),
        (BackendError("broke off"), True),
        (BackendError("x", status=404), True),
        (BackendError("x", status=429), True),
        (BackendError("x", status=503), True),
        (NoBackendError("cooling down"), True),
        (QueueFullError("full"), True),
        (BackendError("x", status=400, retryable=False), False),
        (BackendError("x", status=401), False),
        (BackendError("x", status=403), False),
        (PrivacyError("x"), False),
        (DailyBudgetExceeded("x"), False),
        (BudgetReservedError("x"), False),
        (ContextOverflowError("x"), False),
        (UsageError("x"), False),
    ],
)
def test_a_fallback_answers_only_where_the_model_cannot_be_reached(error: BatutaError, may: bool) -> None:
    assert may_fall_back(error) is may
