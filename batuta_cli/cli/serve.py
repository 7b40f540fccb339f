"""`batuta serve`: the group, put together from one module a topic."""

from batuta_cli.cli import (
    serve_audit,
    serve_backends,
    serve_budget,
    serve_chat,
    serve_context,
    serve_gateway,
    serve_keys,
    serve_route,
    serve_template,
)
from batuta_cli.cli.command import command_group

app = command_group("serve", "Make model requests correct, private and within budget.")

for commands in (serve_template.commands, serve_context.commands, serve_backends.commands, serve_route.commands):
    app.add_typer(commands)
for running in (serve_chat.commands, serve_gateway.commands):
    app.add_typer(running)
for group in (serve_audit.group, serve_budget.group, serve_keys.group):
    app.add_typer(group)
