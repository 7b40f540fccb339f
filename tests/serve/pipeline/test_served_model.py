"""What is known of a model at the backends that have it."""

import asyncio
from pathlib import Path

from batuta_cli.config import Config, ModelSection, Privacy
from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.pipeline.pipeline import Pipeline, ServedModel
from batuta_cli.serve.privacy.audit import AuditLog
from tests.serve.support_pipeline import MODEL, backends, pipeline
from tests.serve.support_server import json_reply, serving


def test_the_smallest_window_and_what_any_backend_takes_count(tmp_path: Path) -> None:
    tables = backends(a=("anthropic", "http://127.0.0.1:1/v1"), b=("llamacpp", "http://127.0.0.1:2/v1"))
    tables |= backends(("other",), c=("replicate", "http://127.0.0.1:3/v1"))
    made = pipeline(tmp_path, tables, models={MODEL: ModelSection(context_window=4096)})
    facts = made.model_facts(MODEL)
    assert (facts.window, facts.details) == (4096, {})
    assert {Need.TOOLS, Need.JSON, Need.EMBEDDINGS} <= facts.carries
    assert made.model_facts("other") == ServedModel(None, frozenset({Need.STREAMING}), {})


def test_an_alias_has_the_facts_of_its_model(tmp_path: Path) -> None:
    tables = backends(b=("llamacpp", "http://127.0.0.1:2/v1"))
    config = Config(backends=tables, models={MODEL: ModelSection(context_window=4096)}, aliases={"gpt-4o-mini": MODEL})
    assert Pipeline(config, audit=AuditLog(tmp_path / "audit")).model_facts("gpt-4o-mini").window == 4096


def test_what_an_ollama_server_tells_is_known_after_a_probe(tmp_path: Path) -> None:
    routes = {
        "/": (200, {}, b"Ollama is running"),
        "/api/version": json_reply('{"version": "0.12.0"}'),
        "/v1/models": json_reply('{"data": [{"id": "qwen3:8b"}]}'),
        "/api/tags": json_reply('{"models": [{"name": "qwen3:8b", "size": 5, "digest": "ab"}]}'),
    }
    with serving(routes) as server:
        made = pipeline(tmp_path, backends((), one=("ollama", server.url)), privacy=Privacy(tier="standard"))

        async def probed() -> ServedModel:
            async with made:
                await made.monitor.refresh(tier=made.tier)
                return made.model_facts("qwen3:8b")

        assert asyncio.run(probed()).details == {"size": 5, "digest": "ab"}
