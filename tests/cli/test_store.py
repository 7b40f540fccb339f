"""`batuta pacha store`, and objects of the store wherever a PATH stands."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha.hashing import address_of_bytes
from tests.cli.support import own_key
from tests.conftest import BATUTA, Run

ADDRESS = str(address_of_bytes(b"a model"))
OTHER = str(address_of_bytes(b"other"))


@pytest.fixture
def model(work: Path) -> Path:
    path = work / "model.gguf"
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def root(home: Path) -> Path:
    return home / "data" / "batuta" / "store"


def object_path(root: Path, address: str = ADDRESS) -> Path:
    digits = address.removeprefix("blake3:")
    return root / "blake3" / digits[:2] / digits[2:]


def answer(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout)


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"a MODEL")
    path.chmod(0o444)


def test_a_named_model_is_added_listed_served_and_removed(batuta: Run, model: Path, root: Path) -> None:
    done = batuta("pacha", "store", "add", model, "--name", "llama:8b", code=0)
    assert (done.stdout, done.stderr) == (f"{ADDRESS}  llama:8b\n", "")
    heading, row = batuta("pacha", "store", "list", code=0).stdout.splitlines()
    assert heading.split() == ["NAME", "ADDRESS", "BYTES", "ADDED"]
    assert row.split()[:3] == ["llama:8b", ADDRESS, "7"]
    for reference in ("llama:8b", ADDRESS):
        path = batuta("pacha", "store", "path", reference, code=0).stdout
        assert path == f"{object_path(root)}\n"
    assert batuta("pacha", "store", "remove", "llama:8b", code=0).stdout == "removed llama:8b\n"
    assert batuta("pacha", "store", "path", "llama:8b", code=1).stdout == ""
    assert object_path(root).exists()
    assert batuta("pacha", "store", "gc", "--dry-run", code=0).stdout.endswith("would delete 1 object, 7 bytes\n")
    assert object_path(root).exists()
    assert batuta("pacha", "store", "gc", code=0).stdout.endswith("deleted 1 object, 7 bytes\n")
    assert not object_path(root).exists()


def test_an_addition_without_a_name_prints_the_address_alone_and_warns_of_gc(batuta: Run, model: Path) -> None:
    done = batuta("pacha", "store", "add", model, code=0)
    assert done.stdout == f"{ADDRESS}\n"
    assert "store gc" in done.stderr
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    assert batuta("pacha", "store", "add", model, code=0).stderr == "", "it has a name by now"


def test_an_addition_as_json(batuta: Run, model: Path, root: Path) -> None:
    document = answer(batuta("pacha", "store", "add", model, "--name", "m", "--json", code=0))
    (row,) = document["result"]
    assert (document["ok"], document["command"], row["path"]) == (True, "pacha store add", str(model))
    assert (row["address"], row["name"], row["names"], row["size"]) == (ADDRESS, "m:latest", ["m:latest"], 7)
    assert (row["object"], row["signature"], row["set_aside"]) == (str(object_path(root)), False, None)


def test_of_several_files_all_are_tried(batuta: Run, model: Path, work: Path) -> None:
    (work / "other").write_bytes(b"other")
    done = batuta("pacha", "store", "add", "model.gguf", "none", "other", code=1)
    assert done.stdout == f"{ADDRESS}  model.gguf\n{OTHER}  other\n"
    assert "none: no such file" in done.stderr
    batuta("pacha", "store", "add", "model.gguf", "other", "--name", "m", code=2)


def test_stdin_is_added(batuta: Run) -> None:
    done = batuta("pacha", "store", "add", "-", "--name", "piped", input="other", code=0)
    assert done.stdout == f"{OTHER}  piped:latest\n"
    batuta("pacha", "store", "add", "-", "--link", input="other", code=2)


def test_a_name_moves_only_by_force(batuta: Run, model: Path, work: Path) -> None:
    (work / "other").write_bytes(b"other")
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    done = batuta("pacha", "store", "add", "other", "--name", "m", code=2)
    assert "other: m:latest is the name of another object" in done.stderr
    assert "--force" in done.stderr
    batuta("pacha", "store", "add", "other", "--name", "m", "--force", code=0)
    assert answer(batuta("pacha", "store", "path", "m", "--json", code=0))["result"]["address"] == OTHER


def test_an_object_is_named_again(batuta: Run, model: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    assert batuta("pacha", "store", "add", "m", "--name", "prod", code=0).stdout == f"{ADDRESS}  prod:latest\n"
    assert batuta("pacha", "store", "add", ADDRESS, "--name", "third", code=0).stdout == f"{ADDRESS}  third:latest\n"


def test_a_linked_file_is_the_object(batuta: Run, model: Path, root: Path) -> None:
    done = batuta("pacha", "store", "add", model, "--link", "--name", "m", code=0)
    assert "read-only" in done.stderr
    assert model.samefile(object_path(root))
    batuta("pacha", "store", "verify", code=0)


@pytest.mark.parametrize("name", ["../x", "blake3:latest", "a b", ":x", "-x"])
def test_a_bad_name_is_refused_before_anything_is_done(batuta: Run, model: Path, root: Path, name: str) -> None:
    done = batuta("pacha", "store", "add", model, f"--name={name}", code=2)
    assert "not a name for the store" in done.stderr
    assert not root.exists()


@pytest.fixture
def directory(work: Path, home: Path, batuta: Run) -> Path:
    """A signed directory of three files, two of them alike, in the store as tiny:1b."""
    own_key(home)
    path = work / "tiny"
    for name, content in (("a", b"same"), ("sub/b", b"same"), ("c", b"other")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    batuta("pacha", "sign", "tiny", code=0)
    batuta("pacha", "store", "add", "tiny", "--name", "tiny:1b", code=0)
    return path


def test_a_directory_comes_back_as_it_was_with_its_signature(batuta: Run, directory: Path, work: Path) -> None:
    address = batuta("pacha", "hash", "tiny", code=0).stdout.split()[0]
    assert batuta("pacha", "store", "list", code=0).stdout.splitlines()[1].split()[:3] == ["tiny:1b/", address, "13"]
    done = batuta("pacha", "store", "get", "tiny:1b", "copy", code=0)
    assert done.stdout == f"copy: 3 files, 13 bytes, signature in {work / 'copy.sig'}\n"
    batuta("pacha", "verify", "copy", code=0)
    assert batuta("pacha", "hash", "copy", code=0).stdout.split()[0] == address
    assert "copy: already exists" in batuta("pacha", "store", "get", address, "copy", code=2).stderr
    assert answer(batuta("pacha", "store", "get", address, "again", "--json", code=0))["result"]["files"] == 3


def test_what_is_in_the_store_is_not_written_to_stdout_or_to_a_file_called_dash(
    batuta: Run, work: Path, model: Path
) -> None:
    batuta("pacha", "store", "add", model, "--name", "tiny:1b", code=0)
    done = batuta("pacha", "store", "get", "tiny:1b", "-", code=2)
    assert done.stdout == ""
    assert "batuta pacha store path tiny:1b" in done.stderr
    assert not (work / "-").exists()
    batuta("pacha", "store", "get", "tiny:1b", "./-", code=0)
    assert (work / "-").read_bytes() == b"a model"


def test_a_directory_has_no_single_path_and_the_hint_says_how_to_get_it(batuta: Run, directory: Path) -> None:
    for command in (("store", "path", "tiny:1b"), ("verify", "tiny:1b")):
        assert "hint: batuta pacha store get tiny:1b DEST" in batuta("pacha", *command, code=2).stderr


def test_gc_keeps_the_files_of_a_directory_until_its_name_is_removed(batuta: Run, directory: Path) -> None:
    assert batuta("pacha", "store", "gc", code=0).stdout == "deleted 0 objects, 0 bytes\n"
    assert batuta("pacha", "store", "verify", "tiny:1b", code=0).stdout.endswith("3 objects are intact\n")
    batuta("pacha", "store", "remove", "tiny:1b", code=0)
    assert batuta("pacha", "store", "gc", code=0).stdout.endswith("deleted 2 objects, 9 bytes\n")


def test_a_damaged_file_of_a_directory_is_exit_3_names_it_and_leaves_nothing(
    batuta: Run, directory: Path, root: Path, work: Path
) -> None:
    other = object_path(root, str(address_of_bytes(b"other")))
    damage(other)
    done = batuta("pacha", "store", "get", "tiny:1b", "copy", code=3)
    assert "the object is damaged, and has been set aside" in done.stderr
    assert sorted(path.name for path in work.iterdir()) == ["tiny", "tiny.sig"]
    assert "tiny:1b: the object" in batuta("pacha", "store", "verify", code=1).stderr
    batuta("pacha", "store", "add", "tiny", "--name", "tiny:1b", code=0)
    batuta("pacha", "store", "get", "tiny:1b", "copy", code=0)


def test_gc_damaged_deletes_what_was_set_aside(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "llama", code=0)
    damage(object_path(root))
    batuta("pacha", "store", "verify", code=3)
    assert "gc --damaged deletes them" in batuta("pacha", "store", "gc", code=0).stderr
    plan = batuta("pacha", "store", "gc", "--damaged", "--dry-run", code=0).stdout
    assert plan.startswith("would delete 7 bytes of damaged objects\n")
    assert len(list((root / "damaged").iterdir())) == 1
    done = batuta("pacha", "store", "gc", "--damaged", "--json", code=0)
    assert (answer(done)["result"]["cleared"], answer(done)["result"]["set_aside"]) == (7, 0)
    assert list((root / "damaged").iterdir()) == []


def test_a_snapshot_of_links_is_added_with_follow_symlinks(batuta: Run, work: Path) -> None:
    (work / "blob").write_bytes(b"weights")
    (work / "snapshot").mkdir()
    (work / "snapshot/model.bin").symlink_to("../blob")
    assert "is a symbolic link" in batuta("pacha", "store", "add", "snapshot", code=2).stderr
    batuta("pacha", "store", "add", "snapshot", "--follow-symlinks", "--name", "links", code=0)
    batuta("pacha", "store", "get", "links", "copy", code=0)
    assert (work / "copy/model.bin").read_bytes() == b"weights"
    assert not (work / "copy/model.bin").is_symlink()


def test_an_empty_store(batuta: Run, root: Path) -> None:
    done = batuta("pacha", "store", "list", code=0)
    assert done.stdout == "" and "empty" in done.stderr
    assert answer(batuta("pacha", "store", "list", "--json", code=0))["result"] == {
        "objects": [],
        "directories": [],
        "missing": [],
    }
    assert batuta("pacha", "store", "verify", code=0).stdout == "0 objects are intact\n"
    assert batuta("pacha", "store", "gc", code=0).stdout == "deleted 0 objects, 0 bytes\n"
    assert not root.exists()


def test_a_damaged_object_is_set_aside_and_never_served_again(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    damage(object_path(root))
    done = batuta("pacha", "store", "verify", "--json", code=3)
    (found,) = answer(done)["result"]["damaged"]
    assert (found["address"], found["names"]) == (ADDRESS, ["m:latest"])
    assert Path(found["set_aside"]).read_bytes() == b"a MODEL"
    for command in (["store", "path"], ["hash"], ["verify"]):
        assert "m:latest: its object" in batuta("pacha", *command, "m", code=1).stderr
    done = batuta("pacha", "store", "verify", code=1)
    assert "is missing" in done.stderr
    assert "missing" in batuta("pacha", "store", "list", code=0).stdout
    batuta("pacha", "store", "add", model, code=0)
    batuta("pacha", "store", "verify", "m", code=0)


def test_an_addition_over_a_damaged_object_mends_it(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    damage(object_path(root))
    assert "damaged" in batuta("pacha", "store", "add", "m", "--name", "n", code=3).stderr
    batuta("pacha", "store", "add", model, code=0)
    damage(object_path(root))
    assert "damaged" in batuta("pacha", "store", "add", model, code=0).stderr
    batuta("pacha", "store", "verify", code=0)


def test_foreign_files_are_named(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    (root / "blake3" / "stray").write_text("?")
    assert f"{root}/blake3/stray: does not belong to the store" in batuta("pacha", "store", "verify", code=0).stderr


def test_an_object_in_use_is_not_removed(batuta: Run, model: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    assert "in use as m:latest" in batuta("pacha", "store", "remove", ADDRESS, code=2).stderr
    done = batuta("pacha", "store", "remove", "--force", ADDRESS, code=0)
    assert done.stdout == f"removed {ADDRESS}, m:latest\n"
    batuta("pacha", "store", "remove", ADDRESS, code=1)


def test_damaged_names_are_exit_1_and_delete_nothing(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    (root / "names.toml").write_text("")
    for command in (["gc"], ["list"], ["path", "m"], ["add", str(model)], ["remove", "m"], ["verify"]):
        done = batuta("pacha", "store", *command, "--json", code=1)
        assert answer(done)["error"]["kind"] == "damaged_state"
    assert object_path(root).exists()


# Names and addresses in the place of a PATH


def test_a_signed_model_is_verified_by_name_and_address(batuta: Run, model: Path) -> None:
    batuta("pacha", "keygen", "--identity", "alice@example.com", code=0)
    batuta("pacha", "sign", model, code=0)
    batuta("pacha", "store", "add", model, "--name", "llama:8b", code=0)
    model.unlink()
    for reference in ("llama:8b", ADDRESS):
        done = batuta("pacha", "verify", reference, code=0)
        assert "verified" in done.stdout and done.stderr == "", "no warning: it was signed under its file name"
        assert batuta("pacha", "hash", reference, code=0).stdout == f"{ADDRESS}  {reference}\n"


def test_an_object_is_signed_in_the_store(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "keygen", "--identity", "alice@example.com", code=0)
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    batuta("pacha", "verify", "m", code=3)
    batuta("pacha", "sign", "m", code=0)
    assert (root / "signatures" / f"{ADDRESS.removeprefix('blake3:')}.sig").exists()
    batuta("pacha", "verify", "m", "--name", "model.gguf", code=0)


def test_a_changed_object_does_not_verify_whatever_its_signature_says(batuta: Run, model: Path, root: Path) -> None:
    batuta("pacha", "keygen", "--identity", "alice@example.com", code=0)
    batuta("pacha", "store", "add", model, "--name", "m", code=0)
    damage(object_path(root))
    batuta("pacha", "sign", "m")  # a signature of the wrong content, by a trusted key
    done = batuta("pacha", "verify", "m", code=3)
    assert "verified," not in done.stdout


def test_what_is_in_neither_place(batuta: Run) -> None:
    done = batuta("pacha", "verify", "llama:8b", code=1)
    assert "no such file, and nothing in the store has that name" in done.stderr


def test_kill_9_while_stdin_is_read_leaves_nothing(batuta: Run, environment: dict[str, str], root: Path) -> None:
    process = subprocess.Popen([BATUTA, "pacha", "store", "add", "-"], stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(b"m" * (9 << 20))  # returns when all but what fits in a pipe has been read
    process.stdin.flush()
    process.kill()
    process.communicate()
    left = {path.name for path in root.rglob("*") if not path.is_dir()}
    assert left == {"lock", "names.toml"}
    assert os.listdir(root / "incoming") == []
    batuta("pacha", "store", "verify", code=0)
