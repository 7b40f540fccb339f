"""`batuta pacha keygen` and `batuta pacha keys`: the user's own key pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from batuta_cli.pacha.keys import SigningKey
    from batuta_cli.pacha.trust import TrustStore

commands = typer.Typer()
group = command_group("keys", "List, export and import your own keys.")

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

    if output == "-":
        raise UsageError("a key pair is two files, so it cannot be written to stdout", hint="--output FILE")
    key = SigningKey.generate(DEFAULT_IDENTITY if identity is None else identity)
    passphrase = None if passphrase_env is None else secrets.from_env(passphrase_env)
    _trusting(key)(trust.load())  # refused before a key is written
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
    from batuta_cli.pacha import keyring, trust

    public = key.verifying_key
    trust.update(_trusting(key))
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
    """List your own key pairs."""
    from batuta_cli.pacha import keyring

    keys = keyring.list_own()
    result = [
        {
            "identity": k.identity,
            "key_id": k.public.key_id,
            "public_key": k.public.inline,
            "encrypted": k.encrypted,
            "path": str(k.path),
        }
        for k in keys
    ]
    if not keys:
        console.note("there are no keys yet; batuta pacha keygen --identity you@example.com")
    rows = [(k.identity, k.public.key_id, "yes" if k.encrypted else "no", str(k.path)) for k in keys]
    return console.CommandResult(result, console.Table(("IDENTITY", "KEY ID", "ENCRYPTED", "FILE"), rows))


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

    name = DEFAULT_IDENTITY if identity is None else identity
    data, label = secrets.read_key(file)
    asked = passphrase_env is not None or is_encrypted_key(data)
    passphrase = secrets.passphrase(passphrase_env, of=label) if asked else None
    key = secrets.parse_with(data, label, passphrase=passphrase, identity=name)
    _trusting(key)(trust.load())
    path = keyring.save_own(key, name, passphrase=passphrase, force=force)
    return _saved(key, path, encrypted=passphrase is not None)
