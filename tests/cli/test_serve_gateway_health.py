"""A running `batuta serve gateway`: what one failing model means for clients that ask for another."""

import json
from pathlib import Path
from typing import Any

from tests.serve.gateway.live import real
from tests.serve.support_backend import FaultServer, Script, chat_answer, response
from tests.serve.support_pipeline import MODEL

OTHER = "other-model"


def limited(path: str, _: dict[str, str], body: Any) -> Script:
    """A vLLM that answers `MODEL` with 429 and serves the other model."""
    if body is None:
        models = json.dumps({"data": [{"id": model, "owned_by": "vllm"} for model in (MODEL, OTHER)]})
        known = {"/health": b"", "/v1/models": models.encode(), "/version": b'{"version": "1"}'}
        return [response(known[path]) if path in known else response(b"", status="404 Not Found")]
    if body["model"] == MODEL:
        return [response(b"{}", "application/json", "429 Too Many Requests", "Retry-After: 30")]
    return [response(chat_answer("Hi"))]


def test_a_429_of_one_model_leaves_the_other_models_of_its_backend_to_their_clients(
    environment: dict[str, str], home: Path
) -> None:
    """https://github.com/openclaw/openclaw/issues/5744"""
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    with FaultServer(limited) as backend:
        file.write_text(f'[backends.vllm]\nbase_url = "{backend.base_url}"\nmodels = ["{MODEL}", "{OTHER}"]\n')
        with real(environment) as running:

            def ask(model: str) -> tuple[int, dict[str, str], Any]:
                asked = {"model": model, "messages": [{"role": "user", "content": "Say it."}], "max_tokens": 9}
                status, headers, body = running.ask("/v1/chat/completions", asked)
                return status, headers, json.loads(body)

            limited_first, other, limited_again = ask(MODEL), ask(OTHER), ask(MODEL)
            ready, _, _ = running.ask("/ready")
    assert (limited_first[0], limited_first[1]["retry-after"]) == (429, "30")
    assert (other[0], other[2]["choices"][0]["message"]["content"]) == (200, "Hi")
    assert limited_again[0] == 503
    assert 20 <= int(limited_again[1]["retry-after"]) <= 30
    assert f"{MODEL} is cooling down there" in limited_again[2]["error"]["message"]
    assert ready == 200
    assert sum(body is not None and body["model"] == MODEL for _, _, body in backend.requests) == 1
