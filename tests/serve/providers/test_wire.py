"""The types of all wire formats: what a call withholds, when it may be translated, and what of a piece is content."""

from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, NativeRequest, Piece
from batuta_cli.serve.usage import Usage


def call(api: ClientApi | None) -> Call:
    native = NativeRequest(api=api, document={}, personal=("user",)) if api else None
    return Call(model="m", messages=(), max_tokens=None, stream=False, native=native)


def test_only_the_provider_of_an_api_gets_what_names_a_user() -> None:
    native = call(ClientApi.OPENAI_CHAT).native
    assert native is not None
    assert native.withheld(ServingBackend.OPENAI.profile) == ()
    assert native.withheld(ServingBackend.GROQ.profile) == ("user",)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_the_route_of_the_clients_api_may_have_that_of_its_own(status: int) -> None:
    error = BackendError("not found", status=status)
    assert call(ClientApi.OPENAI_RESPONSES).lacks_route(error, ServingBackend.VLLM.profile)
    assert not call(ClientApi.OPENAI_CHAT).lacks_route(error, ServingBackend.VLLM.profile)  # it is its own
    assert not call(None).lacks_route(error, ServingBackend.VLLM.profile)


@pytest.mark.parametrize("status", [None, 400, 401, 429, 500])
def test_another_failure_says_nothing_of_the_route(status: int | None) -> None:
    error = BackendError("failed", status=status)
    assert not call(ClientApi.OPENAI_RESPONSES).lacks_route(error, ServingBackend.VLLM.profile)


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({}, False),
        ({"finish_reason": "stop", "usage": Usage(1, 2), "raw": Event("", b"{}"), "stop": "x"}, False),
        ({"text": " "}, True),
        ({"delta": {"reasoning_content": "Hm"}}, True),
        ({"embeddings": ([0.5],)}, True),
        ({"opaque": True}, True),
    ],
)
def test_the_end_and_the_usage_are_no_content(fields: dict[str, Any], content: bool) -> None:
    assert Piece(**fields).has_content is content


def test_a_failure_that_says_nothing_else_may_cost_money_and_may_succeed_elsewhere() -> None:
    error = BackendError("failed")
    assert (error.sent, error.retryable, error.redacted, error.exit_code) == (True, True, False, 1)


def test_a_reader_has_not_read_an_end_at_its_beginning() -> None:
    assert (EndingReader().complete, EndingReader().ended) == (False, False)
