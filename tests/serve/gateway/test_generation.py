"""A request for text: the headers of its answer, and the answer that is always closed."""

from pathlib import Path

from tests.serve.gateway.support import CHAT, Asking, ask, chat, run


def test_an_answer_tells_backend_tier_plan_and_cost(tmp_path: Path) -> None:
    for stream in (False, True):
        headers = ask(tmp_path, CHAT, chat(stream=stream)).headers
        assert (headers["x-batuta-backend"], headers["x-batuta-tier"]) == ("scripted", "standard")
        assert headers["x-batuta-plan"] == "spillover; local_busy; then second, third"
        assert headers.get("x-batuta-cost") == (None if stream else "0.001234")


def test_every_answer_is_closed_whatever_became_of_it(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for model in ("echo", "break", "bug"):
            for stream in (False, True):
                await asking.ask(CHAT, chat(model, stream=stream))
        assert len(asking.pipeline.answers) == 6
        assert all(answer.closed for answer in asking.pipeline.answers)

    run(tmp_path, scenario)
