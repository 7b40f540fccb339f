"""What the tests of the configuration share."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

NO_ENV: dict[str, str] = {}


def written(file: Path, text: str | bytes) -> Path:
    """`file` with that content, in its directory."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def plain(text: str) -> dict[str, Any]:
    """What `tomllib` makes of a text, with exact decimals."""
    return tomllib.loads(text, parse_float=Decimal)
