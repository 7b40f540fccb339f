"""What a PATH means: a file first, then the store; `blake3:<hex>` always the store."""

import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.errors import DamagedStateError, InvalidInputError, NotFoundError, OperationError
from batuta_cli.pacha.hashing import address_of_bytes
from batuta_cli.pacha.locate import Located, locate
from batuta_cli.pacha.store import Added, Store, StoreName, add, add_stream


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def stored(content: bytes = b"model", name: str = "llama:8b") -> Added:
    path = Path("model.gguf")
    path.write_bytes(content)
    added = add(Store.default(), path, name=StoreName.parse(name))
    path.unlink()
    return added


def test_a_file_is_a_file() -> None:
    Path("model.gguf").write_bytes(b"x")
    found = locate("./model.gguf")
    assert found == Located("./model.gguf", "./model.gguf", "model.gguf")
    assert found.signature == "./model.gguf.sig"


def test_a_directory_has_its_resolved_name() -> None:
    found = locate(".")
    assert found.name == "work"
    assert found.signature.endswith("/work.sig")


@pytest.mark.parametrize("text", ["llama:8b", "ADDRESS"])
def test_an_object_is_found_by_name_and_address(text: str) -> None:
    added = stored()
    text = text.replace("ADDRESS", str(added.address))
    found = locate(text)
    assert (found.path, found.label, found.address) == (added.object_path, text, added.address)
    assert found.name == "model.gguf", "the name it was signed under"
    assert found.signature == Store.default().signature_path(added.address)


def test_the_tag_is_latest_when_there_is_none() -> None:
    added = stored(name="llama:latest")
    assert locate("llama").address == added.address


def test_a_file_comes_before_a_name_of_the_store() -> None:
    stored()
    Path("llama:8b").write_bytes(b"a file")
    assert locate("llama:8b").address is None


def test_an_address_means_the_store_even_if_a_file_has_that_name() -> None:
    added = stored()
    Path(str(added.address)).write_bytes(b"an impostor")
    assert locate(str(added.address)).path == added.object_path


def test_an_object_that_came_through_a_pipe_has_no_file_name() -> None:
    Path("m").write_bytes(b"x")
    with open("m", "rb") as file:
        unnamed = add_stream(Store.default(), file.fileno(), "stdin")
        assert locate(str(unnamed.address)).name is None
        file.seek(0)
        add_stream(Store.default(), file.fileno(), "stdin", name=StoreName("meta/llama"))
    assert locate("meta/llama").name == "llama"


@pytest.mark.parametrize("text", ["model.gguf", "none/model.gguf", "a b", "../x", "-", ""])
def test_what_is_nowhere_is_no_such_file(text: str) -> None:
    with pytest.raises(NotFoundError, match="no such file or directory"):
        locate(text)
    assert not Store.default().root.exists()


def test_what_looks_like_a_name_is_looked_for_in_both_places() -> None:
    with pytest.raises(NotFoundError, match="no such file, and nothing in the store has that name"):
        locate("llama:8b")


def test_an_address_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="no such object in the store"):
        locate(str(address_of_bytes(b"x")))


def test_half_an_address_is_refused_unless_it_is_a_file() -> None:
    with pytest.raises(InvalidInputError, match="not a content address"):
        locate("blake3:00")
    Path("blake3:00").write_bytes(b"x")
    assert locate("blake3:00").address is None


def test_a_name_without_its_object() -> None:
    added = stored()
    Path(added.object_path).unlink()
    with pytest.raises(NotFoundError, match="is not in the store any more"):
        locate("llama:8b")


def test_an_object_that_was_made_writable_is_not_served() -> None:
    Path(stored().object_path).chmod(0o644)
    with pytest.raises(DamagedStateError):
        locate("llama:8b")


def test_a_link_to_nothing_is_named_as_one() -> None:
    Path("link").symlink_to("nothing")
    with pytest.raises(NotFoundError, match="link: is a link to nothing, which does not exist"):
        locate("link")


def test_names_that_no_system_takes() -> None:
    with pytest.raises(InvalidInputError):
        locate("a\0b")
    with pytest.raises(OperationError):
        locate("a" * 5000)


def test_locating_a_file_loads_no_cryptography() -> None:
    program = (
        "import sys; from batuta_cli.pacha.locate import locate; locate('.');"
        " sys.exit('cryptography' in sys.modules or 'batuta_cli.pacha.store' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
