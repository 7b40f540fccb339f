"""A model in sealed memory is judged as one on disk, and what is judged is what is handed on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import BatutaError, InvalidInputError, OperationError, VerificationError
from batuta_cli.pacha.encryption import encrypt_path
from batuta_cli.pacha.hashing import content_address
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.locate import Located
from batuta_cli.pacha.sealed.content import (
    SealedContent,
    SealingOptions,
    is_encrypted_file,
    plaintext_name,
    seal_model,
    signatures_beside,
)
from batuta_cli.pacha.signer import Policy
from batuta_cli.pacha.signing import ModelSignature, sign_path
from batuta_cli.pacha.verification import Verification, verify_all, verify_path

KEY = SigningKey.generate("alice@example.com")
POLICY = Policy(key=KEY.verifying_key)
BIG = bytes(range(256)) * (5 << 12)  # 5 MiB, which is copied in two pieces


def verified(content: SealedContent, signature: ModelSignature) -> Verification:
    return verify_all(content, [signature], POLICY, label="model", actual_name=None)


def contents(content: SealedContent) -> dict[str, bytes]:
    return {name: Path(file.path).read_bytes() for name, file in content.files.items()}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


# A file that changes.


def changed_when(copied: int, change: Callable[[], object]) -> Callable[[int], None]:
    """A progress function that changes the model once, when `copied` bytes have been worked on."""
    done = [0]

    def advance(count: int) -> None:
        before, done[0] = done[0], done[0] + count
        if before < copied <= done[0]:
            change()

    return advance


@pytest.mark.parametrize("how", ["write", "replace"])
def test_a_change_after_the_copy_is_not_seen(tmp_path: Path, how: str) -> None:
    model = tmp_path / "model"
    model.write_bytes(BIG)
    signature = sign_path(model, KEY)

    def change() -> None:
        if how == "replace":
            model.unlink()
        model.write_bytes(bytes(len(BIG)))

    with seal_model(model, [signature], SealingOptions(), progress=changed_when(len(BIG), change)) as content:
        verified(content, signature)
        assert contents(content) == {".": BIG}
    with pytest.raises(VerificationError):
        verify_path(model, signature, POLICY)


def test_a_change_in_the_middle_of_the_copy_is_a_changed_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(BIG)
    signature = sign_path(model, KEY)
    change = changed_when(1, lambda: model.write_bytes(bytes(len(BIG))))
    with (
        seal_model(model, [signature], SealingOptions(), progress=change) as content,
        pytest.raises(VerificationError),
    ):
        verified(content, signature)


def test_the_bytes_that_are_hashed_are_those_in_memory(tmp_path: Path) -> None:
    """The file is changed before it is copied and right again when it is verified."""
    model = tmp_path / "model"
    model.write_bytes(BIG)
    signature = sign_path(model, KEY)
    model.write_bytes(bytes(len(BIG)))
    restored = changed_when(len(BIG), lambda: model.write_bytes(BIG))
    with (
        seal_model(model, [signature], SealingOptions(), progress=restored) as content,
        pytest.raises(VerificationError),
    ):
        verified(content, signature)
    assert verify_path(model, signature, POLICY)


def test_a_file_of_a_directory_that_changes_after_its_copy_is_not_seen(tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"a": b"1", "b/c": BIG})
    signature = sign_path(model, KEY)

    def rewrite() -> None:
        (model / "a").unlink()
        (model / "new").write_bytes(b"x")

    change = changed_when(1 + len(BIG), rewrite)
    with seal_model(model, [signature], SealingOptions(), progress=change) as content:
        verified(content, signature)
        assert contents(content) == {"a": b"1", "b/c": BIG}


# Judged as on disk.


FILES = {"a": b"1", "b": b"22", "dir/c": b"333"}


@pytest.mark.parametrize(
    "change",
    [
        lambda model: None,
        lambda model: (model / "a").write_bytes(b"2"),
        lambda model: (model / "a").write_bytes(b"longer"),
        lambda model: (model / "a").unlink(),
        lambda model: (model / "new").write_bytes(b"4"),
        lambda model: (model / "a").rename(model / "z"),
        lambda model: (model / "link").symlink_to("a"),
        lambda model: [(model / "a").unlink(), (model / "a").symlink_to("b")],
        lambda model: [(model / "ignored" / "x").unlink(), (model / "ignored" / "y").write_bytes(b"5")],
    ],
    ids=["nothing", "changed", "grown", "missing", "added", "renamed", "a-link", "link-for-a-file", "ignored"],
)
@pytest.mark.parametrize("follow", [False, True], ids=["without links", "with links"])
def test_a_directory_is_judged_in_memory_as_on_disk(
    tmp_path: Path, change: Callable[[Path], object], follow: bool
) -> None:
    model = write(tmp_path / "model", FILES | {"ignored/x": b"0"})
    if follow:
        (model / "linked").symlink_to("b")
    signature = sign_path(model, KEY, ignore=["ignored"], follow_symlinks=follow)
    change(model)

    def outcome(judge: Callable[[], Verification]) -> object:
        try:
            return judge().as_dict()
        except BatutaError as error:
            return type(error), error.message.partition(":")[2], error.result

    on_disk = outcome(lambda: verify_path(model, signature, POLICY, label="model"))
    with seal_model(model, [signature], SealingOptions()) as content:
        assert outcome(lambda: verified(content, signature)) == on_disk


def test_a_link_that_one_of_two_signatures_does_not_follow_is_refused(tmp_path: Path) -> None:
    model = write(tmp_path / "model", FILES)
    plain = sign_path(model, KEY)
    (model / "a").rename(tmp_path / "blob")
    (model / "a").symlink_to(tmp_path / "blob")
    following = sign_path(model, KEY, follow_symlinks=True)
    with seal_model(model, [plain, following], SealingOptions()) as content:
        verified(content, following)
        with pytest.raises(VerificationError) as raised:
            verified(content, plain)
    assert raised.value.result["changed"] == ["a"]


def test_only_signed_files_are_copied_and_only_covered_ones_handed_on(tmp_path: Path) -> None:
    model = write(tmp_path / "model", FILES | {"log": b"0" * 5000})
    signature = sign_path(model, KEY, ignore=["log"])
    with seal_model(model, [signature], SealingOptions(max_memory=6)) as content:
        assert sorted(content.files) == sorted(FILES)
    with seal_model(model, [signature], SealingOptions(), everything=True) as content:
        assert sorted(content.files) == sorted([*FILES, "log"])
        assert sorted(content.covered(verified(content, signature))) == sorted(FILES)
        assert content.address() == content_address(model)


def test_a_directory_with_a_link_or_without_a_file_has_no_address(tmp_path: Path) -> None:
    model = write(tmp_path / "model", FILES)
    (model / "link").symlink_to("a")
    (tmp_path / "empty").mkdir()
    for path in (model, tmp_path / "empty"):
        with seal_model(path, [], SealingOptions(), everything=True) as content, pytest.raises(InvalidInputError):
            content.address()


def test_more_than_the_allowed_memory_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    model = write(tmp_path / "model", FILES)
    signature = sign_path(model, KEY)
    with pytest.raises(OperationError, match="needs 6 bytes of memory, more than --max-memory"):
        seal_model(model, [signature], SealingOptions(max_memory=5), progress=lambda count: pytest.fail("it was read"))


# Encrypted models.


def test_a_file_is_encrypted_when_it_begins_so_and_its_name_says_what_the_plaintext_is_called(tmp_path: Path) -> None:
    (tmp_path / "plain.enc").write_bytes(b"PACHA")
    (tmp_path / "model").write_bytes(b"weights")
    encrypt_path(tmp_path / "model", tmp_path / "cipher", "password")
    assert [is_encrypted_file(tmp_path / name) for name in ("plain.enc", "cipher", "model")] == [False, True, False]
    assert not is_encrypted_file(tmp_path)
    assert plaintext_name("model.gguf.enc", True) == "model.gguf"
    assert plaintext_name("model.gguf.enc", False) == "model.gguf.enc"
    assert plaintext_name(".enc", True) == ".enc"


def test_the_signature_of_the_plaintext_comes_first() -> None:
    found = Located("/m/x.gguf.enc", "x.gguf.enc", "x.gguf.enc")
    assert signatures_beside(found, True)[0] == "/m/x.gguf.sig"
    assert "/m/x.gguf.enc.sig" in signatures_beside(found, True)
    assert signatures_beside(found, False) == found.signatures


def test_an_encrypted_file_inside_a_directory_stays_as_it_was_signed(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"weights")
    model = write(tmp_path / "model", {"a": b"1"})
    encrypt_path(tmp_path / "plain", model / "b.enc", "password")
    signature = sign_path(model, KEY)
    with seal_model(model, [signature], SealingOptions()) as content:
        verified(content, signature)
        assert contents(content)["b.enc"] == (model / "b.enc").read_bytes()


def test_an_encrypted_model_without_a_password_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"weights")
    encrypt_path(tmp_path / "plain", tmp_path / "model", "password")
    with pytest.raises(OperationError, match="no password"):
        seal_model(tmp_path / "model", [], SealingOptions())
