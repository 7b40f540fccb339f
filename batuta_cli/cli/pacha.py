"""`batuta pacha`: the command group, one module a topic. Only the module of the command that is run is imported."""

from batuta_cli.cli.command import LazyChild, LazyGroup, command_group

_TOPICS = {
    "pacha_keys": ("keygen",),
    "pacha_sign": ("sign",),
    "pacha_verify": ("verify",),
    "pacha_run": ("run",),
    "pacha_hash": ("hash",),
    "pacha_encrypt": ("encrypt", "decrypt"),
    "pacha_inspect": ("inspect",),
    "pacha_check": ("check",),
}
"""The modules with their commands, in the order of the help."""

_GROUPS = {"keys": ("pacha_keys", "group"), "trust": ("pacha_trust", "group"), "store": ("pacha_store", "app")}


class _Pacha(LazyGroup):
    children = {
        name: LazyChild(f"batuta_cli.cli.{module}", "commands") for module, names in _TOPICS.items() for name in names
    } | {name: LazyChild(f"batuta_cli.cli.{module}", attribute) for name, (module, attribute) in _GROUPS.items()}


app = command_group("pacha", "Make model files trustworthy: sign, verify, encrypt, hash, store.", _Pacha)
app.callback()(lambda: None)
