"""The table of wire formats: one row for each module, which says what the format can carry."""

from pathlib import Path

from batuta_cli.serve.backends.wire_formats import Need, WireFormat
from batuta_cli.serve.providers import formats


def test_every_module_of_the_folder_has_one_row() -> None:
    modules = {path.stem for path in Path(formats.__path__[0]).glob("*.py")} - {"__init__", "native"}
    assert sorted(row.module for row in WireFormat) == sorted(modules)


def test_the_table_says_what_each_format_carries() -> None:
    assert WireFormat.OPENAI.carries == set(Need)
    assert Need.TOOLS in WireFormat.ANTHROPIC.carries and Need.JSON not in WireFormat.ANTHROPIC.carries
    assert WireFormat.REPLICATE.carries == {Need.STREAMING}
