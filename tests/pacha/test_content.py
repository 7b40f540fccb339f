"""Comparing a model with what was signed: all that is wrong, at once, and nothing that is not."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import ChangedWhileReadError, NotFoundError
from batuta_cli.pacha import hashing
from batuta_cli.pacha.content import Differences, HashedModel, ModelContent
from batuta_cli.pacha.hashing import Resource, hash_entries
from batuta_cli.pacha.scanning import FileEntry
from batuta_cli.pacha.statement import Statement, parse
from tests.pacha.forge import statement, write_model

SIGNED = {"a": b"1", "b": b"22", "c/d": b"333", "e": b"4444"}
MIB = 1024 * 1024


def stated(signed: bytes | Mapping[str, bytes], *, ignore: list[str] | None = None, links: bool = False) -> Statement:
    document = statement(signed)
    document["predicate"]["serialization"] |= {"ignore_paths": ignore or [], "allow_symlinks": links}
    return parse(json.dumps(document).encode())


def test_a_model_as_it_was_signed_has_no_differences(tmp_path: Path) -> None:
    assert not ModelContent(write_model(tmp_path / "m", SIGNED)).differences(stated(SIGNED))
    (tmp_path / "f").write_bytes(b"weights")
    assert not ModelContent(tmp_path / "f").differences(stated(b"weights"))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    found = {"a": b"X", "b": b"22 and more", "moved/d": b"333", "new": b"9"}
    differences = ModelContent(write_model(tmp_path / "m", found)).differences(stated(SIGNED))
    assert differences == Differences(changed=("a", "b"), missing=("e",), added=("new",), renamed=(("c/d", "moved/d"),))
    assert differences.as_dict() == {
        "changed": ["a", "b"],
        "missing": ["e"],
        "added": ["new"],
        "renamed": [{"from": "c/d", "to": "moved/d"}],
    }


@pytest.mark.parametrize("extra", ["new", ".hidden", "c/.git/HEAD", "Thumbs.db"])
def test_the_set_of_files_is_closed(extra: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED | {extra: b""})
    assert ModelContent(model).differences(stated(SIGNED)) == Differences(added=(extra,))


def test_one_changed_bit_of_the_same_size_is_found(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED | {"e": b"4445"})
    assert ModelContent(model).differences(stated(SIGNED)) == Differences(changed=("e",))


def test_a_size_that_was_signed_wrong_is_a_change_even_when_the_digest_fits(tmp_path: Path) -> None:
    document = statement(b"weights")
    document["predicate"]["resources"][0]["annotations"]["size"] = 6
    wrong = parse(json.dumps(document).encode())
    (tmp_path / "f").write_bytes(b"weights")
    assert ModelContent(tmp_path / "f").differences(wrong).changed == (".",)
    assert HashedModel(Resource(".", 7, blake3(b"weights").digest())).differences(wrong).changed == (".",)


def test_two_files_that_change_places_are_both_changed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", {"a": b"2", "b": b"1"})
    assert ModelContent(model).differences(stated({"a": b"1", "b": b"2"})).changed == ("a", "b")


def test_files_with_equal_content_are_paired_one_to_one_when_renamed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", {"x": b"same", "y": b"same", "z": b"same"})
    differences = ModelContent(model).differences(stated({"1": b"same", "2": b"same"}))
    assert sorted(old for old, _ in differences.renamed) == ["1", "2"]
    assert len(differences.added) == 1 and not differences.missing


@given(
    signed=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"33"]), min_size=1),
    found=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"33"])),
)
@settings(max_examples=150, deadline=None)
def test_differences_account_for_every_file_and_are_none_only_for_the_same_files(
    signed: dict[str, bytes], found: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = write_model(tmp_path_factory.mktemp("m"), found)
    differences = ModelContent(model).differences(stated(signed))
    old = {name for name, _ in differences.renamed}
    new = {name for _, name in differences.renamed}
    assert bool(differences) == (signed != found)
    assert set(differences.missing) | old == set(signed) - set(found)
    assert set(differences.added) | new == set(found) - set(signed)
    assert set(differences.changed) == {n for n in set(signed) & set(found) if signed[n] != found[n]}
    assert all(signed[a] == found[b] for a, b in differences.renamed)


def test_ignored_files_do_not_count_but_only_those_that_were_signed_as_ignored(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED | {"run.log": b"", ".git/HEAD": b""})
    assert not ModelContent(model).differences(stated(SIGNED, ignore=["run.log", ".git"]))
    assert ModelContent(model).differences(stated(SIGNED, ignore=["run.log"])).added == (".git/HEAD",)


@pytest.mark.parametrize("recorded", ["*.log", "sub", "HEAD", "ru[n].log", ".gi", "RUN.log", "run.log/x", "**"])
def test_a_recorded_path_leaves_out_itself_and_nothing_that_only_resembles_it(recorded: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED | {"run.log": b"", ".git/HEAD": b"", "c/sub": b"", "c/run.log": b""})
    found = ModelContent(model).differences(stated(SIGNED, ignore=[recorded]))
    assert set(found.added) == {"run.log", ".git/HEAD", "c/sub", "c/run.log"}


def test_a_recorded_path_leaves_out_whatever_kind_of_thing_has_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED | {"dir/deep/x": b"", "dir/y": b"", "file": b""})
    (model / "link").symlink_to("/etc")
    os.mkfifo(model / "fifo")
    everything = stated(SIGNED, ignore=["dir", "file", "link", "fifo", "nothing", "dir/y", "file/below"])
    assert not ModelContent(model).differences(everything)
    assert ModelContent(model).left_out(everything) == ("dir/deep/x", "dir/y", "fifo", "file", "link")


def test_a_signed_file_that_becomes_a_link_to_the_same_content_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED)
    (model / "a").rename(tmp_path / "outside")
    (model / "a").symlink_to("../outside")
    assert ModelContent(model).differences(stated(SIGNED)) == Differences(changed=("a",))
    assert not ModelContent(model).differences(stated(SIGNED, links=True))


def test_what_cannot_be_part_of_a_model_is_told_with_all_else_that_is_wrong(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", SIGNED)
    (model / "a").write_bytes(b"other")
    (model / "link").symlink_to("/etc/passwd")
    os.mkfifo(model / "fifo")
    (tmp_path / os.fsdecode(b"m/\xff")).touch()
    found = ModelContent(model).differences(stated(SIGNED))
    assert found.changed == ("a",)
    assert sorted(found.added) == ["fifo", "link", "\udcff"]


def test_a_file_is_not_a_directory_with_one_file_nor_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    model = write_model(tmp_path / "m", {"a": b"1"})
    assert ModelContent(tmp_path / "f").differences(stated({"a": b"1"})).other_kind
    assert ModelContent(model).differences(stated(b"1")).other_kind
    assert HashedModel(Resource(".", 1, blake3(b"1").digest())).differences(stated({"a": b"1"})).other_kind


def test_a_directory_that_was_emptied_misses_every_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert ModelContent(tmp_path / "m").differences(stated(SIGNED)).missing == tuple(SIGNED)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        ModelContent(tmp_path / "nothing").differences(stated(b""))


@pytest.mark.parametrize("change", ["truncate", "rewrite", "replace", "add"])
def test_a_model_that_changes_while_it_is_compared_is_never_a_success(change: str, tmp_path: Path) -> None:
    signed = {"a": b"small", "b": bytes(2 * MIB)}
    model = write_model(tmp_path / "m", signed)
    os.utime(model / "b", ns=(1, 1))
    (tmp_path / "other").write_bytes(bytes(2 * MIB))
    actions: dict[str, Callable[[], object]] = {
        "truncate": lambda: os.truncate(model / "b", 10),
        "rewrite": lambda: (model / "b").write_bytes(b"\1" * 2 * MIB),
        "replace": lambda: (tmp_path / "other").replace(model / "b"),
        "add": lambda: (model / "new").write_bytes(b""),
    }
    pending = [actions[change]]

    def advance(count: int) -> None:
        if count >= MIB and pending:
            pending.pop()()

    with pytest.raises(ChangedWhileReadError):
        ModelContent(model, advance).differences(stated(signed))


def test_each_file_is_read_once_however_many_statements_it_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(entries: list[FileEntry], advance: Callable[[int], None] | None) -> list[Resource]:
        read.extend(entry.name for entry in entries)
        return hash_entries(entries, advance)

    monkeypatch.setattr(hashing, "hash_entries", counting)
    model = ModelContent(write_model(tmp_path / "m", SIGNED))
    for _ in range(3):
        assert not model.differences(stated(SIGNED))
    assert sorted(read) == sorted(SIGNED)


def test_a_file_that_changes_between_two_statements_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"weights")
    os.utime(path, ns=(1, 1))
    model = ModelContent(path)
    assert not model.differences(stated(b"weights"))
    path.write_bytes(b"WEIGHTS")
    assert model.differences(stated(b"weights")).changed == (".",)


def test_files_of_another_size_are_not_read_at_all(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", {"a": b"longer than signed"})
    counted: list[int] = []
    assert ModelContent(model, counted.append).differences(stated({"a": b"1"})).changed == ("a",)
    assert counted == []
