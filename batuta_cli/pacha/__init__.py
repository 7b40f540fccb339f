"""Trustworthy model files: signatures, encryption, content addresses, a store.

    from batuta_cli.pacha import SigningKey, sign_path, verify_path

Names are imported when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batuta_cli.pacha.encryption import (
        decrypt_model,
        decrypt_path,
        encrypt_model,
        encrypt_path,
        is_encrypted,
        open_encrypted,
    )
    from batuta_cli.pacha.hashing import ContentAddress, content_address
    from batuta_cli.pacha.keys import SigningKey, VerifyingKey, generate_keypair
    from batuta_cli.pacha.sealed.opening import open_verified, verified_directory
    from batuta_cli.pacha.signer import Policy, Signer
    from batuta_cli.pacha.signing import ModelSignature, sign_model, sign_path
    from batuta_cli.pacha.trust import TrustStore
    from batuta_cli.pacha.verification import Verification, verify_model, verify_path

_HOMES = {
    "encryption": (
        "decrypt_model",
        "decrypt_path",
        "encrypt_model",
        "encrypt_path",
        "is_encrypted",
        "open_encrypted",
    ),
    "hashing": ("ContentAddress", "content_address"),
    "keys": ("SigningKey", "VerifyingKey", "generate_keypair"),
    "sealed.opening": ("open_verified", "verified_directory"),
    "signer": ("Policy", "Signer"),
    "signing": ("ModelSignature", "sign_model", "sign_path"),
    "trust": ("TrustStore",),
    "verification": ("Verification", "verify_model", "verify_path"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ContentAddress",
    "ModelSignature",
    "Policy",
    "Signer",
    "SigningKey",
    "TrustStore",
    "Verification",
    "VerifyingKey",
    "content_address",
    "decrypt_model",
    "decrypt_path",
    "encrypt_model",
    "encrypt_path",
    "generate_keypair",
    "is_encrypted",
    "open_encrypted",
    "open_verified",
    "sign_model",
    "sign_path",
    "verified_directory",
    "verify_model",
    "verify_path",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
