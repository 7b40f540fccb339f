"""`batuta pacha keygen` and `batuta pacha keys`: the user's own key pairs."""

import dataclasses
import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import InvalidInputError, OperationError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from batuta_cli.pacha.keys import SigningKey, VerifyingKey
    from batuta_cli.pacha.trust import TrustStore

commands = typer.Typer()
group = command_group("keys", "Manage your own keys.")

Identity = Annotated[
    str | None, typer.Option("--identity", metavar="ID", help="Who signs, for example an email address.")
]
PassphraseEnv = Annotated[
    str | None, typer.Option("--passphrase-env", metavar="VAR", help="The variable that holds the key's passphrase.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what exists.")]


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha keygen --identity alice@example.com",
        "KEY_PASSPHRASE=… batuta pacha keygen --identity release --passphrase-env KEY_PASSPHRASE",
        "batuta pacha keygen --output ./ci.key",
    ),
)
def keygen(
    identity: Identity = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the pair here instead of your keys.")
    ] = None,
    passphrase_env: PassphraseEnv = None,
    force: Force = False,
) -> console.CommandResult:
    """Make a new Ed25519 key pair and trust its public key.

    The private key is PKCS#8 PEM with mode 0600, encrypted when a passphrase is given.
    """
    from batuta_cli.cli import secrets
    from batuta_cli.pacha import keyring, trust
    from batuta_cli.pacha.keys import DEFAULT_IDENTITY, SigningKey
    from batuta_cli.pacha.trust_sources import agreeing

    if output == "-":
        raise UsageError("a key pair is two files, so it cannot be written to stdout", hint="--output FILE")
    key = SigningKey.generate(DEFAULT_IDENTITY if identity is None else identity)
    passphrase = None if passphrase_env is None else secrets.from_env(passphrase_env)
    agreeing(_trusting(key))(trust.load())  # refused before a key is written
    if output is not None:
        path = keyring.save_pair(key, Path(output), passphrase=passphrase, force=force)[0]
    else:
        path = keyring.save_own(key, str(key.identity), passphrase=passphrase, force=force)
    return _saved(key, path, encrypted=passphrase is not None)


def _trusting(key: "SigningKey") -> "Callable[[TrustStore], TrustStore]":
    """The change that trusts an own key; an existing entry keeps its dates.

    The change raises `UsageError` when the key is revoked, or trusted under another name.
    """
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.keys import DEFAULT_IDENTITY

    public = key.verifying_key
    entry = trust.TrustedKey(key.identity or DEFAULT_IDENTITY, public, trust.now())

    def change(store: "TrustStore") -> "TrustStore":
        changed = store.with_key(entry)
        return store if store.find(public) else changed

    return change


def _saved(key: Any, path: Path, *, encrypted: bool) -> console.CommandResult:
    """Trust the public half of a key just written, and report."""
    from batuta_cli.pacha import keyring
    from batuta_cli.pacha.trust_sources import update

    public = key.verifying_key
    update(_trusting(key))
    result = {
        "identity": key.identity,
        "key_id": public.key_id,
        "public_key": public.inline,
        "private_path": str(path),
        "public_path": str(keyring.public_path(path)),
        "encrypted": encrypted,
        "trusted": True,
    }
    name = ("-- " if key.identity.startswith("-") else "") + console.shell_word(key.identity)
    text = "\n".join(
        (
            f"identity     {display(key.identity)}",
            f"key id       {public.key_id}",
            f"private key  {display(path)} ({'encrypted with the passphrase' if encrypted else 'not encrypted'})",
            f"public key   {display(keyring.public_path(path))}",
            f"to trust it elsewhere:\n  batuta pacha trust add {name} {public.inline}",
        )
    )
    return console.CommandResult(result, text)


@group.command("list", cls=Command, epilog=examples("batuta pacha keys list", "batuta pacha keys list --json"))
def list_keys() -> console.CommandResult:
    """List your own key pairs, and whether signatures by them are accepted here."""
    from batuta_cli.pacha import keyring, trust_sources

    keys, store = keyring.list_own(), trust_sources.effective()
    result = [
        {
            "identity": k.identity,
            "key_id": k.public.key_id,
            "public_key": k.public.inline,
            "encrypted": k.encrypted,
            "path": str(k.path),
        }
        | _state(k.public, store)
        for k in keys
    ]
    if not keys:
        console.note("there are no keys yet; batuta pacha keygen --identity you@example.com")
    rows = [
        (k.identity, k.public.key_id, _state_text(row), "yes" if k.encrypted else "no", str(k.path))
        for k, row in zip(keys, result, strict=True)
    ]
    return console.CommandResult(result, console.Table(("IDENTITY", "KEY ID", "STATE", "ENCRYPTED", "FILE"), rows))


