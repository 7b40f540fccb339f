"""`batuta pacha trust`: the trusted and revoked keys."""

import datetime as dt
import os
from typing import Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.files import display

group = command_group("trust", "Manage the keys whose signatures are accepted, and revoked keys.")

Who = Annotated[str, typer.Argument(metavar="KEY", help="A name, a key id, a key file, or ed25519:BASE64.")]


def _date(text: str | None, option: str) -> dt.datetime | None:
    return None if text is None else parse_date(text, option)


def parse_date(text: str, option: str) -> dt.datetime:
    """The date or time given to `option`, UTC unless it has an offset. Raises `InvalidInputError`."""
    try:
        time = dt.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"{option}: {display(text)} is not a date", hint="2026-11-23 or 2026-11-23T18:00:00Z"
        ) from None


@group.command(
    cls=Command,
    epilog=examples(
        "batuta pacha trust add alice@example.com alice.pub",
        "batuta pacha trust add release ed25519:Pw4TZ2bFIfS1dROnu6HeUM+bWXkbG348k+RXvvAgESk= --valid-from 2026-01-01",
    ),
)
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the signer; it must be the identity in its signatures.")
    ],
    key: Annotated[str, typer.Argument(metavar="KEY", help="A public key file, - for stdin, or ed25519:BASE64.")],
    valid_from: Annotated[
        str | None, typer.Option(metavar="DATE", help="Accept only signatures dated then or later (UTC).")
    ] = None,
    valid_until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Accept only signatures dated before then (UTC).")
    ] = None,
) -> console.CommandResult:
    """Trust a public key under a name: Ed25519 or ECDSA, in PEM, as an OpenSSH line, or the Rust crate's PEM."""
    from batuta_cli.pacha import trust

    entry = trust.TrustedKey(
        name,
        _public_key(key),
        trust.now(),
        _date(valid_from, "--valid-from"),
        _date(valid_until, "--valid-until"),
    )

    def change(store: trust.TrustStore) -> trust.TrustStore:
        known = store.find(entry.key)
        # Trusting a key again does not lift its limits: a retired key stays retired.
        unlimited = entry.valid_from is None and entry.valid_until is None
        keep = known and known.name == name and unlimited and not store.revocation_of(entry.key)
        return store if keep else store.with_key(entry)

    stored = trust.update(change).find(entry.key) or entry
    until = f", until {stored.valid_until:%Y-%m-%d %H:%M:%SZ}" if stored.valid_until else ""
    return console.CommandResult(_entry(stored), f"trusted {display(name)} (key {entry.key.key_id}){until}")


def _public_key(text: str) -> Any:
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.pacha import keyring
    from batuta_cli.pacha.keys import KEY_FILE_LIMIT
    from batuta_cli.pacha.oms.eckeys import is_inline, parse_public_key

    if is_inline(text):
        return parse_public_key(text.encode())
    if text == "-":
        return parse_public_key(read_stdin(KEY_FILE_LIMIT), "stdin")
    return keyring.read_any_public_file(text)


def _entry(entry: Any) -> dict[str, Any]:
    from batuta_cli.pacha.statement import format_time

    return {
        "name": entry.name,
        "key_id": entry.key.key_id,
        "public_key": entry.key.inline,
        "added": format_time(entry.added),
        "valid_from": format_time(entry.valid_from),
        "valid_until": format_time(entry.valid_until),
    }


