"""What the programs of this folder share: `NAME.py DIALECT URL MODEL PROMPT` asks, streams, and runs one tool.

They are run by the interpreter of .venv/clients, which has the clients and nothing of batuta, and print what they got
as JSON. PROMPT is the question to which the model answers with a call of the tool.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

DIALECT, URL, MODEL, NOTE = sys.argv[1:]
HELLO = "Say hello."

ran: list[str] = []
"""The arguments of each run of the tool."""


def read_note(name: str) -> str:
    """Read a note, a text file in the current directory.

    Args:
        name: the name of the file
    """
    ran.append(name)
    path = Path(name)
    return path.read_text() if path.suffix == ".txt" and path.exists() else f"there is no note {name!r}"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "description": "the name of the file"}},
    "required": ["name"],
}
"""The parameters of `read_note`, for clients that do not make them from the function."""


def main(dialects: Mapping[str, Callable[[], tuple[str, list[str], str]]]) -> None:
    """Run a dialect of the client, which gives the answer, the parts of the streamed one, and that after the tool."""
    asked, parts, told = dialects[DIALECT]()
    print(json.dumps({"asked": asked, "streamed": "".join(parts), "parts": len(parts), "ran": ran, "told": told}))
