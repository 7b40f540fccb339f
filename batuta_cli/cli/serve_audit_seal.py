"""`batuta serve audit seal` and `prove`: signed heads of the audit log, and a list of the connections of a tier.

A seal needs both halves of batuta: the log is serve's, and the key is pacha's. So they meet here, where both may be
imported.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.serve_audit import Paths, count_in_words, log_error, places
from batuta_cli.errors import InvalidInputError, PrivacyError, UsageError
from batuta_cli.files import display

SEAL_TYPE = "application/vnd.batuta.audit-seal.v1+json"
"""The DSSE payload type of a seal (docs/formats.md#seal-of-an-audit-log)."""

_FIELDS = ("created", "identity", "decisions", "files")
_LIMIT = 16 * 1024 * 1024  # bytes of a seal; each file of the log takes about 150
_SHOWN = 20


def register(group: typer.Typer) -> None:
    """Add the commands of this module to `serve audit`."""
    group.command(
        cls=Command,
        epilog=examples(
            "batuta serve audit seal --output /mnt/elsewhere/2026-11-26.seal",
            "MODEL_SIGNING_KEY=… batuta serve audit seal --key env:MODEL_SIGNING_KEY > today.seal",
        ),
    )(seal)
    group.command(
        cls=Command,
        epilog=examples(
            "batuta serve audit prove --tier sovereign --since 2026-11-01",
            "batuta serve audit prove --tier sovereign --sealed /mnt/elsewhere/2026-11-26.seal --json",
        ),
    )(prove)


def seal(
    paths: Paths = None,
    identity: Annotated[
        str | None, typer.Option("--identity", "--name", metavar="ID", help="The own key to sign with.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE|env:VAR|-", help="A private key file, env:VAR, or - for stdin.")
    ] = None,
    passphrase_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The environment variable with the key's passphrase.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to write the seal; - is stdout.")
    ] = "-",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> console.CommandResult:
    """Sign the heads of the audit log with an own key.

    `audit verify --sealed FILE` then finds that a sealed decision was changed, removed or rewritten, also by the
    owner of the machine, as long as the seal or the key is kept elsewhere. The log is verified before.
    """
    from batuta_cli.files import write_file
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.signed_document import SignedDocument
    from batuta_cli.pacha.statement import format_time
    from batuta_cli.serve.privacy.audit_verification import verify_log

    signing_key = _signing_key(identity, key, passphrase_env)
    report = verify_log(places(paths))
    if not report.ok:
        return console.CommandResult(None, "", log_error(report))
    fields = {
        "created": format_time(trust.now()),
        "identity": signing_key.identity,
        "decisions": report.records,
        "files": [{"name": file.name, "decisions": file.records, "head": file.head} for file in report.files],
    }
    data = SignedDocument.made(fields, SEAL_TYPE, signing_key).to_json()
    result = fields | {"key_id": signing_key.verifying_key.key_id}
    if output == "-":
        return console.CommandResult(result | {"seal": data.decode()}, raw=data)
    write_file(output, data, force=force)
    return console.CommandResult(result | {"output": output}, f"sealed {count_in_words(report)}: {display(output)}")


def _signing_key(identity: str | None, key: str | None, passphrase_env: str | None) -> Any:
    """The own key or the given one; a revoked or retired one is refused."""
    from batuta_cli.cli import secrets
    from batuta_cli.cli.own_key import own_key
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.signer import check_may_sign
    from batuta_cli.pacha.trust_sources import effective

    store, now = effective(), trust.now()
    if key is None:
        own = own_key(identity)
        check_may_sign(own.public, store, now)
        return secrets.signing_key(str(own.path), passphrase_env=passphrase_env, identity=own.identity)
    given = secrets.signing_key(key, passphrase_env=passphrase_env, identity=identity)
    check_may_sign(given.verifying_key, store, now)
    return given


def sealed_heads(files: Sequence[str], keys: Sequence[str], identities: Sequence[str]) -> list[tuple[str, Any]]:
    """The heads in seals by acceptable keys, each with its seal's signer.

    Raises `SignerError` for a seal by another key, `InvalidInputError` for a file that is not a seal.
    """
    from batuta_cli.cli.verify_options import public_key
    from batuta_cli.files import read_limited
    from batuta_cli.pacha.signed_document import SignedDocument, signer_of
    from batuta_cli.pacha.signer import Policy
    from batuta_cli.pacha.trust_sources import effective
    from batuta_cli.serve.privacy.audit_format import NO_HASH
    from batuta_cli.serve.privacy.audit_verification import is_head

    policy = Policy(effective(), tuple(map(public_key, keys)) or None, tuple(identities) or None)
    found = []
    for name in files:
        try:
            document = SignedDocument.parse(read_limited(name, _LIMIT), SEAL_TYPE)
            rows = document.fields(_FIELDS)["files"]
            heads = [row["head"] for row in rows]
            if not all(isinstance(head, str) and is_head(head) for head in heads):
                raise InvalidInputError("payload.files: has a head that is not a hash")
        except (TypeError, KeyError):
            raise InvalidInputError(f"{display(name)}: not a seal: payload.files is malformed") from None
        except InvalidInputError as error:
            raise InvalidInputError(f"{display(name)}: not a seal: {error.message}", hint=error.hint) from None
        signer = signer_of(document, policy)
        found += [(head, signer) for head in heads if head != NO_HASH]
    return found


def prove(
    paths: Paths = None,
    tier: Annotated[str, typer.Option(metavar="TIER", help="sovereign, private or standard.")] = "sovereign",
    since: Annotated[str | None, typer.Option(metavar="DATE", help="List the connections from then on (UTC).")] = None,
    sealed: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Seals whose heads must be in the log.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Accept seals of this public key only.")] = None,
    identity: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Accept seals of this trusted signer only.")
    ] = None,
) -> console.CommandResult:
    """List every connection of a tier, and say which left this machine.

    The log is verified before, with the seals that are given. Exit 6 when a connection of the tier left the machine,
    that is, when it was allowed to another address than the loopback or a Unix socket; 1 when the log is damaged.
    """
    from batuta_cli.cli.pacha_trust import parse_date
    from batuta_cli.serve.privacy.audit_connections import logged_connections
    from batuta_cli.serve.privacy.audit_verification import verify_log
    from batuta_cli.serve.tiers import PrivacyTier

    wanted = PrivacyTier.parse(tier)
    start = None if since is None else parse_date(since, "--since")
    if (key or identity) and not sealed:
        raise UsageError("--key and --identity say whose seals count; none was given", hint="--sealed FILE")
    where = places(paths)
    heads = sealed_heads(sealed or [], key or [], identity or [])
    report = verify_log(where, [head for head, _ in heads])
    if not report.ok:
        return console.CommandResult(None, "", log_error(report))
    found = list(logged_connections(where, tier=wanted, since=start))
    left = [connection for connection in found if connection.left]
    result = {
        "tier": str(wanted),
        "since": _shown(start),
        "decisions": report.records,
        "sealed_heads": len(heads),
        "connections": [connection.as_dict() for connection in found],
        "left_the_machine": len(left),
    }
    rows = [
        (
            str(connection.as_dict()["time"]),
            connection.request_id,
            connection.backend,
            connection.address,
            ("left the machine" if connection.left else "on this machine") if connection.allowed else "refused",
        )
        for connection in found
    ]
    allowed = sum(connection.allowed for connection in found)
    refused = len(found) - allowed
    if left:
        addresses = sorted({connection.address for connection in left})
        more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
        error = PrivacyError(
            f"{len(left):,} of {allowed:,} {wanted} connections left this machine, to "
            + ", ".join(map(display, addresses[:_SHOWN]))
            + more
        )
        return console.CommandResult(result, console.Table(_COLUMNS, rows), error)
    console.note(f"{allowed:,} {wanted} connections, {refused:,} refused; none left this machine")
    return console.CommandResult(result, console.Table(_COLUMNS, rows))


_COLUMNS = ("TIME", "REQUEST", "BACKEND", "ADDRESS", "WHERE")


def _shown(time: dt.datetime | None) -> str | None:
    from batuta_cli.pacha.statement import format_time

    return format_time(time)
