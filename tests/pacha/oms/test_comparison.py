"""What counts as a difference between a model on disk and a statement of another tool."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.pacha import ModelSignature
from batuta_cli.pacha.content import IS_DIRECTORY, IS_FILE, Differences, ModelContent
from batuta_cli.pacha.oms.comparison import differences_from
from batuta_cli.pacha.oms.manifest import OmsManifest
from batuta_cli.pacha.oms.signature import OmsSignature
from tests.pacha.oms.forge import Signatory, bundle, resources, statement

FILES = {"a": b"first", "keep/logs/b": b"second"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "model"


def manifest(*ignored: str) -> OmsManifest:
    signed = statement(resources(FILES), ignore_paths=list(ignored))
    body = ModelSignature.parse(bundle(signed, Signatory())).body
    assert isinstance(body, OmsSignature)
    return body.statement


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "new").touch(),
        lambda model: (model / "a").write_bytes(b"other"),
        lambda model: (model / "a").unlink(),
    ],
    ids=["a file appears", "a file is written", "a file disappears"],
)
def test_a_model_that_changes_while_it_is_read_is_not_judged(model: Path, change: Callable[[Path], object]) -> None:
    done: list[object] = []

    def during(_: int) -> None:
        if not done:
            done.append(change(model))

    assert differences_from(ModelContent(model), manifest()) == Differences()
    with pytest.raises(ChangedWhileReadError):
        differences_from(ModelContent(model, during), manifest())


def test_an_ignored_path_leaves_out_what_is_beneath_it_and_nothing_of_a_similar_name(model: Path) -> None:
    for name in ("logs/new", "logs/deep/new", "logs2/new", "deep/logs/new", "keep/logs/new"):
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = differences_from(ModelContent(model), manifest("logs"))
    assert (set(found.added), found.changed, found.missing) == (
        {"logs2/new", "deep/logs/new", "keep/logs/new"},
        (),
        (),
    )


def test_a_file_and_a_directory_are_never_taken_for_each_other(model: Path) -> None:
    signed = statement(resources({".": FILES["a"]}), "a")
    body = ModelSignature.parse(bundle(signed, Signatory())).body
    assert isinstance(body, OmsSignature)
    assert differences_from(ModelContent(model / "a"), body.statement) == Differences()
    assert differences_from(ModelContent(model), body.statement) == Differences(other_kind=IS_DIRECTORY)
    assert differences_from(ModelContent(model / "a"), manifest()) == Differences(other_kind=IS_FILE)
