"""The table of Ollama's fields in the documents says what the code does."""

import re
from pathlib import Path

from batuta_cli.serve.gateway.dialects.ollama_fields import CHAT_FIELDS, GENERATE_FIELDS, OPTIONS
from batuta_cli.serve.gateway.dialects.treatment import FieldRow, Treatment

PAGE = (Path(__file__).resolve().parents[4] / "docs/gateway.md").read_text()
ROWS = re.findall(
    r"^\| (`.*?) \| (.*?) \|$", PAGE.partition("## Ollama's API")[2].partition("Responses are")[0], re.MULTILINE
)
SILENT = {"model", "stream", "options"}
"""Fields that the text around the table describes."""


def shown(row: FieldRow) -> str:
    if row.native_only:
        return "only an Ollama backend"
    if row.treatment is Treatment.CARRIED:
        return "the same, for servers"
    return {Treatment.DROPPED: "dropped", Treatment.REFUSED: "refused"}.get(row.treatment, "")


def test_the_page_has_every_field_with_its_treatment() -> None:
    written = {name: told for names, told in ROWS for name in re.findall(r"`(\w+)`", names)}
    fields = {**CHAT_FIELDS, **GENERATE_FIELDS, **OPTIONS}
    assert set(written) == set(fields) - SILENT
    for name, told in written.items():
        assert told.startswith(shown(fields[name])), name
        if not shown(fields[name]):
            assert not told.startswith(("dropped", "refused", "only", "the same,")), name
