"""The routes, and the spellings of their paths that are understood."""

from pathlib import Path

import pytest

from batuta_cli.serve.gateway.route_table import find_route
from tests.serve.gateway.support import Asking, chat, message, run

ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/models", "/api/chat", "/api/tags", "/metrics"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_trailing_slash_and_a_missing_or_doubled_v1_are_understood(route: str) -> None:
    plain = route.removeprefix("/v1")
    for path in (route, route + "/", plain, plain + "/", "/v1" + plain, "/v1/v1" + plain, "/v1/v1/v1" + plain + "//"):
        found = find_route(path)
        assert found is not None, path
        assert found[:2] == (route, "")


def test_the_name_of_a_model_may_have_slashes() -> None:
    for path in ("/v1/models/org/model:q4", "/models/org/model:q4/", "/v1/v1/models/org/model:q4"):
        found = find_route(path)
        assert found is not None
        assert found[:2] == ("/v1/models", "org/model:q4")


@pytest.mark.parametrize(
    "path", ["/v2/models", "/v1", "/v1/chat", "/chat/completions/x", "/api", "/v1/modelsx", "/v1v1"]
)
def test_any_other_path_is_unknown(path: str) -> None:
    assert find_route(path) is None


def test_other_spellings_are_served_and_logged_by_the_routes_name(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for path in ("/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/"):
            assert (await asking.ask(path, chat())).json["object"] == "chat.completion"
        assert (await asking.ask("/messages", message())).json["type"] == "message"
        assert (await asking.ask("/models")).json["object"] == "list"
        assert (await asking.ask("/models/org/model:q4")).json["id"] == "org/model:q4"
        assert {line["route"] for line in asking.log} == {"/v1/chat/completions", "/v1/messages", "/v1/models"}

    run(tmp_path, scenario)


def test_an_error_has_the_form_of_the_routes_client_however_it_is_spelled(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        assert (await asking.ask("/v1/api/chat/", b"{")).json == {"error": "the body is not valid JSON in UTF-8"}
        assert (await asking.ask("/messages/", b"{")).json["type"] == "error"
        assert (await asking.ask("/api/nothing")).json == {"error": "there is no such route"}
        assert (await asking.ask("/nothing")).error["code"] == "not_found"
        foreign = await asking.ask("/api/tags", headers={"origin": "http://evil.example"})
        assert (foreign.status, foreign.json) == (403, {"error": "this Origin is not listed in [gateway] origins"})

    run(tmp_path, scenario)


def test_a_route_has_its_methods(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for path, method in (("/api/chat", "GET"), ("/api/tags", "POST"), ("/api/show", "GET"), ("/models", "POST")):
            answer = await asking.ask(path, method=method)
            assert answer.status == 405, path
            assert answer.headers["allow"]

    run(tmp_path, scenario)
