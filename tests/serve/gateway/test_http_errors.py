"""Every error has its status, its code and its body, and tells a client nothing that is the operator's business."""

from pathlib import Path

import pytest

from batuta_cli import errors
from batuta_cli.serve.gateway.http_errors import http_error_for
from tests.serve.gateway.scripted import REFUSALS, SECRET
from tests.serve.gateway.support import CHAT, COMPLETIONS, MESSAGES, Asking, chat, message, run

EXPECTED = {
    "too-expensive": (402, "request_too_expensive", "billing_error", None),
    "over-budget": (402, "budget_exceeded", "billing_error", None),
    "unpriced": (402, "unknown_price", "billing_error", None),
    "private": (403, "privacy", "permission_error", None),
    "queue-full": (429, "queue_full", "rate_limit_error", "3"),
    "overflow": (400, "context_length_exceeded", "invalid_request_error", None),
    "audit": (503, "audit", "overloaded_error", "5"),
    "ledger": (503, "ledger", "overloaded_error", "5"),
    "damaged": (500, "internal_error", "api_error", None),
    "template": (400, "invalid_request", "invalid_request_error", None),
    "backend-500": (502, "backend_error", "api_error", None),
    "backend-429": (429, "backend_busy", "rate_limit_error", "18"),
    "backend-400": (400, "refused_by_backend", "invalid_request_error", None),
    "backend-401": (502, "backend_error", "api_error", None),
    "internal": (500, "internal_error", "api_error", None),
    "panic": (500, "internal_error", "api_error", None),
    "memory": (500, "internal_error", "api_error", None),
    "recursion": (500, "internal_error", "api_error", None),
}


def test_every_scripted_error_is_expected_here() -> None:
    assert set(REFUSALS) == set(EXPECTED) | {"no-backend", "usage"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", EXPECTED)
def test_an_error_before_the_answer_is_a_status(tmp_path: Path, name: str, stream: bool) -> None:
    status, code, kind, retry = EXPECTED[name]

    async def scenario(asking: Asking) -> None:
        for path in (CHAT, COMPLETIONS, MESSAGES):
            done = await asking.ask(path, message(name, prompt="x", stream=stream))
            assert (done.status, done.error["code"], done.error["type"]) == (status, code, kind)
            assert done.headers.get("retry-after") == retry
            assert done.headers["content-type"] == "application/json"
            assert done.complete
            assert SECRET not in done.body.decode() + asking.log_text
            assert "/var/lib" not in done.body.decode()
        assert {line["status"] for line in asking.log} == {status}

    run(tmp_path, scenario)


def test_no_backend_is_503_whoever_lists_models(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        asking.pipeline.known = ()  # type: ignore[assignment]
        done = await asking.ask(CHAT, chat("no-backend"))
        assert (done.status, done.error["code"], done.headers["retry-after"]) == (503, "no_backend", "5")
        done = await asking.ask(CHAT, chat("usage"))
        assert (done.status, done.error["code"]) == (400, "invalid_request")
        asking.pipeline.known = ("no-backend",)  # type: ignore[assignment]
        assert (await asking.ask(CHAT, chat("no-backend"))).status == 503

    run(tmp_path, scenario)


def test_what_went_wrong_inside_is_in_the_log_by_type_and_place_alone(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        await asking.ask(CHAT, chat("internal"))
        await asking.ask(CHAT, chat("ledger"))
        bug, ledger = asking.log
        assert (bug["level"], bug["error"]) == ("error", "RuntimeError")
        assert any("scripted.py" in place for place in bug["at"])
        assert (ledger["error"], ledger["reason"]) == ("ledger", "/var/lib/ledger: locked")

    run(tmp_path, scenario)


def test_the_official_clients_do_not_repeat_what_money_and_privacy_refuse() -> None:
    # They send again after 408, 409, 429 and 5xx.
    kinds = (errors.CostError, errors.RequestTooExpensive, errors.DailyBudgetExceeded, errors.UnknownPriceError)
    for kind in (*kinds, errors.PrivacyError, errors.ContextOverflowError):
        assert http_error_for(kind("x")).status in (400, 402, 403)


OTHER_STATUSES = {errors.ConfigError: 500, errors.MissingDependencyError: 500, errors.ModelNotAllowedError: 403}


def test_a_new_error_of_a_user_is_never_called_internal() -> None:
    for kind in errors.UsageError.__subclasses__():
        expected = OTHER_STATUSES.get(kind, 400)
        assert http_error_for(kind("x")).status == expected
