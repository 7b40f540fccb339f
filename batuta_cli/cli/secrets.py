"""Reads secrets from variables, files, stdin or the terminal; never from an argument."""

import os
from typing import TYPE_CHECKING

from batuta_cli.cli import console
from batuta_cli.cli.models import read_stdin
from batuta_cli.errors import UsageError
from batuta_cli.files import display
from batuta_cli.pacha.keyring import read_private_file
from batuta_cli.pacha.keys import KEY_FILE_LIMIT, SigningKey, is_encrypted_key
from batuta_cli.secrecy import called_variable

if TYPE_CHECKING:
    from batuta_cli.pacha.oms.eckeys import EcSigningKey

ENV_PREFIX = "env:"


def from_env(variable: str) -> bytes:
    """The value of an environment variable. Raises `UsageError` that names it when it is unset or empty."""
    value = os.environb.get(os.fsencode(variable), b"")
    if not value:
        state = "is empty" if variable in os.environ else "is not set"
        raise UsageError(
            f"{called_variable(variable)} {state}", hint="give the NAME of a variable that is set, not a value"
        )
    return value


def passphrase(variable: str | None, *, of: str) -> bytes:
    """The passphrase of an encrypted key: from the named variable, else from the terminal."""
    if variable is not None:
        return from_env(variable)
    return console.ask_secret(f"Passphrase of {of}", hint="--passphrase-env VAR reads it from a variable").encode()


def read_key(source: str) -> tuple[bytes, str]:
    """A private key's bytes from a file, `env:VAR` or `-` (stdin), and its name for messages."""
    if source == "-":
        return read_stdin(KEY_FILE_LIMIT), "stdin"
    if source.startswith(ENV_PREFIX):
        return from_env(source.removeprefix(ENV_PREFIX)), source
    return read_private_file(source), source


def signing_key(source: str, *, passphrase_env: str | None, identity: str | None) -> SigningKey:
    """A private key from a file, `env:VAR` or `-`; the passphrase is read only when the key is encrypted."""
    data, label = read_key(source)
    secret = passphrase(passphrase_env, of=label) if is_encrypted_key(data) else None
    return parse_with(data, label, passphrase=secret, identity=identity)


def oms_key(source: str, *, passphrase_env: str | None) -> "EcSigningKey":
    """A private ECDSA key from a file, `env:VAR` or `-`; its passphrase is asked for only when it has one."""
    from batuta_cli.pacha.oms.eckeys import EcSigningKey

    data, label = read_key(source)
    secret = passphrase(passphrase_env, of=label) if is_encrypted_key(data) else None
    return EcSigningKey.parse(data, passphrase=secret, source=display(label))


def parse_with(data: bytes, label: str, *, passphrase: bytes | None, identity: str | None) -> SigningKey:
    """Read a private key, encrypted with `passphrase` or not encrypted."""
    return SigningKey.parse(data, passphrase=passphrase, identity=identity, source=display(label))
