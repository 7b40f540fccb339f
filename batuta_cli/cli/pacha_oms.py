"""What `batuta pacha sign` and `verify` do for signatures of other OpenSSF Model Signing tools."""

import contextlib
from typing import TYPE_CHECKING, Any

from batuta_cli.cli import console, secrets
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import located_size, opened, total_size, warn_of_pointers, warn_of_unmatched
from batuta_cli.errors import UsageError
from batuta_cli.files import atomic_output, display
from batuta_cli.pacha import trust
from batuta_cli.pacha.locate import INSIDE, locate
from batuta_cli.pacha.oms.writer import sign_for_oms
from batuta_cli.pacha.signer import check_may_sign
from batuta_cli.pacha.signing import model_name, oms_signature_path
from batuta_cli.pacha.trust_sources import effective

if TYPE_CHECKING:
    from collections.abc import Mapping


def sign_all(
    paths: list[str],
    *,
    key: str,
    passphrase_env: str | None,
    output: str | None,
    inside: bool,
    ignore: list[str],
    follow_symlinks: bool,
    force: bool,
    unused: "Mapping[str, Any]",
) -> console.CommandResult:
    """Sign models with an ECDSA key, each as PATH.oms.sig; `unused` are options with no place in such a bundle."""
    from batuta_cli.cli.pacha_sign import place_inside

    if given := [option for option, value in unused.items() if value is not None]:
        raise UsageError(
            f"{given[0]} has no place in the OpenSSF bundle that --oms-key writes",
            hint="sign twice, with --oms-key and without it",
        )
    signing_key = secrets.oms_key(key, passphrase_env=passphrase_env)
    public = signing_key.verifying_key
    check_may_sign(public, effective(), trust.now())

    def one(path: str) -> Done:
        found = locate(path)
        if found.stored_signature is not None and output is None and not inside:
            raise UsageError(
                f"{display(path)}: is in the store, which keeps batuta's own signatures", hint="--output FILE"
            )
        target = found.inside if inside else oms_signature_path(found.path) if output is None else output
        covered = place_inside(target, found.path, [*ignore, *([INSIDE] if inside else [])])
        warn_of_unmatched(path, found.path, ignore, covered)
        warn_of_pointers(path, found.path, ignore=ignore, follow_symlinks=follow_symlinks)
        name = found.name or model_name(found.path)

        def bundle(advance: Any) -> bytes:
            return sign_for_oms(
                found.path,
                signing_key,
                name,
                ignore=ignore,
                ignore_paths=covered,
                follow_symlinks=follow_symlinks,
                progress=advance,
            )

        with console.progress(f"signing {path}", total_size(found.path)) as advance:
            if target == "-":
                raw = bundle(advance)
            else:
                with opened(found.path) as inputs, contextlib.ExitStack() as writing:
                    out = atomic_output(target, force=force, inputs=inputs)
                    if not covered:
                        writing.enter_context(out)
                    raw = bundle(advance)
                    if covered:  # opened only now: where it has a hidden name while it is written, it would be signed
                        writing.enter_context(out)
                    out.write(raw)
        result = {"signature": target, "key_id": public.key_id, "public_key": public.inline, "format": "oms"}
        if target == "-":
            text = raw.decode()
            return Done(result | {"text": text}, text.rstrip("\n"))
        who = f"by the key {public.key_id} for OpenSSF Model Signing tools"
        return Done(result, f"{display(path)}: signed {who}, signature in {display(target)}")

    return for_each(paths, one, size=located_size)
