"""`batuta pacha sign`: signs models, and writes each signature beside or inside its model."""

import contextlib
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.cached import Cached, open_cache, told
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import (
    FollowSymlinks,
    Ignore,
    located_size,
    opened,
    shell_path,
    total_size,
    warn_of_pointers,
    warn_of_unmatched,
)
from batuta_cli.errors import UsageError
from batuta_cli.files import display

commands = typer.Typer()


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha sign model.gguf",
        "batuta pacha sign ./llama-3/ --identity release --expires 365",
        "batuta pacha sign model.gguf --key env:SIGNING_KEY --identity ci@example.com",
    ),
)
def sign(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Model files or directories.")],
    identity: Annotated[
        str | None, typer.Option(metavar="ID", help="Which of your keys; with --key, the name to sign as.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE|env:VAR|-", help="A private key from elsewhere; - is stdin.")
    ] = None,
    passphrase_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The variable that holds the key's passphrase.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout.")
    ] = None,
    expires: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=36_500, help="The signature is valid for DAYS days.")
    ] = None,
    ignore: Ignore = None,
    follow_symlinks: FollowSymlinks = False,
    format: Annotated[
        str, typer.Option(metavar="bundle|pacha1", help="A Sigstore bundle, or the Rust crate's format.")
    ] = "bundle",
    inside: Annotated[
        bool, typer.Option("--inside", help="Write the signature of a directory into it, as DIR/model.sig.")
    ] = False,
    oms_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|env:VAR|-",
            help="Sign with this ECDSA key for model_signing and other OpenSSF tools, as PATH.oms.sig.",
        ),
    ] = None,
    cached: Cached = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing signature.")] = False,
) -> console.CommandResult:
    """Sign models; the signature is written beside each as PATH.sig."""
    from batuta_cli.cli import secrets
    from batuta_cli.files import atomic_output
    from batuta_cli.pacha import signing, trust
    from batuta_cli.pacha.ignoring import check_globs
    from batuta_cli.pacha.locate import INSIDE, locate
    from batuta_cli.pacha.signer import check_may_sign
    from batuta_cli.pacha.trust_sources import effective

    check_globs(ignore or ())
    if format not in ("bundle", "pacha1"):
        raise UsageError(f"no such signature format: {display(format)}", hint="bundle or pacha1")
    if output is not None and len(paths) > 1:
        raise UsageError("--output takes one PATH", hint="sign them one by one, or leave --output out")
    if output is not None and inside:
        raise UsageError("--output and --inside exclude each other", hint="leave one of them out")
    if "-" in paths:
        raise UsageError("stdin cannot be signed, it has no name", hint="write it to a file first")
    if oms_key is not None:
        if cached:
            raise UsageError("--cached has BLAKE3 digests, and --oms-key signs SHA-256 digests", hint="leave one out")
        from batuta_cli.cli.pacha_oms import sign_all

        other = None if format == "bundle" else format
        unused = {"--identity": identity, "--key": key, "--expires": expires, "--format": other}
        return sign_all(
            paths,
            key=oms_key,
            passphrase_env=passphrase_env,
            output=output,
            inside=inside,
            ignore=ignore or [],
            follow_symlinks=follow_symlinks,
            force=force,
            unused=unused,
        )
    store, start = effective(), trust.now()
    if key is None:
        from batuta_cli.cli.own_key import own_key

        own = own_key(identity)
        check_may_sign(own.public, store, start)  # before a passphrase is asked for
        signing_key = secrets.signing_key(str(own.path), passphrase_env=passphrase_env, identity=own.identity)
    else:
        signing_key = secrets.signing_key(key, passphrase_env=passphrase_env, identity=identity)
    check_may_sign(signing_key.verifying_key, store, start)

    def one(path: str) -> Done:
        found = locate(path)
        target = found.inside if inside else found.signature if output is None else output
        covered = place_inside(target, found.path, [*(ignore or ()), *([INSIDE] if inside else [])])
        warn_of_unmatched(path, found.path, ignore or (), covered)
        warn_of_pointers(path, found.path, ignore=ignore or (), follow_symlinks=follow_symlinks)
        options: dict[str, Any] = {
            "expires_days": expires,
            "ignore": ignore or (),
            "ignore_paths": covered,
            "follow_symlinks": follow_symlinks,
            "format": format,
        }
        cache = open_cache(path, found.path) if cached else None
        options["cache"] = cache
        with console.progress(f"signing {path}", total_size(found.path)) as advance:
            if target == "-":
                signature = signing.sign_path(found.path, signing_key, name=found.name, progress=advance, **options)
            else:
                with opened(found.path) as inputs, contextlib.ExitStack() as writing:
                    out = atomic_output(target, force=force, inputs=inputs)
                    if not covered:
                        writing.enter_context(out)
                    signature = signing.sign_path(found.path, signing_key, name=found.name, progress=advance, **options)
                    if covered:  # opened only now: where it has a hidden name while it is written, it would be signed
                        writing.enter_context(out)
                    out.write(signature.raw)
        public = signing_key.verifying_key
        result = {
            "signature": target,
            "address": str(signature.address),
            "identity": signing_key.identity,
            "key_id": public.key_id,
            "format": format,
        }
        of_cache, line = told(path, cache) if cached else ({}, "")
        result |= of_cache
        if target == "-":
            text = signature.raw.decode()
            return Done(result | {"text": text}, text.rstrip("\n"))
        who = f"{display(signing_key.identity or 'a key without a name')} (key {public.key_id})"
        return Done(result, f"{display(path)}: signed by {who}, signature in {display(target)}{line}")

    return for_each(paths, one, size=located_size)


def place_inside(target: str, model: str, ignore: Sequence[str]) -> tuple[str, ...]:
    """The ignored path that covers the signature when it is written inside the model; else nothing.

    Raises `UsageError` when the signature would be an additional file of the directory that it signs.
    """
    from glob import escape

    from batuta_cli.pacha.ignoring import matching_part

    root, place = os.path.realpath(model), os.path.realpath(target)
    if target == "-" or not os.path.isdir(root) or not place.startswith(os.path.join(root, "")):
        return ()
    name = os.path.relpath(place, root)
    covered = matching_part(ignore, name)
    if covered is None:
        raise UsageError(
            f"{display(target)}: is inside the model, which would change with it",
            hint=f"choose another --output, or leave it out of the model: --ignore {shell_path(escape(name))}",
        )
    return (covered,)