@group.command("list", cls=Command, epilog=examples("batuta pacha trust list"))
def list_trusted() -> console.CommandResult:
    """List trusted and revoked keys."""
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.statement import format_time

    store = trust.load()
    result = {
        "keys": [_entry(t) | {"revoked": store.revocation_of(t.key) is not None} for t in store.keys],
        "revoked": [_revocation(r) for r in store.revoked],
    }
    rows = []
    for entry in store.keys:
        if not store.revocation_of(entry.key):
            limits = [f"from {format_time(entry.valid_from)}"] if entry.valid_from else []
            limits += [f"until {format_time(entry.valid_until)}"] if entry.valid_until else []
            rows.append((entry.name, entry.key.key_id, "trusted " + ", ".join(limits)))
    for revocation in store.revoked:
        known = store.find(revocation.key)
        state = f"REVOKED {format_time(revocation.at)} {revocation.reason}"
        rows.append((known.name if known else "-", revocation.key.key_id, state))
    if not rows:
        console.note("no key is trusted yet; batuta pacha trust add NAME KEY")
    return console.CommandResult(
        result, console.Table(("NAME", "KEY ID", "STATE"), [(a, b, c.strip()) for a, b, c in rows])
    )


@group.command(cls=Command, epilog=examples("batuta pacha trust remove alice@example.com"))
def remove(key: Who) -> console.CommandResult:
    """Stop trusting a key. A revocation of it stays."""
    from batuta_cli.pacha import trust

    entry = _known(key, trust.load())
    trust.update(lambda store: store.without_key(entry.key))
    return console.CommandResult(_entry(entry), f"{display(entry.name)} (key {entry.key.key_id}) is no longer trusted")


@group.command(cls=Command, epilog=examples('batuta pacha trust revoke alice@example.com --reason "laptop stolen"'))
def revoke(
    key: Who,
    reason: Annotated[
        str, typer.Option(metavar="REASON", help="The reason, shown when a signature of this key is refused.")
    ] = "",
) -> console.CommandResult:
    """Revoke a key permanently: no signature by it is accepted, regardless of its date."""
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.oms.eckeys import is_inline

    try:
        reason.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"--reason: {display(reason)} is not UTF-8") from None
    store = trust.load()
    try:
        public = _known(key, store).key
    except NotFoundError:  # a key that was never trusted here can be revoked too
        if not (key == "-" or is_inline(key) or os.path.exists(key)):
            raise
        public = _public_key(key)
    revocation = trust.Revocation(public, trust.now(), reason)
    revocation = trust.update(lambda current: current.with_revocation(revocation)).revocation_of(public) or revocation
    return console.CommandResult(_revocation(revocation), f"revoked the key {public.key_id}")


def _revocation(revocation: Any) -> dict[str, Any]:
    from batuta_cli.pacha.statement import format_time

    return {
        "key_id": revocation.key.key_id,
        "public_key": revocation.key.inline,
        "at": format_time(revocation.at),
        "reason": revocation.reason,
    }


@group.command(cls=Command, epilog=examples("batuta pacha trust retire alice@example.com --from 2026-12-01"))
def retire(
    key: Who,
    start: Annotated[
        str, typer.Option("--from", metavar="DATE", help="Signatures dated then or later are refused (UTC).")
    ],
) -> console.CommandResult:
    """Accept a key's signatures only if they are dated before DATE.

    The date in a signature is the signer's own claim, so this assumes that the key was never stolen. If it may have
    been stolen, revoke it.
    """
    import dataclasses

    from batuta_cli.pacha import trust
    from batuta_cli.pacha.statement import format_time

    until = _date(start, "--from")

    def retired(store: trust.TrustStore) -> trust.TrustStore:
        return store.with_key(dataclasses.replace(_known(key, store), valid_until=until))

    entry = _known(key, trust.update(retired))
    console.warn(
        "this assumes that the key was never stolen: a thief can backdate signatures;"
        f" if in doubt, batuta pacha trust revoke {entry.key.key_id}"
    )
    return console.CommandResult(
        _entry(entry), f"{display(entry.name)} (key {entry.key.key_id}) counts until {format_time(until)}"
    )


def _known(wanted: str, store: Any) -> Any:
    """The trusted entry for a name, a key id, an inline key or a key file."""
    try:
        return store.select(wanted)
    except NotFoundError:
        if not os.path.isfile(wanted):
            raise
    return store.select(_public_key(wanted).inline)
