"""A store and a model to put into it."""

import os
from pathlib import Path

import pytest

from batuta_cli.pacha.store import (
    Store,
)
from tests.pacha.store.support import MIB


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + os.urandom(3 * MIB))
    return path
