"""What a backend, a client or the network may do at the worst moment, and what must come of it."""

import asyncio
import socket
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Model
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, request


def priced() -> Model:
    """A dollar for a million tokens."""
    return Model(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))


# The network


def test_a_name_that_cannot_be_resolved_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        assert len(asked) < 10
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    tables = backends(far=("vllm", "http://llm.example:8000/v1"))
    made = pipeline(tmp_path, tables, models={MODEL: priced()})
    with pytest.raises(BackendError, match="cannot be reached"):
        ask(made, request(privacy=PrivacyTier.STANDARD))
    assert asked == ["llm.example"]
