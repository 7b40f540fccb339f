"""Names that are digests, directories and documents of caches."""

from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.caches.trees import files_below, from_home, parse_blob_digest, parse_document


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f"sha256:{'a' * 64}", ("sha256", "a" * 64)),
        (f"sha256-{'a' * 64}", ("sha256", "a" * 64)),
        (f"sha512:{'0' * 128}", ("sha512", "0" * 128)),
        (f"sha256:{'a' * 63}", None),
        (f"sha256:{'A' * 64}", None),
        (f"sha512:{'0' * 64}", None),
        (f"md5:{'0' * 32}", None),
        (f"sha256:{'a' * 64}\n", None),
        ("sha256:../../../etc/passwd", None),
        (None, None),
    ],
)
def test_only_a_digest_of_a_registered_algorithm_and_length_is_one(
    text: object, digest: tuple[str, str] | None
) -> None:
    assert parse_blob_digest(text) == digest


def test_files_are_found_in_order_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/d").write_bytes(b"")
    (tmp_path / "a").symlink_to("b")
    assert [name for name, _ in files_below(str(tmp_path))] == ["a", "b/c/d"]


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\xff", b"[]", b"[" * 100_000])
def test_a_document_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="index: is not"):
        parse_document(data, "index")


def test_without_a_home_there_is_no_place_in_it() -> None:
    assert from_home({"HOME": "/home/a"}, "x") == ["/home/a/x"]
