"""`batuta pacha`: the command group, one module a topic."""

from batuta_cli.cli import pacha_encrypt, pacha_hash, pacha_inspect, pacha_keys, pacha_sign, pacha_store, pacha_trust
from batuta_cli.cli.command import command_group

app = command_group("pacha", "Make model files trustworthy: sign, verify, encrypt, hash, store.")

for commands in (pacha_keys.commands, pacha_sign.commands, pacha_hash.commands, pacha_encrypt.commands):
    app.add_typer(commands)
app.add_typer(pacha_inspect.commands)
for group in (pacha_keys.group, pacha_trust.group, pacha_store.app):
    app.add_typer(group)
