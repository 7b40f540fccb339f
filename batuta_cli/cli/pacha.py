"""`batuta pacha`: the command group, one module a topic."""

from batuta_cli.cli import (
    pacha_encrypt,
    pacha_hash,
    pacha_inspect,
    pacha_keys,
    pacha_run,
    pacha_sign,
    pacha_store,
    pacha_trust,
    pacha_verify,
)
from batuta_cli.cli.command import command_group

app = command_group("pacha", "Make model files trustworthy: sign, verify, encrypt, hash, store.")

for topic in (pacha_keys, pacha_sign, pacha_verify, pacha_run, pacha_hash, pacha_encrypt, pacha_inspect):
    app.add_typer(topic.commands)
for group in (pacha_keys.group, pacha_trust.group, pacha_store.app):
    app.add_typer(group)
