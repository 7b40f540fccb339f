"""What a test vector is, and what the vectors share."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = HERE / "data"
INDEX = HERE / "vectors.json"
SUMS = HERE / "SHA256SUMS"

AT = "2026-11-24T00:00:00Z"
"""When signatures are judged."""
WEIGHTS = b"weights\n" * 32
FILES = {"config.json": b'{"layers": 30}\n', "model.bin": WEIGHTS, "sub/tokenizer.json": b"{}\n"}
PASSWORD = b"correct horse"


@dataclass(frozen=True)
class Case:
    """One vector: files, a command line over them, and what it must lead to."""

    group: str
    name: str
    purpose: str
    files: Mapping[str, bytes]
    run: tuple[str, ...]
    exit: int
    output: bytes | None = None
    """What is at `output`, or at stdout, in the end."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return DATA / self.group / self.name

    def row(self) -> dict[str, Any]:
        """The entry of the index."""
        row: dict[str, Any] = {
            "group": self.group,
            "name": self.name,
            "purpose": self.purpose,
            "directory": f"data/{self.group}/{self.name}",
            "run": list(self.run),
            "exit": self.exit,
        }
        if self.output is not None:
            row["output_size"] = len(self.output)
            row["output_sha256"] = hashlib.sha256(self.output).hexdigest()
        return row | dict(self.facts)


def changed(stated: Mapping[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of a statement with one field replaced, or removed when `to` is None."""
    copy: Any = json.loads(json.dumps(stated))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return dict(copy)
