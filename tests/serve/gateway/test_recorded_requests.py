"""Requests that agents have sent (tests/data), to a gateway before a server that speaks chat completions alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.real.support_script import GREETING, converse
from tests.serve.gateway.live import ROOT
from tests.serve.gateway.support_backends import asked
from tests.serve.support_backend import FaultServer

ZEROS = "00000000-0000-4000-8000-000000000000"
"""Every identifier of a user, a device or a conversation in the recordings."""

RECORDED = {
    f"{file.stem} {number}": request
    for file in sorted((ROOT / "tests/data").glob("*.json"))
    for number, request in enumerate(json.loads(file.read_text()))
}

DROPPED = {
    "claude_code_2.1.197 0": "metadata",
    "claude_code_2.1.197 1": "cache_control, context_management, metadata, thinking",
    "codex_0.169.0 0": "client_metadata, prompt_cache_key, tools.web_search",
    "codex_0.169.0 1": "client_metadata, prompt_cache_key, tools.web_search",
}
"""What the server does not get, and the client is told of."""


def tools(body: Any) -> list[str]:
    """The names of the tools that a client declares, those in a namespace too, without those that a service runs."""
    return [
        name
        for tool in body.get("tools", ())
        for name in (
            [f"{tool['name']}__{inner['name']}" for inner in tool["tools"]]
            if tool.get("type") == "namespace"
            else [tool.get("name") or tool["type"]]
        )
        if name != "web_search"
    ]


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("tier", ["sovereign", "standard"])
def test_a_recorded_request_is_answered_with_all_its_tools_and_without_what_names_its_user(
    name: str, tier: str, tmp_path: Path
) -> None:
    recorded = RECORDED[name]
    path, body = recorded["path"].partition("?")[0], recorded["body"]
    assert ZEROS in json.dumps(body)
    with FaultServer(converse) as server:
        done = asked(tmp_path, "generic", server, path, body, tier=tier, headers=recorded["headers"])
        (sent,) = [sent for _, _, sent in server.requests if sent]
    assert done.status == 200, done.body
    assert GREETING.split()[0] in done.body.decode()
    assert done.headers["x-batuta-dropped"] == DROPPED[name]
    assert ZEROS not in json.dumps(sent)
    assert [tool["function"]["name"] for tool in sent.get("tools", ())] == tools(body)
    assert sent["stream"] is True
    assert sent["messages"][-1]["content"]
