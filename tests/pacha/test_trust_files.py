"""Merging a trust file: revocations and limits are never lost, and each change is told."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.trust import Revocation, TrustedKey, TrustStore, to_toml
from batuta_cli.pacha.trust_files import merge, parse_trust
from tests.pacha.forge import ALICE, BOB, NOW

DAY = dt.timedelta(days=1)
ALICE_HERE = TrustedKey("alice", ALICE.verifying, NOW)
BOB_HERE = TrustedKey("bob", BOB.verifying, NOW)
NO_LONGER = Revocation(ALICE.verifying, NOW, "stolen")


def kinds(store: TrustStore, given: TrustStore) -> list[str]:
    return [change.kind for change in merge(store, given)[1]]


def test_new_keys_and_revocations_are_added() -> None:
    merged, changes = merge(TrustStore((ALICE_HERE,)), TrustStore((BOB_HERE,), (NO_LONGER,)))
    assert [(entry.name, entry.key) for entry in merged.keys] == [("alice", ALICE.verifying), ("bob", BOB.verifying)]
    assert merged.revoked == (NO_LONGER,)
    assert [change.kind for change in changes] == ["revoke", "trust"]


def test_a_revocation_here_is_kept_and_its_key_is_not_trusted() -> None:
    here = TrustStore((), (NO_LONGER,))
    merged, changes = merge(here, TrustStore((ALICE_HERE,), (replace(NO_LONGER, reason="other", at=NOW + DAY),)))
    assert merged == here
    assert [change.kind for change in changes] == ["skip"]


def test_a_key_that_the_file_both_trusts_and_revokes_is_not_trusted() -> None:
    merged = merge(TrustStore(), TrustStore((ALICE_HERE,), (NO_LONGER,)))[0]
    assert (merged.keys, merged.revoked) == ((), (NO_LONGER,))


def test_limits_are_narrowed_and_never_lifted() -> None:
    retired = replace(ALICE_HERE, valid_until=NOW)
    assert merge(TrustStore((retired,)), TrustStore((ALICE_HERE,))) == (TrustStore((retired,)), ())
    merged, changes = merge(TrustStore((ALICE_HERE,)), TrustStore((retired,)))
    assert merged.keys == (retired,)
    assert [change.kind for change in changes] == ["limit"]
    later = replace(ALICE_HERE, valid_from=NOW - DAY, valid_until=NOW + DAY)
    merged = merge(TrustStore((retired,)), TrustStore((later,)))[0]
    assert (merged.keys[0].valid_from, merged.keys[0].valid_until) == (NOW - DAY, NOW)


def test_periods_without_a_common_time_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="ends before it begins"):
        merge(
            TrustStore((replace(ALICE_HERE, valid_until=NOW),)),
            TrustStore((replace(ALICE_HERE, valid_from=NOW + DAY),)),
        )


def test_a_key_under_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="trusted as alice here, and as mallory in the file"):
        merge(TrustStore((ALICE_HERE,)), TrustStore((replace(ALICE_HERE, name="mallory"),)))


def test_a_second_key_of_a_name_is_told_with_the_first() -> None:
    [change] = merge(TrustStore((ALICE_HERE,)), TrustStore((TrustedKey("alice", BOB.verifying, NOW),)))[1]
    assert (change.kind, change.beside) == ("trust", (ALICE.verifying.key_id,))


POOL = [SigningKey.generate().verifying_key for _ in range(4)]
TIMES = st.none() | st.sampled_from([NOW + n * DAY for n in (-1, 1)])
ENTRIES = st.builds(
    lambda n, start, end: TrustedKey(f"key {n}", POOL[n], NOW, start, end),
    st.integers(0, 3),
    st.none() | st.just(NOW - 2 * DAY),
    TIMES,
)
STORES = st.builds(
    lambda entries, revoked: TrustStore(
        tuple({entry.key: entry for entry in entries}.values()),
        tuple(Revocation(POOL[n], NOW, "") for n in revoked),
    ),
    st.lists(ENTRIES, max_size=4),
    st.lists(st.integers(0, 3), unique=True, max_size=4),
)


@given(STORES, STORES)
def test_an_import_never_widens_trust_in_a_known_key(here: TrustStore, file: TrustStore) -> None:
    merged, changes = merge(here, file)
    assert set(here.revoked) <= set(merged.revoked)
    assert {r.key for r in merged.revoked} == {r.key for r in (*here.revoked, *file.revoked)}
    for before in here.keys:
        after = merged.find(before.key)
        assert after is not None
        assert before.valid_until is None or (after.valid_until is not None and after.valid_until <= before.valid_until)
    assert (merged == here) == all(change.kind == "skip" for change in changes)
    assert kinds(merged, file).count("skip") == kinds(merged, file).__len__()  # a second import changes nothing


@given(STORES)
def test_an_exported_store_is_read_back(store: TrustStore) -> None:
    assert parse_trust(to_toml(store), "f") == store


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "f: is empty"),
        (b" \n", "f: is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[[key]]\nname = 1\n", "f: not a trust file: name is not text"),
        (b"[[key]\n", "f: not a trust file"),
        (b"[keys]\n", "f: not a trust file: unknown key 'keys'"),
        (b"hello world\n", "f: line 1: not a line of an allowed_signers file"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_trust(data, "f")
    assert refused.value.message.startswith(words) or words in refused.value.message


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    assert parse_trust(b"\xef\xbb\xbf" + to_toml(TrustStore((ALICE_HERE,))), "f").keys == (ALICE_HERE,)
