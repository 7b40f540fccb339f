"""A gateway over one backend that answers by a script: for tests of what the backend gets and the client reads."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batuta_cli.config import ModelSection, Privacy
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.support import Response, ask
from tests.serve.support_backend import FaultServer, response, stream_head
from tests.serve.support_pipeline import backends, pipeline

HI = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
"""A chat completion."""
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 2},
}
"""A message of Anthropic's API."""


def streams(events: Iterable[bytes]) -> Any:
    return lambda *_: [stream_head(), b"".join(events)]


def answers(document: Any) -> Any:
    return lambda *_: [response(json.dumps(document).encode())]


def asked(
    tmp_path: Path,
    profile: str,
    server: FaultServer,
    path: str,
    body: Any,
    *,
    tier: str = "standard",
    media_hosts: tuple[str, ...] = (),
    **more: Any,
) -> Response:
    """The response of a gateway with one backend, which has the model of the body."""
    own = more.pop("model", ModelSection(context_window=100_000, output_reserve=64))
    made = pipeline(
        tmp_path,
        backends((body["model"],), one=(profile, server.base_url)),
        privacy=Privacy(tier=tier),  # type: ignore[arg-type]
        models={body["model"]: own},
        **{name: more.pop(name) for name in ("breaker", "budget") if name in more},
    )
    settings = GatewaySettings(PrivacyTier(tier), media_hosts=media_hosts)
    return ask(tmp_path, path, body, pipeline=made, settings=settings, **more)
