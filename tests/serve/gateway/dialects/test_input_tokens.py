"""`POST /v1/responses/input_tokens`: the tokens of a request that is only counted."""

from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.support import RESPONSES, Asking, ask, run

COUNT = RESPONSES + "/input_tokens"


def body(**more: Any) -> dict[str, Any]:
    return {"model": "tools", "input": "one two three", "instructions": "Be brief."} | more


def test_input_tokens_are_counted_without_a_response(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        done = await asking.ask(COUNT, body())
        assert (done.status, done.json) == (200, {"object": "response.input_tokens", "input_tokens": 5})
        assert asking.pipeline.requests == []
        assert (asking.log[-1]["route"], asking.log[-1]["input_tokens"]) == (COUNT, 5)

    run(tmp_path, scenario)


@pytest.mark.parametrize(("model", "kind"), [("tools", "exact"), ("echo", "estimate")])
def test_a_header_says_whether_the_count_is_exact(tmp_path: Path, model: str, kind: str) -> None:
    headers = ask(tmp_path, COUNT, body(model=model)).headers
    assert (headers["x-batuta-count"], headers["x-batuta-tier"]) == (kind, "standard")


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found"),
        ({"input": 7}, 400, "invalid_messages"),
        ({"previous_response_id": "resp_1"}, 400, "unsupported_field"),
    ],
)
def test_a_request_that_cannot_be_counted_is_an_error_in_openais_format(
    tmp_path: Path, more: dict[str, Any], status: int, code: str
) -> None:
    done = ask(tmp_path, COUNT, body(**more))
    assert (done.status, done.error["code"]) == (status, code)
    assert ask(tmp_path, COUNT, method="GET").status == 405


def test_a_tier_may_be_tightened_and_not_loosened(tmp_path: Path) -> None:
    done = ask(tmp_path, COUNT, body(), headers={"x-batuta-privacy": "sovereign"})
    assert done.headers["x-batuta-tier"] == "sovereign"
