"""`batuta serve`: the group, put together from one module a topic."""

from batuta_cli.cli.command import command_group

app = command_group("serve", "Make model requests correct, private and within budget.")
