"""`batuta pacha verify`: whether models are what was signed, and whether their signers are trusted."""

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli import verify_options as options
from batuta_cli.cli.cached import Cached, open_cache, told
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import located_size, total_size, warn_of_pointers
from batuta_cli.cli.verify_options import Checks, existing_signature, load_all, verified_text
from batuta_cli.errors import BatutaError, UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.signer import Policy

commands = typer.Typer()


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha verify model.gguf",
        "batuta pacha verify model.gguf --identity alice@example.com --name model.gguf",
        "batuta pacha verify model.gguf --key alice.pub --quiet && ./serve model.gguf",
        "batuta pacha verify model.gguf --signature a.sig --signature b.sig --require 2",
        "batuta pacha verify models/*.gguf --key release.pub --report github",
    ),
)
def verify(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Models, store names or addresses; - is stdin.")
    ],
    signature: options.Signatures = None,
    key: options.Keys = None,
    identity: options.Identities = None,
    digest: options.Digest = None,
    name: options.SignedName = None,
    require: options.Require = None,
    trust_file: options.TrustFile = None,
    ca: options.Authorities = None,
    trusted_root: options.TrustedRoot = None,
    issuer: options.Issuer = None,
    at: options.At = None,
    allow_unsigned: options.AllowUnsigned = None,
    allow_pacha1: options.AllowPacha1 = False,
    cached: Cached = False,
    report: Annotated[
        str | None,
        typer.Option(metavar="github", help="Print annotations of a GitHub Actions job, and add to its summary."),
    ] = None,
) -> console.CommandResult:
    """Verify models: exit 0 only when the content is intact and the signer is trusted."""
    reporting = None
    if report is not None:
        from batuta_cli.cli.github_report import GithubReport

        reporting = GithubReport.of(report)
    if signature and len(paths) > 1:
        raise UsageError("--signature takes one PATH", hint="verify them one by one")
    try:
        checks = Checks.of(
            paths,
            signature=signature,
            key=key,
            identity=identity,
            digest=digest,
            name=name,
            require=require,
            trust_file=trust_file,
            ca=ca,
            trusted_root=trusted_root,
            issuer=issuer,
            at=at,
            allow_unsigned=allow_unsigned,
            allow_pacha1=allow_pacha1,
        )
    except BatutaError as error:
        if reporting is not None:
            reporting.failed_before(error)
        raise
    policy = checks.policy
    if cached and policy is None:
        raise UsageError("--cached is for signatures, and --digest alone reads the content", hint="leave it out")

    def one(path: str) -> Done:
        if policy is None:
            return _verify_digest(path, checks.digest)
        try:
            return _verify_signature(path, policy, checks, cached=cached)
        except VerificationError:
            warn_of_pointers(path, path, follow_symlinks=True)
            raise

    if reporting is None:
        return for_each(paths, one, size=located_size)

    def reported(path: str) -> Done:
        try:
            return reporting.verified(path, one(path))
        except BatutaError as error:
            reporting.failed(path, error)
            raise

    outcome = for_each(paths, reported, size=located_size)
    try:
        reporting.write_summary()
    except BatutaError as error:
        if outcome.error is None:
            raise
        console.report(error)  # the models' own failure decides the exit status
    return outcome


def _verify_digest(path: str, wanted: Any) -> Done:
    from batuta_cli.pacha.hashing import content_address, hash_stream
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.sha256 import Sha256Digest, check_digest, sha256_of, sha256_of_stream

    is_sha256 = isinstance(wanted, Sha256Digest)
    if path == "-":
        found = sha256_of_stream(0, "stdin") if is_sha256 else hash_stream(0, "stdin")
    else:
        located = locate(path).path
        with console.progress(f"verifying {path}", total_size(located)) as advance:
            found = sha256_of(located, advance) if is_sha256 else content_address(located, progress=advance)
    check_digest(path, found, wanted)
    kind = "digest" if is_sha256 else "address"
    text = f"{display(path)}: has the {kind} {wanted}; no signature was checked"
    return Done({kind: str(found), "signers": [], "binds": ["content"]}, text)


def _verify_signature(path: str, policy: "Policy", checks: Checks, *, cached: bool) -> Done:
    from batuta_cli.pacha.content import ModelContent
    from batuta_cli.pacha.hashing import ContentAddress
    from batuta_cli.pacha.locate import inside_model, locate
    from batuta_cli.pacha.verification import read_stream, verify_all, whole_address

    files, wanted, require = checks.signatures, checks.digest, checks.require
    is_sha256 = wanted is not None and not isinstance(wanted, ContentAddress)
    cache = None
    if path == "-":
        if cached:
            raise UsageError("--cached is for files, and stdin is read whole", hint="leave it out")
        if not files:
            raise UsageError("the signature of stdin must be named", hint="--signature FILE")
        signatures, policy = load_all(files, policy)
        sha256 = hashlib.sha256()
        hashed = read_stream(0, "stdin", signatures, also=[sha256.update] if is_sha256 else [])
        verified = verify_all(hashed, signatures, policy, label="-", actual_name=None, require=require)
        whole: Any = type(wanted)(sha256.digest()) if is_sha256 else ContentAddress(hashed.resource.digest)
    else:
        found = locate(path)
        files = files or [existing_signature(path, found.path, found.signatures)]
        signatures, policy = load_all(files, policy)
        with console.progress(f"verifying {path}", total_size(found.path)) as advance:
            cache = open_cache(path, found.path) if cached else None
            model = ModelContent(found.path, advance, cache)
            verified = verify_all(
                model,
                signatures,
                policy,
                label=path,
                actual_name=found.name,
                require=require,
                allow_unsigned=[*checks.tolerated, *inside_model(files, found.path)],
            )
            whole = None
            if is_sha256:
                from batuta_cli.pacha.sha256 import sha256_of

                whole = sha256_of(found.path, advance)
            elif wanted is not None:
                whole = whole_address(found.path, verified, advance)
            stored = None if found.address is None else whole_address(found.path, verified, advance)
        if found.address is not None and stored is not None:
            from batuta_cli.pacha.sha256 import check_digest

            check_digest(path, stored, found.address)
    if wanted is not None:
        from batuta_cli.pacha.sha256 import check_digest

        check_digest(path, whole, wanted)
    for warning in verified.warnings:
        console.warn(f"{display(path)}: {warning}")
    of_cache, line = told(path, cache) if cached else ({}, "")
    text = verified_text(path, verified, console.paint("verified", "good")) + line
    return Done(verified.as_dict() | {"signature": files} | of_cache, text)
