"""What the tests of `serve` share: the real llama.cpp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.support_server import running_llamacpp


@pytest.fixture(scope="session")
def llamacpp(gguf: Path) -> Iterator[str]:
    """The base URL of a real llama.cpp that serves `smollm2-135m`; it needs 0.4 GB and a second and a half to start."""
    with running_llamacpp(gguf) as base_url:
        yield base_url
