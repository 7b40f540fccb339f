"""`batuta pacha trust`: the trusted and revoked keys."""

import datetime as dt
import os
from typing import Annotated, Any

import typer

from batuta_cli import paths
from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import InvalidInputError, NotFoundError, OperationError, UsageError, WrongSignerError
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
        "batuta pacha trust add company-ca authority.pem",
        "batuta pacha trust add release ed25519:Pw4TZ2bFIfS1dROnu6HeUM+bWXkbG348k+RXvvAgESk= --valid-from 2026-01-01",
    ),
)
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the signer; it must be the identity in its signatures.")
    ],
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY", help="A public key or an authority's certificate: a file, - for stdin, or ed25519:BASE64."
        ),
    ] = None,
    endorsed_by: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Trust the new key that a key of NAME endorses in this file (see keys rotate)."
        ),
    ] = None,
    valid_from: Annotated[
        str | None, typer.Option(metavar="DATE", help="Accept only signatures dated then or later (UTC).")
    ] = None,
    valid_until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Accept only signatures dated before then (UTC).")
    ] = None,
) -> console.CommandResult:
    """Trust a public key under a name: Ed25519 or ECDSA, in PEM, as an OpenSSH line, or the Rust crate's PEM.

    The PEM certificate of an authority is accepted as well. The certificates that it issues then count in signatures of
    OpenSSF Model Signing tools, for the signers that `verify --identity` names.
    """
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.keys import AUTHORITY_TYPE
    from batuta_cli.pacha.trust_sources import update

    if key == endorsed_by == "-":
        raise UsageError("stdin can be read once only", hint="name a file instead of the second -")
    public = None if key is None else _public_key(key)
    if endorsed_by is not None:
        public = _endorsed(endorsed_by, name, public)
    if public is None:
        raise UsageError("missing argument KEY", hint="batuta pacha trust add --help")
    entry = trust.TrustedKey(
        name,
        public,
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

    stored = update(change).find(entry.key) or entry
    until = f", until {stored.valid_until:%Y-%m-%d %H:%M:%SZ}" if stored.valid_until else ""
    kind = "authority, key" if stored.key.key_type == AUTHORITY_TYPE else "key"
    return console.CommandResult(_entry(stored), f"trusted {display(name)} ({kind} {entry.key.key_id}){until}")


def _endorsed(file: str, name: str, key: Any) -> Any:
    """The new key of an endorsement by a key that is trusted as `name`; it must be `key`, when that was given."""
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.files import read_limited
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.endorsement import ENDORSEMENT_LIMIT, Endorsement, check_endorsement
    from batuta_cli.pacha.trust_sources import effective

    data = read_stdin(ENDORSEMENT_LIMIT) if file == "-" else read_limited(file, ENDORSEMENT_LIMIT)
    endorsement = Endorsement.parse(data, "stdin" if file == "-" else display(file))
    check_endorsement(endorsement, name, effective(), trust.now())
    if key is not None and key != endorsement.new_key:
        raise WrongSignerError(
            f"{display(file)} endorses the key {endorsement.new_key.key_id}, not the key {key.key_id} that was given"
        )
    return endorsement.new_key


def _public_key(text: str) -> Any:
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.pacha import keyring
    from batuta_cli.pacha.keys import KEY_FILE_LIMIT
    from batuta_cli.pacha.oms.eckeys import is_inline, parse_trusted

    if is_inline(text):
        return parse_trusted(text.encode())
    if text == "-":
        return parse_trusted(read_stdin(KEY_FILE_LIMIT), "stdin")
    return keyring.read_trusted_file(text)


def _entry(entry: Any) -> dict[str, Any]:
    from batuta_cli.pacha.statement import format_time

    return {
        "name": entry.name,
        "key_id": entry.key.key_id,
        "key_type": entry.key.key_type,
        "public_key": entry.key.inline,
        "added": format_time(entry.added),
        "valid_from": format_time(entry.valid_from),
        "valid_until": format_time(entry.valid_until),
    }


@group.command("list", cls=Command, epilog=examples("batuta pacha trust list"))
def list_trusted() -> console.CommandResult:
    """List trusted and revoked keys, those of /etc/batuta/trust.toml included."""
    from batuta_cli.pacha import trust, trust_sources
    from batuta_cli.pacha.keys import AUTHORITY_TYPE
    from batuta_cli.pacha.statement import format_time

    own, system = trust.load(), trust_sources.load_system()
    store = trust_sources.combine(own, system)
    result = {
        "keys": [
            _entry(t) | {"revoked": store.revocation_of(t.key) is not None, "system": own.find(t.key) is None}
            for t in store.keys
        ],
        "revoked": [_revocation(r) | {"system": own.revocation_of(r.key) is None} for r in store.revoked],
    }
    rows = []
    for entry in store.keys:
        if not store.revocation_of(entry.key):
            limits = [f"from {format_time(entry.valid_from)}"] if entry.valid_from else []
            limits += [f"until {format_time(entry.valid_until)}"] if entry.valid_until else []
            limits += ["by the system"] if own.find(entry.key) is None else []
            kind = "trusted authority " if entry.key.key_type == AUTHORITY_TYPE else "trusted "
            rows.append((entry.name, entry.key.key_id, kind + ", ".join(limits)))
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

    try:
        entry = _known(key, trust.load())
    except NotFoundError:
        _refuse_system(key)
        raise
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
    from batuta_cli.pacha.trust_sources import effective

    try:
        reason.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"--reason: {display(reason)} is not UTF-8") from None
    store = effective()
    try:
        public = _known(key, store).key
    except NotFoundError:  # a key that was never trusted here can be revoked too
        if not (key == "-" or is_inline(key) or os.path.exists(key)):
            raise
        public = _public_key(key)
    wanted = trust.Revocation(public, trust.now(), reason)
    revocation = trust.update(lambda current: current.with_revocation(wanted)).revocation_of(public) or wanted
    text = f"revoked the key {public.key_id}"
    if revocation is not wanted:
        because = f": {display(revocation.reason)}" if revocation.reason else ""
        text = f"the key {public.key_id} was already revoked on {revocation.at:%Y-%m-%d}{because}"
    return console.CommandResult(_revocation(revocation), text)


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
    from batuta_cli.pacha.trust_sources import combine, load_system

    until = _date(start, "--from")

    def retired(store: trust.TrustStore) -> trust.TrustStore:
        entry = _known(key, combine(store, load_system()))
        return store.with_key(dataclasses.replace(store.find(entry.key) or entry, valid_until=until))

    entry = _known(key, trust.update(retired))
    console.warn(
        "this assumes that the key was never stolen: a thief can backdate signatures;"
        f" if in doubt, batuta pacha trust revoke {entry.key.key_id}"
    )
    return console.CommandResult(
        _entry(entry), f"{display(entry.name)} (key {entry.key.key_id}) counts until {format_time(until)}"
    )