def _state(key: "VerifyingKey", store: "TrustStore") -> dict[str, Any]:
    """The state of a key in the trust store, and since when: trusted, untrusted, revoked, retired or not_yet_valid."""
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.statement import format_time

    now, known = trust.now(), store.find(key)
    if revocation := store.revocation_of(key):
        return {"state": "revoked", "since": format_time(revocation.at)}
    if known is None:
        return {"state": "untrusted", "since": None}
    # A key that is rotated keeps the second in which it signed last, and is shown as retired at once.
    if known.valid_until and known.valid_until <= now + dt.timedelta(seconds=1):
        return {"state": "retired", "since": format_time(known.valid_until)}
    if known.valid_from and now < known.valid_from:
        return {"state": "not_yet_valid", "since": format_time(known.valid_from)}
    return {"state": "trusted", "since": None}


def _state_text(row: dict[str, Any]) -> str:
    words = {"untrusted": "not trusted", "not_yet_valid": "valid from"}.get(row["state"], row["state"])
    return " ".join(filter(None, (words, (row["since"] or "").partition("T")[0])))


@group.command(
    "export",
    cls=Command,
    epilog=examples(
        "batuta pacha keys export alice@example.com > alice.pub", "batuta pacha keys export --format inline"
    ),
)
def export_key(
    identity: Annotated[
        str | None, typer.Argument(metavar="IDENTITY", help="Which of your keys; needed when there are several.")
    ] = None,
    format: Annotated[str, typer.Option("--format", metavar="pem|openssh|inline", help="How to write it.")] = "pem",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout.")
    ] = "-",
    force: Force = False,
) -> console.CommandResult:
    """Write the public key of one of your key pairs, for others to trust."""
    from batuta_cli.files import write_file
    from batuta_cli.pacha import keyring

    try:
        key = (keyring.choose_own(None) if identity is None else keyring.find_own(identity)).public
    except UsageError as error:
        if identity is not None:
            raise
        raise UsageError(error.message, hint="name one: batuta pacha keys export IDENTITY") from None
    writers: dict[str, Callable[[], bytes]] = {
        "pem": key.to_pem,
        "openssh": key.to_openssh,
        "inline": lambda: key.inline.encode() + b"\n",
    }
    if format not in writers:
        raise InvalidInputError(f"no such key format: {display(format)}", hint="pem, openssh or inline")
    data = writers[format]()
    result = {"key_id": key.key_id, "public_key": key.inline, "text": data.decode()}
    if output == "-":
        return console.CommandResult(result, raw=data)
    write_file(output, data, force=force)
    return console.CommandResult(result | {"output": output}, f"wrote {display(output)}")


@group.command(
    "import",
    cls=Command,
    epilog=examples(
        "batuta pacha keys import ~/.ssh/id_ed25519 --identity alice@example.com",
        "batuta pacha keys import pacha.pem --identity release",
    ),
)
def import_key(
    file: Annotated[str, typer.Argument(metavar="FILE|env:VAR|-", help="A private key; - is stdin.")],
    identity: Identity = None,
    passphrase_env: PassphraseEnv = None,
    force: Force = False,
) -> console.CommandResult:
    """Import a private Ed25519 key: PKCS#8 PEM, OpenSSH, or the Rust crate's PEM.

    It is stored as PKCS#8, encrypted with the given passphrase, and its public key is trusted.
    """
    from batuta_cli.cli import secrets
    from batuta_cli.pacha import keyring, trust
    from batuta_cli.pacha.keys import DEFAULT_IDENTITY, is_encrypted_key
    from batuta_cli.pacha.trust_sources import agreeing

    name = DEFAULT_IDENTITY if identity is None else identity
    data, label = secrets.read_key(file)
    asked = passphrase_env is not None or is_encrypted_key(data)
    passphrase = secrets.passphrase(passphrase_env, of=label) if asked else None
    key = secrets.parse_with(data, label, passphrase=passphrase, identity=name)
    agreeing(_trusting(key))(trust.load())
    path = keyring.save_own(key, name, passphrase=passphrase, force=force)
    return _saved(key, path, encrypted=passphrase is not None)


Own = Annotated[str, typer.Argument(metavar="IDENTITY", help="Which of your keys.")]


