"""The daily budget of a client key over HTTP, with the installed command, a ledger in SQLite and two workers."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.cli.support import result
from tests.conftest import Run
from tests.serve.gateway.live import real
from tests.serve.gateway.support import CHAT, chat
from tests.serve.support_backend import FaultServer, Script, chat_answer, response

CONFIG = """
[backends.openai]
base_url = "{url}"
models = ["paid"]
api_key_env = "OPENAI_API_KEY"
[models.paid]
context_window = 100000
input_usd_per_million = "0"
output_usd_per_million = "1000"
[privacy]
local_networks = []
"""


def answers(path: str, headers: dict[str, str], body: Any) -> Script:
    if body is None:
        return [response(json.dumps({"data": [{"id": "paid"}]}).encode())]
    return [response(chat_answer("Hi", usage=(10, 100)))]


def test_a_key_spends_its_budget_and_no_more_and_the_commands_show_it(
    environment: dict[str, str], batuta: Run, home: Path
) -> None:
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    key = batuta("serve", "keys", "create", "ci", "--daily-budget", "0.45", code=0).stdout.strip()
    other = batuta("serve", "keys", "create", "other", code=0).stdout.strip()
    with FaultServer(answers) as server:
        file.write_text(CONFIG.format(url=server.base_url))
        with real({**environment, "OPENAI_API_KEY": "sk-test"}, "--workers", "2") as gateway:

            def status(key: str) -> tuple[int, Any]:
                code, _, body = gateway.ask(CHAT, chat("paid", max_tokens=100), {"x-api-key": key})
                return code, json.loads(body)

            codes = [status(key)[0] for _ in range(6)]  # $0.10 each
            refused = status(key)[1]["error"]
            assert status(other)[0] == 200
    assert codes == [200] * 4 + [402] * 2
    assert refused["code"] == "budget_exceeded" and "this key's day" in refused["message"]
    shown = result(batuta("serve", "budget", "status", "--key", "ci", "--json", code=0))
    assert shown["key"]["spent_usd"] == "0.40" and shown["key"]["remaining_usd"] == "0.05"
    assert shown["spent_usd"] == "0.50"
    assert "left       $0.05 of $0.45" in batuta("serve", "budget", "status", "--key", "ci", code=0).stdout
    free = batuta("serve", "budget", "status", "--key", "other", code=0).stdout
    assert "no separate budget" in free and "$9.50 of $10.00 left" in free
    lines = result(batuta("serve", "budget", "history", "--by", "key", "--json", code=0))["entries"]
    assert [(line["key"], line["requests"], line["cost_usd"]) for line in lines] == [
        ("ci", 4, "0.40"),
        ("other", 1, "0.10"),
    ]
    (line,) = result(batuta("serve", "budget", "history", "--json", code=0))["entries"]
    assert (line["model"], line["requests"], Decimal(line["cost_usd"])) == ("paid", 5, Decimal("0.5"))
    listed = result(batuta("serve", "keys", "list", "--json", code=0))
    assert [(entry["name"], entry["today"]["spent_usd"]) for entry in listed] == [("ci", "0.40"), ("other", "0.10")]
