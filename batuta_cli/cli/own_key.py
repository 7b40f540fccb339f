"""The own key that a command signs with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batuta_cli.pacha.keyring import OwnKey


def own_key(identity: str | None) -> "OwnKey":
    """The key of an identity, else the configured one, else the only one. Raises as `keyring.choose_own`."""
    from batuta_cli.pacha import keyring

    if identity is not None:
        return keyring.find_own(identity)
    from batuta_cli import config

    return keyring.choose_own(config.load().pacha.default_key)
