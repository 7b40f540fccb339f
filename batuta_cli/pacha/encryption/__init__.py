"""Encrypted model files, PACHAENC version 1 and 2: authenticated encryption under a password.

    from batuta_cli.pacha.encryption import decrypt_path, encrypt_path, open_encrypted

    encrypt_path("model.gguf", "model.gguf.enc", password, format=2)
    with open_encrypted("model.gguf.enc", password) as file:
        magic = file.read(4)

The files here, from the bytes up: `kdf` and `header`; the ciphers `v1` and `v2`; `source` and `sink`, where bytes
come from and go to; and what users call: `memory`, `transfer`, `reader`, `describe`, `passwords`.
"""

from batuta_cli.pacha.encryption.describe import Description, describe, describe_stream
from batuta_cli.pacha.encryption.header import is_encrypted
from batuta_cli.pacha.encryption.kdf import DEFAULT_MEMORY_LIMIT_KIB, MEMORY_CEILING_KIB
from batuta_cli.pacha.encryption.memory import decrypt_model, encrypt_model
from batuta_cli.pacha.encryption.passwords import (
    Password,
    normalise,
    password_from_descriptor,
    password_from_env,
    password_from_file,
)
from batuta_cli.pacha.encryption.reader import open_encrypted
from batuta_cli.pacha.encryption.transfer import (
    EncryptedFile,
    decrypt_path,
    decrypt_stream,
    encrypt_path,
    encrypt_stream,
)
from batuta_cli.pacha.encryption.unlock import DEFAULT_FORMAT, FORMATS

__all__ = [
    "DEFAULT_FORMAT",
    "DEFAULT_MEMORY_LIMIT_KIB",
    "FORMATS",
    "MEMORY_CEILING_KIB",
    "Description",
    "EncryptedFile",
    "Password",
    "decrypt_model",
    "decrypt_path",
    "decrypt_stream",
    "describe",
    "describe_stream",
    "encrypt_model",
    "encrypt_path",
    "encrypt_stream",
    "is_encrypted",
    "normalise",
    "open_encrypted",
    "password_from_descriptor",
    "password_from_env",
    "password_from_file",
]