@group.command(
    cls=Command,
    epilog=examples(
        "batuta pacha keys rotate release@example.com --endorsement release.endorsement",
        "KEY_PASSPHRASE=… batuta pacha keys rotate release --passphrase-env KEY_PASSPHRASE",
    ),
)
def rotate(
    identity: Annotated[
        str | None, typer.Argument(metavar="IDENTITY", help="Which of your keys; needed when there are several.")
    ] = None,
    passphrase_env: PassphraseEnv = None,
    new_passphrase_env: Annotated[
        str | None,
        typer.Option(metavar="VAR", help="The variable that holds the new key's passphrase, if it is another one."),
    ] = None,
    endorsement: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where to write the endorsement; beside the kept key by default."),
    ] = None,
) -> console.CommandResult:
    """Replace a key by a new one under the same name, which the old one endorses.

    The old key is kept as IDENTITY.DATE and retired: its signatures up to now stay valid, and it signs no more. Publish
    the endorsement, so that others can use it with `trust add --endorsed-by`. A stolen key must be revoked instead.
    """
    from batuta_cli.cli import secrets
    from batuta_cli.pacha import keyring, rotation, trust, trust_sources
    from batuta_cli.pacha.keys import is_encrypted_key
    from batuta_cli.pacha.signer import check_may_sign
    from batuta_cli.pacha.statement import format_time

    own = keyring.choose_own(None) if identity is None else keyring.find_own(identity)
    check_may_sign(own.public, trust_sources.effective(), trust.now())
    data = keyring.read_private_file(own.path)
    passphrase = secrets.passphrase(passphrase_env, of=str(own.path)) if is_encrypted_key(data) else None
    old = secrets.parse_with(data, str(own.path), passphrase=passphrase, identity=own.identity)
    if old.verifying_key != own.public:
        raise InvalidInputError(f"{display(own.path)}: does not belong to the public key beside it")
    new_passphrase = passphrase if new_passphrase_env is None else secrets.from_env(new_passphrase_env)
    done = rotation.rotate(own, old, old_passphrase=passphrase, new_passphrase=new_passphrase, endorsement=endorsement)
    public = done.key.verifying_key
    result = {
        "identity": own.identity,
        "key_id": public.key_id,
        "public_key": public.inline,
        "private_path": str(done.path),
        "encrypted": new_passphrase is not None,
        "endorsement": str(done.endorsement),
        "old": {
            "identity": done.old.identity,
            "key_id": own.public.key_id,
            "path": str(done.old.path),
            "retired_from": format_time(done.retired_from),
        },
    }
    file = console.shell_word(os.path.basename(done.endorsement))
    text = "\n".join(
        (
            f"new key      {public.key_id} of {display(own.identity)}",
            f"old key      {own.public.key_id}, retired, kept as {display(done.old.identity)}",
            f"endorsement  {display(done.endorsement)}",
            "publish the endorsement; others trust the new key with:",
            f"  batuta pacha trust add {_word(own.identity)} --endorsed-by {file}",
        )
    )
    return console.CommandResult(result, text)


def _word(identity: str) -> str:
    return ("-- " if identity.startswith("-") else "") + console.shell_word(identity)


@group.command(cls=Command, epilog=examples("batuta pacha keys rename default alice@example.com"))
def rename(
    identity: Own,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new identity.")],
) -> console.CommandResult:
    """Give a key another identity, here and in the trust store.

    Signatures that it made under the old identity are refused afterwards, because they name another signer.
    """
    from batuta_cli.pacha import keyring, trust
    from batuta_cli.pacha.keys import check_identity
    from batuta_cli.pacha.trust_sources import agreeing

    check_identity(new)
    own = keyring.find_own(identity)

    def change(store: "TrustStore") -> "TrustStore":
        known = store.find(own.public)
        if known is None or known.name != identity or store.revocation_of(own.public):
            return store
        return store.without_key(own.public).with_key(dataclasses.replace(known, name=new))

    checked, before = agreeing(change), trust.load()
    is_renamed = checked(before) != before  # refused before a file is renamed
    path = keyring.rename_own(identity, new)
    trust.update(checked)
    if is_renamed:
        console.warn(f"signatures that this key made as {display(identity)} are refused here from now on; sign again")
    _warn_of_default(identity, f"batuta config set pacha.default_key {_word(new)}")
    result = {"identity": new, "key_id": own.public.key_id, "path": str(path), "was": identity}
    return console.CommandResult(result, f"renamed {display(identity)} to {display(new)} (key {own.public.key_id})")


@group.command(cls=Command, epilog=examples("batuta pacha keys remove old-laptop --yes"))
def remove(
    identity: Own,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete it without a question.")] = False,
) -> console.CommandResult:
    """Delete one of your key pairs permanently.

    Signatures that it made stay valid. `trust revoke` or `trust remove` refuses them.
    """
    from batuta_cli.pacha import keyring

    path = keyring.key_path(identity)
    if not os.path.lexists(path):
        keyring.find_own(identity)  # raises with the names of the keys that exist
    question = f"delete the private key {display(path)} permanently?"
    if not yes and not console.confirm(question, hint="--yes answers it"):
        raise OperationError("nothing was changed")
    keyring.remove_own(identity)
    _warn_of_default(identity, "batuta config unset pacha.default_key")
    return console.CommandResult({"identity": identity, "path": str(path)}, f"deleted {display(path)}")


def _warn_of_default(identity: str, command: str) -> None:
    from batuta_cli import config

    if config.load().pacha.default_key == identity:
        console.warn(f"pacha.default_key still names {display(identity)}; change it: {command}")
