"""docs/architecture.md is true: imports follow its table of rooms, and the files and names it gives are there."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "batuta_cli"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PUBLIC = ("batuta_cli.pacha", "batuta_cli.serve")
"""The packages that programs import from; their `__init__` names modules of every room."""


def _section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = re.findall(r"^\| `(batuta_cli/\S*)` \|", _section("Rooms"), re.MULTILINE)
"""The rooms from the lowest to the highest: folders, and single files that are above the folder they are in."""


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _room(module: str) -> str:
    path = MODULES[module].relative_to(ROOT)
    if str(path) in ROOMS:
        return str(path)
    folders = [room for room in ROOMS if room.endswith("/") and f"{path.parent}/".startswith(room)]
    return max(folders, key=len, default=f"{path.parent}/*.py")


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of this package that a file imports, anywhere in it, with the line."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [full if (full := f"{node.module}.{a.name}") in MODULES else f"{node.module}" for a in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.partition(".")[0] == "batuta_cli")


IMPORTS = [
    (module, imported, f"{path.relative_to(ROOT)}:{line}")
    for module, path in MODULES.items()
    if module not in (*PUBLIC, "batuta_cli.__main__")
    for imported, line in _imports(path)
    if imported != "batuta_cli"  # the version
]


# The rooms.


def test_every_folder_of_the_package_is_a_room_or_in_one() -> None:
    assert len(ROOMS) == len(set(ROOMS)) > 10
    for room in ROOMS:
        assert list(ROOT.glob(room)), room
    rooms = {_room(module) for module in MODULES if module not in PUBLIC}
    assert rooms == set(ROOMS), "a folder is missing in the table of docs/architecture.md"


def test_a_room_imports_only_the_rooms_above_it_in_the_table() -> None:
    upwards = [
        f"{place} imports {imported}"
        for module, imported, place in IMPORTS
        if ROOMS.index(_room(imported)) > ROOMS.index(_room(module))
    ]
    assert upwards == []


def test_pacha_and_serve_do_not_import_each_other() -> None:
    parts = [(module.split(".")[1], imported.split(".")[1], place) for module, imported, place in IMPORTS]
    assert [place for importer, imported, place in parts if {importer, imported} == {"pacha", "serve"}] == []
    assert {"pacha", "serve"} <= {imported for importer, imported, _ in parts if importer == "cli"}


def test_modules_import_from_the_module_that_defines_a_name_and_not_from_the_public_packages() -> None:
    assert [f"{place} imports {imported}" for _, imported, place in IMPORTS if imported in PUBLIC] == []


# What only the commands do.

_OWN_PROCESSES = {
    ("batuta_cli/pacha/run.py", "os._exit"),  # how the child of a fork ends when it cannot become the program
    ("batuta_cli/serve/templates/worker.py", "sys.stdin"),  # JSON over pipes, in the sandboxed worker process
    ("batuta_cli/serve/templates/worker.py", "sys.stdout"),
    ("batuta_cli/serve/gateway/server.py", "os._exit"),  # how a forked worker ends without its parent's clean-up
}


_BUILT_IN = ("print", "input", "exit", "quit")
_PROCESS = ("sys.exit", "sys.argv", "sys.stdin", "sys.stdout", "os._exit")


def _uses_of_the_process(path: Path) -> Iterator[str]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BUILT_IN:
            yield node.func.id
        elif isinstance(node, ast.Raise) and "SystemExit" in ast.dump(node):
            yield "SystemExit"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in _PROCESS:
                yield name


def test_only_commands_print_read_arguments_and_exit() -> None:
    found = {
        (str(path.relative_to(ROOT)), use)
        for module, path in MODULES.items()
        if not module.startswith(("batuta_cli.cli", "batuta_cli.__main__"))
        for use in _uses_of_the_process(path)
    }
    assert found == _OWN_PROCESSES


# Names.


def test_class_names_are_unique_in_the_package() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES.values():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 200
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_file_names_are_unique_within_serve() -> None:
    names = Counter(path.name for path in (PACKAGE / "serve").rglob("*.py") if path.name != "__init__.py")
    assert {name for name, count in names.items() if count > 1} == set()


# The drawing, and the table of changes.


def test_the_files_of_the_drawing_exist() -> None:
    serve = PACKAGE / "serve"
    files = 0
    for line in _section("The path of a request").splitlines():
        for folder, names in re.findall(r"\b([a-z]+)/((?:\w+(?:\.py|/)(?:, )?)*)", line):
            assert (serve / folder).is_dir(), line
            for name in names.split(", ") if names else ():
                assert (serve / folder / name).exists(), line
                files += 1
    assert files > 15


ROWS = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) ?\|$", _section("Where a change goes"), re.MULTILINE)[1:]
TEN = ["a backend", "a chat format", "a route", "a ledger", "an exit code", "a signature algorithm", "the retry policy"]
TEN += ["a metric", "an option of `pacha sign`", "a truncation strategy"]


def test_the_table_has_the_ten_commonest_changes() -> None:
    assert [change for change in TEN if not any(row[0].startswith(change) for row in ROWS)] == []


def _defined(path: Path) -> set[str]:
    """The names that a Python file defines: functions, classes and variables, and `Class.member`."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
                if isinstance(target, ast.Name):
                    found.add(prefix + target.id)
                elif isinstance(target, ast.Attribute):  # self.member
                    found.add(prefix + target.attr)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef) and prefix:
                visit(node.body, prefix)

    visit(_tree(path).body, "")
    return found


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_table_of_changes_names_what_is_there(row: tuple[str, str, str]) -> None:
    links = 0
    for cell in row[1:]:
        names: list[str] = []
        for code, target in re.findall(r"`([\w.]+)`|\]\(([^)#]+)[^)]*\)", cell):
            if code:
                names.append(code)
                continue
            path = (ROOT / "docs" / target).resolve()
            assert path.exists(), target
            links += 1
            if path.suffix == ".py":
                assert {name for name in names if "." not in name or name[0].isupper()} <= _defined(path), target
            names = []
    assert links > 0
