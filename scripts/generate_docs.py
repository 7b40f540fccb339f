"""Write man pages, shell completions, docs/cli.md, docs/configuration.md and docs/fields.md from the program's tables.

    python -m scripts.generate_docs            write what is stale
    python -m scripts.generate_docs --check    write nothing; exit 1 and name what is stale

The same commands always give the same bytes: no date, no path and no version is in them.
"""

import argparse
import os
import sys
from pathlib import Path

from scripts.completion_bash import bash_completion
from scripts.completion_fish import fish_completion
from scripts.completion_zsh import zsh_completion
from scripts.docs_tree import command_tree
from scripts.field_page import field_page
from scripts.man_pages import man_pages
from scripts.markdown_pages import markdown_pages

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("completions", "man")
"""Folders in which every file is generated."""


def documents() -> dict[str, str]:
    """Every generated file: its path below the repository, and its text."""
    tree = command_tree()
    pages = {f"man/{name}": text for name, text in man_pages(tree).items()}
    pages |= {f"docs/{name}": text for name, text in markdown_pages(tree).items()}
    return {
        "completions/batuta.bash": bash_completion(tree),
        "completions/_batuta": zsh_completion(tree),
        "completions/batuta.fish": fish_completion(tree),
        "docs/fields.md": field_page(),
        **pages,
    }


def stale(root: Path, wanted: dict[str, str]) -> list[str]:
    """The files below `root` that are missing, differ, or should not be there."""
    present = {
        f"{folder}/{name}" for folder in FOLDERS if (root / folder).is_dir() for name in os.listdir(root / folder)
    } | {name for name in wanted if (root / name).is_file()}
    changed = {
        name
        for name, text in wanted.items()
        if name not in present or (root / name).read_text(encoding="utf-8") != text
    }
    return sorted(changed | (present - wanted.keys()))


def write(root: Path, wanted: dict[str, str]) -> list[str]:
    """Bring the files below `root` up to date, and return which ones were not."""
    changed = stale(root, wanted)
    for name in changed:
        if name in wanted:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(wanted[name], encoding="utf-8")
        else:
            (root / name).unlink()
    return changed


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is stale")
    check = parser.parse_args().check
    changed = stale(ROOT, documents()) if check else write(ROOT, documents())
    for name in changed:
        print(f"{name} is stale; run `make docs`" if check else f"wrote {name}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
