"""`batuta serve`: the command group, one module a topic."""

from batuta_cli.cli import (
    serve_audit,
    serve_audit_seal,
    serve_backends,
    serve_budget,
    serve_chat,
    serve_clients,
    serve_context,
    serve_gateway,
    serve_keys,
    serve_route,
    serve_template,
)
from batuta_cli.cli.command import command_group

app = command_group("serve", "Make model requests correct, private and within budget.")

app.add_typer(serve_template.group)
for module in (serve_context, serve_backends, serve_route, serve_chat, serve_gateway, serve_clients):
    app.add_typer(module.commands)
serve_audit_seal.register(serve_audit.group)
for group in (serve_audit.group, serve_budget.group, serve_keys.group):
    app.add_typer(group)