@group.command(
    "export",
    cls=Command,
    epilog=examples(
        "batuta pacha trust export > trust.toml", "batuta pacha trust export --output ci/trust.toml --force"
    ),
)
def export_trust(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout.")
    ] = "-",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> console.CommandResult:
    """Write your trusted and revoked keys as one file, for `trust import` and `verify --trust`.

    The keys of /etc/batuta/trust.toml are not in it.
    """
    from batuta_cli.files import write_file
    from batuta_cli.pacha import trust

    store = trust.load()
    data = trust.to_toml(store)
    result = {
        "keys": [_entry(entry) for entry in store.keys],
        "revoked": [_revocation(revocation) for revocation in store.revoked],
    }
    if output == "-":
        return console.CommandResult(result | {"text": data.decode()}, raw=data)
    write_file(output, data, force=force)
    count = f"{len(store.keys):,} trusted and {len(store.revoked):,} revoked keys"
    return console.CommandResult(result | {"output": output}, f"wrote {count} to {display(output)}")


@group.command(
    "import",
    cls=Command,
    epilog=examples("batuta pacha trust import team.toml", "batuta pacha trust import allowed_signers --yes"),
)
def import_trust(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of trust export, or OpenSSH allowed_signers; - is stdin.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Make the changes without a question.")] = False,
) -> console.CommandResult:
    """Add the keys and revocations of a file, after showing what changes.

    Revocations and periods of validity that are set here are kept. A key that is revoked here is not trusted.
    """
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.trust_files import TRUST_FILE_LIMIT, merge, parse_trust, read_trust_file
    from batuta_cli.pacha.trust_sources import agreeing

    given = parse_trust(read_stdin(TRUST_FILE_LIMIT), "stdin") if file == "-" else read_trust_file(file)
    change = agreeing(lambda store: merge(store, given)[0])
    before = trust.load()
    change(before)  # raises before the question
    changes = merge(before, given)[1]
    result = {"changes": [_change(row) for row in changes]}
    lines = [_change_line(row) for row in changes]
    if all(row.kind == "skip" for row in changes):
        return console.CommandResult(result, "\n".join((*lines, "nothing to change")))
    if not yes:
        try:
            agreed = console.confirm("\n".join((*lines, "make these changes?")), hint="--yes answers it")
        except UsageError as error:
            raise UsageError("\n  ".join((error.message, *lines)), hint=error.hint, result=result) from None
        if not agreed:
            raise OperationError("nothing was changed", result=result)

    def confirmed(store: trust.TrustStore) -> trust.TrustStore:
        if store != before:
            raise OperationError("another process changed the trust store; nothing was imported", hint="try again")
        return change(store)

    trust.update(confirmed)
    return console.CommandResult(result, "\n".join(lines))


def _change(row: Any) -> dict[str, Any]:
    shown = _revocation(row.entry) if row.kind == "revoke" else _entry(row.entry)
    return {"change": row.kind} | shown | {"same_name": list(row.beside)}


def _change_line(row: Any) -> str:
    from batuta_cli.pacha.statement import format_time

    entry = row.entry
    if row.kind == "revoke":
        return f"revoke the key {entry.key.key_id}: {display(entry.reason)}"
    who = f"{display(entry.name)} (key {entry.key.key_id})"
    if row.kind == "skip":
        return f"do not trust {who}: it is revoked here"
    period = [f"from {format_time(entry.valid_from)}"] if entry.valid_from else []
    period += [f"until {format_time(entry.valid_until)}"] if entry.valid_until else []
    beside = f", in addition to its key {', '.join(row.beside)}" if row.beside else ""
    return f"{'trust' if row.kind == 'trust' else 'limit'} {' '.join((who, *period))}{beside}"


def _refuse_system(wanted: str) -> None:
    """Raise `OperationError` when a key is trusted by the system's file alone, which this command does not change."""
    from batuta_cli.pacha.trust_sources import load_system

    entry = _known(wanted, load_system())
    raise OperationError(
        f"{display(entry.name)} (key {entry.key.key_id}) is trusted in {paths.SYSTEM_TRUST_FILE}",
        hint=f"edit that file as root; or refuse the key: batuta pacha trust revoke {entry.key.key_id}",
    )


def _known(wanted: str, store: Any) -> Any:
    """The trusted entry for a name, a key id, an inline key or a key file."""
    try:
        return store.select(wanted)
    except NotFoundError:
        if not os.path.isfile(wanted):
            raise
    return store.select(_public_key(wanted).inline)
