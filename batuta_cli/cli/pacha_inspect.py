"""`batuta pacha inspect`: what a signature or an encrypted file says about itself."""

from typing import Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display

commands = typer.Typer()

_SHOWN = 20  # resources in the text; --json has all


@commands.command(
    cls=Command, epilog=examples("batuta pacha inspect model.gguf.sig", "batuta pacha inspect model.gguf.enc --json")
)
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .sig or .enc file.")],
) -> console.Outcome:
    """Show what a .sig or .enc file says about itself. Nothing is verified, no secret is needed."""
    import os

    from batuta_cli.files import open_regular

    descriptor = open_regular(file)
    try:
        magic = os.pread(descriptor, 8, 0)
    finally:
        os.close(descriptor)
    if magic == b"PACHAENC":
        return _encrypted(file)
    if magic.lstrip()[:1] == b"{":
        return _signature(file)
    raise InvalidInputError(f"{display(file)}: neither a signature nor an encrypted file")


def _encrypted(file: str) -> console.Outcome:
    import dataclasses

    from batuta_cli.pacha.encryption import describe

    return _fields({"kind": "encrypted"} | dataclasses.asdict(describe(file)))


def _signature(file: str) -> console.Outcome:
    from batuta_cli.pacha.pacha1 import Pacha1Signature
    from batuta_cli.pacha.signing import ModelSignature
    from batuta_cli.pacha.statement import format_time

    body = ModelSignature.load(file).body
    if isinstance(body, Pacha1Signature):
        return _fields(
            {
                "kind": "signature",
                "format": "pacha1",
                "binds": ["content"],
                "address": str(body.content),
                "claimed_key_id": body.signer_key.key_id,
                "claimed_identity": body.signer_id,
                "claimed_time": body.timestamp,
            }
        )
    stated = body.statement
    return _fields(
        {
            "kind": "signature",
            "format": "bundle",
            "binds": ["content", "name", "identity", "time"],
            "name": stated.name,
            "address": str(stated.address),
            "claimed_key_id": stated.public_key.key_id if stated.public_key else None,
            "claimed_identity": stated.identity,
            "created": format_time(stated.created),
            "expires": format_time(stated.expires),
            "tool": stated.tool,
            "ignored": list(stated.ignore_paths),
            "follows_symlinks": stated.allow_symlinks,
            "signatures": [{"keyid": s.keyid} for s in body.envelope.signatures],
            "files": [{"name": r.name, "size": r.size, "digest": f"blake3:{r.digest.hex()}"} for r in stated.resources],
        }
    )


def _fields(result: dict[str, Any]) -> console.Outcome:
    lines = []
    for name, value in result.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            lines += [f"{name:17} {display(', '.join(value))}"] if value else []
        elif isinstance(value, list):
            rows = [" ".join(map(str, row.values())) for row in value]
            lines += [f"{name:17} {display(row)}" for row in rows[:_SHOWN]]
            if len(rows) > _SHOWN:
                lines.append(f"{name:17} and {len(rows) - _SHOWN:,} more")
        elif value is not None:
            lines.append(f"{name:17} {display(value)}")
    console.note("nothing was verified; this is what the file says about itself")
    return console.Outcome(result, "\n".join(lines))
