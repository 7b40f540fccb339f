"""The files of a model, and what shows that one has changed; test_hashing.py has what scans refuse."""

import os
from pathlib import Path

import pytest

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.pacha.scanning import check_unchanged, scan


def _model(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    (model / "b").mkdir(parents=True)
    for name in ("c", "b/a", "a"):
        (model / name).write_bytes(name.encode())
    return model


def test_a_scan_has_names_sizes_and_times_in_the_order_of_code_points(tmp_path: Path) -> None:
    model = _model(tmp_path)
    entries = scan(model)
    assert [(entry.name, entry.size) for entry in entries] == [("a", 1), ("b/a", 3), ("c", 1)]
    for entry in entries:
        status = os.stat(model / entry.name)
        assert (entry.path, entry.inode, entry.device) == (str(model / entry.name), status.st_ino, status.st_dev)
        assert (entry.modified, entry.changed) == (status.st_mtime_ns, status.st_ctime_ns)


def test_a_second_scan_names_what_changed_and_takes_a_new_hard_link_for_no_change(tmp_path: Path) -> None:
    model = _model(tmp_path)
    before = scan(model)
    os.link(model / "a", tmp_path / "link")
    again = check_unchanged(model, before)
    assert [entry.shown for entry in again] == [entry.shown for entry in before]
    assert again != before  # the change time is another one
    (model / "b/a").write_bytes(b"longer")
    with pytest.raises(ChangedWhileReadError, match="model/b/a"):
        check_unchanged(model, before)


def test_a_status_is_that_of_the_same_file_until_size_inode_or_modification_time_differ(tmp_path: Path) -> None:
    model = _model(tmp_path)
    entry = scan(model)[0]
    assert entry.is_same(os.stat(model / "a"))
    os.utime(model / "a", ns=(0, 0))
    assert not entry.is_same(os.stat(model / "a"))
    assert not scan(model)[0].is_same(os.stat(model / "c"))
