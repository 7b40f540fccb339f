"""What a request cost that failed, or that a fallback answered: in the log, the metrics and the header."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.serve.gateway.support import CHAT, chat
from tests.serve.gateway.support_upstream import MODEL, Upstream
from tests.serve.support_backend import Script, chat_answer, chunk, response, stream_head


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A backend that costs a dollar for a million tokens, wherever its address is."""
    folder: Path = tmp_path_factory.mktemp("upstream")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UPSTREAM_KEY", "a-key")
        tables = {"fallbacks": {"other-model": (MODEL,)}}
        more = {"more_models": ("other-model",), "tables": tables, "api_key_env": "UPSTREAM_KEY"}
        with Upstream(folder, "openai", **more) as running:  # type: ignore[arg-type]
            yield running


def spent(server: Upstream) -> Decimal:
    return Decimal(server.pipeline.breaker.status().spent) / 10**9


def counted(server: Upstream, metric: str) -> Decimal:
    text: str = server.ask("/metrics", None).body.decode()
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(metric + "{")]
    return sum(map(Decimal, found), Decimal(0))


LOST = {
    "a whole response that is no JSON": (False, [response(b"<html>", "text/html")]),
    "a whole response that reports an error": (False, [response(b'{"error": {"message": "quota"}}')]),
    "a stream that broke off": (True, [stream_head(), chunk("Hello"), chunk(" you")]),
}


@pytest.mark.parametrize("what", LOST)
def test_a_charge_is_logged_and_counted_though_the_request_failed(server: Upstream, what: str) -> None:
    stream, answer = LOST[what]
    before, model_before, backend_before = (
        spent(server), counted(server, "batuta_model_cost_usd_total"), counted(server, "batuta_cost_usd_total"),
    )  # fmt: skip
    server.ask(CHAT, chat(MODEL, max_tokens=9, stream=stream), *answer)
    charged = spent(server) - before
    assert charged > 0
    line = next(line for line in reversed(server.log) if line["route"] == CHAT)
    assert (Decimal(line["cost_usd"]), line["attempts"], line["backend"]) == (charged, 1, "one")
    assert counted(server, "batuta_model_cost_usd_total") - model_before == pytest.approx(charged)
    assert counted(server, "batuta_cost_usd_total") - backend_before == pytest.approx(charged)


def test_a_refusal_costs_nothing_and_says_so(server: Upstream) -> None:
    before = spent(server)
    server.ask(CHAT, chat(MODEL, max_tokens=9), response(b'{"error": {"message": "no"}}', status="400 X"))
    assert spent(server) == before
    assert "cost_usd" not in server.log[-1]


def test_the_cost_of_a_fallback_s_answer_has_what_the_lost_one_cost(server: Upstream) -> None:
    def by_model(body: dict[str, object]) -> Script:
        lost = body["model"] == "other-model"
        return [response(b"<html>", "text/html") if lost else response(chat_answer("Hi"))]

    before = spent(server)
    done = server.ask(CHAT, chat("other-model", max_tokens=9), by_model)
    assert (done.status, done.headers["x-batuta-fallback"]) == (200, MODEL)
    charged = spent(server) - before
    assert charged > Decimal("0.000012")  # 7 and 5 tokens of the answer, and the lost one
    assert Decimal(done.headers["x-batuta-cost"]) == charged
    assert (Decimal(server.log[-1]["cost_usd"]), server.log[-1]["attempts"]) == (charged, 2)
