"""The trust store: what it keeps, what it refuses, and that a damaged one is never an empty one."""

import base64
import datetime as dt
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import (
    BatutaError,
    DamagedStateError,
    InvalidInputError,
    NotFoundError,
    UnsafeFileError,
    UsageError,
)
from batuta_cli.pacha import trust
from batuta_cli.pacha.keys import VerifyingKey, check_recorded_identity
from batuta_cli.pacha.trust import Revocation, TrustedKey, TrustStore, load, update
from tests.pacha.forge import ALICE, BOB, MALLORY, NOW, trusting

ALICE64 = base64.b64encode(ALICE.raw).decode()
BOB64 = base64.b64encode(BOB.raw).decode()
BY_HAND = f"""
[[key]]
name = "alice@example.com"
public_key = "{ALICE64}"
added = 2026-11-23T12:00:00Z
valid_from = 2026-01-01T02:00:00+02:00
valid_until = 2027-01-01T00:00:00Z

[[revoked]]
public_key = "{BOB64}"
at = 2026-11-23T12:00:00Z
reason = "laptop stolen"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust" / "trust.toml"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def forget(path: Path) -> None:
    """Begin with no trust store, as its error message says: both files go."""
    path.unlink()
    marker(path).unlink()


def marker(path: Path) -> Path:
    return path.with_name("trust.toml.written")


def test_a_store_that_does_not_exist_trusts_nobody(path: Path) -> None:
    assert load(path) == TrustStore()


def test_the_file_of_the_documentation_is_read(path: Path) -> None:
    store = load(write(path, BY_HAND))
    since, until = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert store.keys == (TrustedKey("alice@example.com", ALICE.verifying, NOW, since, until),)
    assert store.revoked == (Revocation(BOB.verifying, NOW, "laptop stolen"),)


def test_what_is_written_is_private_and_read_back(path: Path) -> None:
    store = load(write(path, BY_HAND))
    forget(path)
    assert update(lambda _: store, path) == store == load(path)
    assert path.stat().st_mode & 0o777 == 0o600


DAMAGED: dict[str, str | bytes] = {
    "cut in the middle": BY_HAND[:120],
    "not TOML": "[[key",
    "binary": b"\x80\x00\xff",
    "an unknown key": BY_HAND.replace("valid_until", "only_for"),
    "an unknown table": BY_HAND + "[policy]\nstrict = true\n",
    "no name": BY_HAND.replace('name = "alice@example.com"\n', ""),
    "no public key": BY_HAND.replace(f'public_key = "{BOB64}"\n', ""),
    "a short public key": BY_HAND.replace(ALICE64, "AAAA"),
    "a public key that is not Base64": BY_HAND.replace(ALICE64, "*" * 44),
    "a name with an escape": BY_HAND.replace("alice@", r"\u001b[31m"),
    "a time without an offset": BY_HAND.replace("12:00:00Z", "12:00:00"),
    "a time that is text": BY_HAND.replace("2027-01-01T00:00:00Z", '"2027-01-01"'),
    "a time before the first": BY_HAND.replace("2026-01-01T02:00:00+02:00", "0001-01-01T00:00:00+02:00"),
    "the same key twice": BY_HAND + BY_HAND[: BY_HAND.index("[[revoked]]")],
    "a list that is a value": "key = 1\n",
    "a list of values": "revoked = [1]\n",
    "nested too deeply": "key = " + "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_store_is_an_error_and_never_empty(damage: str, path: Path) -> None:
    write(path, DAMAGED[damage])
    uses: list[Callable[[], TrustStore]] = [
        lambda: load(path),
        lambda: update(lambda store: store.with_key(BOB.trusted()), path),
    ]
    for use in uses:
        with pytest.raises(DamagedStateError, match=r"trust\.toml: the trust store is damaged: .") as caught:
            use()
        assert caught.value.exit_code == 1
    content = DAMAGED[damage]
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())


def test_a_directory_in_the_place_of_the_store_is_damage(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DamagedStateError, match="is a directory"):
        load(path)


@given(text=st.text(max_size=40), at=st.integers(0, len(BY_HAND)), length=st.integers(0, 30))
@settings(max_examples=300)
def test_no_edit_of_the_file_gives_anything_but_a_store_or_an_error(
    text: str, at: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes((BY_HAND[:at] + text + BY_HAND[at + length :]).encode(errors="surrogatepass"))
    try:
        store = load(path)
    except BatutaError as error:
        assert isinstance(error, DamagedStateError)
    else:
        for entry in store.keys:
            assert check_recorded_identity(entry.name) and len(entry.key.key_id) == 32


times = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(9000, 1, 1), timezones=st.just(dt.UTC))
raws = st.integers(9, 2**254).map(lambda y: VerifyingKey(y.to_bytes(32, "little")))  # none of small order
names = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1, max_size=50).filter(
    lambda name: bool(name.strip())
)
entries = st.builds(TrustedKey, names, raws, times, st.none() | times, st.none() | times)
reasons = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
revocations = st.builds(Revocation, raws, times, reasons)


@given(keys=st.lists(entries, max_size=4, unique_by=lambda entry: entry.key), revoked=st.lists(revocations, max_size=4))
def test_every_store_survives_the_disk(
    keys: list[TrustedKey], revoked: list[Revocation], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "trust.toml"
    store = TrustStore(tuple(keys), tuple(revoked))
    assert update(lambda _: store, path) == store == load(path)


def test_a_removed_key_stays_revoked_and_cannot_come_back() -> None:
    store = trusting(ALICE).with_revocation(Revocation(ALICE.verifying, NOW, "stolen")).without_key(ALICE.verifying)
    assert store.find(ALICE.verifying) is None
    assert store.revocation_of(ALICE.verifying) is not None
    with pytest.raises(UsageError, match="was revoked on 2026-11-23: stolen"):
        store.with_key(ALICE.trusted())


def test_revoking_again_keeps_the_first_date_and_reason() -> None:
    store = trusting(revoked=[ALICE])
    again = Revocation(ALICE.verifying, NOW + dt.timedelta(days=1), "no reason")
    assert store.with_revocation(again) == store


def test_a_reason_that_is_not_text_is_refused_before_the_store_is_written(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the reason"):
        update(lambda store: store.with_revocation(Revocation(ALICE.verifying, NOW, "\udcff")), path)
    assert not path.exists()


def test_one_key_is_one_signer_and_one_name_may_have_several_keys() -> None:
    store = trusting(ALICE)
    with pytest.raises(UsageError, match=r"already trusted as alice@example\.com"):
        store.with_key(ALICE.trusted("bob@example.com"))
    assert len(store.with_key(BOB.trusted("alice@example.com")).keys) == 2


def test_adding_a_key_again_under_its_name_replaces_its_entry() -> None:
    retired = ALICE.trusted(until=NOW)
    assert trusting(ALICE).with_key(retired).keys == (retired,)


def test_a_validity_that_ends_before_it_begins_or_a_name_that_deceives_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="ends before it begins"):
        TrustStore().with_key(ALICE.trusted(since=NOW, until=NOW))
    with pytest.raises(InvalidInputError, match="control characters"):
        TrustStore().with_key(replace(ALICE.trusted(), name="a\u202eb"))


@pytest.mark.parametrize("wanted", [ALICE.name, ALICE.key_id, ALICE.key_id[:8].upper(), "ed25519:" + ALICE64])
def test_a_key_is_selected_by_name_id_beginning_of_the_id_or_itself(wanted: str) -> None:
    assert trusting(ALICE, BOB).select(wanted).key == ALICE.verifying


@pytest.mark.parametrize("wanted", [ALICE.key_id[:7], "alice", MALLORY.key_id, ""])
def test_what_names_no_key_selects_none(wanted: str) -> None:
    with pytest.raises(NotFoundError):
        trusting(ALICE, BOB).select(wanted)


def test_a_name_of_several_keys_is_a_question() -> None:
    with pytest.raises(UsageError, match=f"{ALICE.key_id}, {BOB.key_id}"):
        trusting(ALICE, BOB.trusted(ALICE.name)).select(ALICE.name)


def test_changes_made_at_the_same_time_are_all_kept(path: Path) -> None:
    people = [replace(ALICE.trusted(), name=f"n{i}", key=VerifyingKey(bytes([i + 16]) * 32)) for i in range(16)]
    together = threading.Barrier(len(people))

    def add(entry: TrustedKey) -> None:
        together.wait()
        update(lambda store: store.with_key(entry), path)

    threads = [threading.Thread(target=add, args=(entry,)) for entry in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in load(path).keys} == {f"n{i}" for i in range(16)}


def test_the_clock_is_utc_in_whole_seconds() -> None:
    assert (trust.now().tzinfo, trust.now().microsecond) == (dt.UTC, 0)


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_emptied_store_is_damage_because_revocations_were_in_it(path: Path, content: bytes) -> None:
    update(lambda store: store.with_revocation(Revocation(ALICE.verifying, NOW, "stolen")), path)
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match="lost"):
        load(path)


def test_a_store_without_a_key_is_not_an_emptied_one(path: Path) -> None:
    update(lambda store: store.with_key(ALICE.trusted()), path)
    update(lambda store: store.without_key(ALICE.verifying), path)
    assert load(path) == TrustStore()


def test_a_store_that_others_can_write_is_refused(path: Path) -> None:
    update(lambda store: store.with_key(ALICE.trusted()), path)
    path.chmod(0o602)
    with pytest.raises(UnsafeFileError, match="group or others can write"):
        load(path)


def is_missing(path: Path) -> bool:
    """Whether both reading and changing the store say that it is missing, and how to repair that."""
    answers = []
    uses: list[Callable[[], TrustStore]] = [
        lambda: load(path),
        lambda: update(lambda store: store.with_key(BOB.trusted()), path),
    ]
    for use in uses:
        try:
            use()
        except DamagedStateError as error:
            assert error.exit_code == 1 and "the trust store is missing" in error.message
            assert error.hint and "from a backup" in error.hint and f"rm -f {path} {marker(path)}" in error.hint
            answers.append(True)
        else:
            answers.append(False)
    assert len(set(answers)) == 1
    return answers[0]


def test_a_store_that_was_written_and_is_gone_is_an_error_until_it_is_restored_or_forgotten(path: Path) -> None:
    update(lambda store: store.with_revocation(Revocation(ALICE.verifying, NOW, "stolen")), path)
    kept = path.read_bytes()
    path.unlink()
    assert is_missing(path) and not path.exists()
    path.write_bytes(kept)
    path.chmod(0o600)
    assert load(path).revocation_of(ALICE.verifying)
    forget(path)
    assert load(path) == TrustStore() and not path.exists()


def test_a_store_of_the_first_version_gets_its_marker_when_it_is_read_or_changed(path: Path) -> None:
    uses: list[Callable[[], TrustStore]] = [lambda: load(path), lambda: update(lambda store: store, path)]
    for use in uses:
        write(path, BY_HAND)
        use()
        path.unlink()
        assert is_missing(path)
        marker(path).unlink()


def test_a_store_is_read_where_its_marker_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, BY_HAND)
    monkeypatch.setattr(os, "open", refusing_to_write(os.open))
    assert load(path).revocation_of(BOB.verifying)


def refusing_to_write(opener: Callable[..., int]) -> Callable[..., int]:
    def opens(path: str, flags: int, *arguments: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opener(path, flags, *arguments)

    return opens


def test_a_process_killed_between_the_store_and_its_marker_loses_nothing(path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from batuta_cli.pacha import trust
        from tests.pacha.forge import ALICE, NOW
        writes = trust.write_file
        def first_only(path, data, **options):
            writes(path, data, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        trust.write_file = first_only
        revocation = trust.Revocation(ALICE.verifying, NOW, "stolen")
        trust.update(lambda store: store.with_revocation(revocation), Path(sys.argv[1]))
    """
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load(path).revocation_of(ALICE.verifying)
    path.unlink()
    assert is_missing(path)


def test_a_store_that_is_written_for_the_first_time_is_never_missing_to_its_readers(tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / str(i) / "trust.toml"
        done = threading.Event()
        failures: list[BatutaError] = []

        def read(path: Path = path, done: threading.Event = done, failures: list[BatutaError] = failures) -> None:
            while not done.is_set():
                try:
                    load(path)
                except BatutaError as error:
                    failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        update(lambda store: store.with_key(ALICE.trusted()), path)
        done.set()
        reader.join()
        assert not failures


def test_nothing_marks_a_store_that_was_never_written(path: Path) -> None:
    load(path)
    update(lambda store: store, path)
    assert load(path) == TrustStore() and not marker(path).exists()


def test_a_name_with_invisible_characters_is_refused_but_one_of_an_earlier_version_can_be_retired(path: Path) -> None:
    old = replace(ALICE.trusted(), name="alice\u200b@example.com")
    with pytest.raises(InvalidInputError, match=r"invisible characters: alice\\u200b@example\.com"):
        TrustStore().with_key(old)
    store = load(write(path, BY_HAND.replace("alice@", r"alice\u200b@")))
    assert store.keys[0].name == old.name
    assert store.with_key(replace(old, valid_until=NOW)).keys[0].valid_until == NOW
