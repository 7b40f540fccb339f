"""`batuta pacha encrypt` and `batuta pacha decrypt`."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Self

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import AtomicOutput, display

if TYPE_CHECKING:
    from batuta_cli.pacha.encryption import EncryptedFile

commands = typer.Typer()

MODEL_KEY = "MODEL_KEY"  # the variable that is looked at without being named (docs/formats.md#passwords)
_SUFFIX = ".enc"
_TAR = "pack it: tar c DIRECTORY | batuta pacha encrypt - --format 2 --output DIRECTORY.tar.enc"

PasswordEnv = Annotated[
    str | None, typer.Option("--password-env", metavar="VAR", help="The variable that holds the password.")
]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        "--password-file", metavar="FILE", help="The file that holds it; one trailing newline (LF or CRLF) is dropped."
    ),
]
Output = Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing output.")]


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha encrypt model.gguf",
        "batuta pacha encrypt model.gguf --password-file key.txt --output /backup/model.enc",
        "tar c model/ | MODEL_KEY=… batuta pacha encrypt - --format 2 -o - | ssh host 'cat > model.tar.enc'",
    ),
)
def encrypt(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file to encrypt; - is stdin.")],
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    output: Output = None,
    format: Annotated[
        int,
        typer.Option(metavar="1|2", help="1 is read by the Rust crate; 2 is for pipes, random access and any size."),
    ] = 1,
    force: Force = False,
) -> console.CommandResult:
    """Encrypt a file under a password, as PATH.enc.

    The password comes from --password-file, --password-env, the variable MODEL_KEY, or a question on the terminal.
    """
    from batuta_cli.pacha import encryption

    if format not in encryption.FORMATS:
        raise UsageError(f"no such format: {format}", hint="1 or 2")
    ends = _Ends.of(path, _encrypted_name(path) if output is None else output, force)
    password = read_password(path, password_file, password_env, confirm=True)
    done = ends.process("encrypting", encryption.encrypt_path, encryption.encrypt_stream, password, format=format)
    return ends.outcome(done, "encrypted")


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha decrypt model.gguf.enc",
        "MODEL_KEY=… batuta pacha decrypt model.gguf.enc --output /models/model.gguf",
        "ssh host cat model.tar.enc | batuta pacha decrypt - -o - --password-file key.txt | tar x",
    ),
)
def decrypt(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file to decrypt; - is stdin.")],
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    output: Output = None,
    allow_kdf_memory: Annotated[
        int,
        typer.Option(metavar="MIB", min=1, max=1024, help="Largest memory that a file may request to derive its key."),
    ] = 256,
    force: Force = False,
) -> console.CommandResult:
    """Decrypt a file: the original, or nothing.

    PATH.enc becomes PATH. A version 2 file written to stdout is released piece by piece, each authenticated: when
    the exit status is 3, discard the output.
    """
    from batuta_cli.pacha import encryption

    limit = allow_kdf_memory * 1024
    ends = _Ends.of(path, _decrypted_name(path) if output is None else output, force)
    password = read_password(path, password_file, password_env, confirm=False)
    done = ends.process(
        "decrypting", encryption.decrypt_path, encryption.decrypt_stream, password, allow_kdf_memory_kib=limit
    )
    return ends.outcome(done, "decrypted")


def _encrypted_name(path: str) -> str:
    return "-" if path == "-" else path + _SUFFIX


def _decrypted_name(path: str) -> str:
    if path == "-":
        return "-"
    if not path.endswith(_SUFFIX) or path == _SUFFIX:
        raise UsageError(
            f"{display(path)}: does not end in {_SUFFIX}, so the output must be named", hint="--output FILE"
        )
    return path.removesuffix(_SUFFIX)


def read_password(path: str, file: str | None, variable: str | None, *, confirm: bool) -> bytes:
    """The password, from the first place that was named (docs/formats.md#passwords)."""
    from batuta_cli.pacha import encryption

    if file == path == "-":
        raise UsageError("stdin can be read once only", hint="name another --password-file than -")
    if file is not None:
        return encryption.password_from_descriptor(0, "stdin") if file == "-" else encryption.password_from_file(file)
    if variable is not None:
        return encryption.password_from_env(variable)
    if MODEL_KEY in os.environ:
        return encryption.password_from_env(MODEL_KEY)
    answer = console.ask_secret(
        "Password", confirm=confirm, hint="--password-file FILE, --password-env VAR or MODEL_KEY"
    )
    return encryption.normalise(answer)


@dataclass(frozen=True)
class _Ends:
    """Input and output; `-` is stdin and stdout."""

    path: str
    source: str
    target: str
    force: bool

    @classmethod
    def of(cls, path: str, target: str, force: bool) -> Self:
        """Check input and output before a password is asked for."""
        from batuta_cli.cli.models import warn_of_pointers
        from batuta_cli.files import atomic_output, errors_named
        from batuta_cli.pacha.locate import locate

        source = path if path == "-" else locate(path).path
        if source != "-":
            with errors_named(path):
                mode = os.stat(source).st_mode
            if stat.S_ISDIR(mode):
                raise InvalidInputError(f"{display(path)}: is a directory, not a file", hint=_TAR)
            if stat.S_ISREG(mode):
                warn_of_pointers(path, source)
        if target == "-":
            console.binary_stdout()
        else:
            atomic_output(target, force=force)
            console.refuse_terminal(target)
        return cls(path, source, target, force)

    def process(
        self,
        doing: str,
        of_paths: "Callable[..., EncryptedFile]",
        of_streams: "Callable[..., EncryptedFile]",
        password: bytes,
        **options: int,
    ) -> "EncryptedFile":
        """Call one of a pair of functions of `encryption`: `of_paths` when both ends are files, else `of_streams`."""
        from batuta_cli.cli.models import total_size

        size = None if self.source == "-" else total_size(self.source)
        with console.progress(f"{doing} {self.path}", size) as advance:
            if "-" not in (self.source, self.target):
                return of_paths(self.source, self.target, password, force=self.force, progress=advance, **options)
            with self.opened() as (source, target):
                return of_streams(
                    source,
                    target,
                    password,
                    progress=advance,
                    source_name="stdin" if self.source == "-" else self.path,
                    output_name="stdout" if self.target == "-" else self.target,
                    **options,
                )

    @contextmanager
    def opened(self) -> Iterator[tuple[int, int | AtomicOutput]]:
        """Descriptors of both ends; a file as output is still to get its name."""
        from batuta_cli.files import atomic_output, open_stream

        source = 0 if self.source == "-" else open_stream(self.source)
        try:
            if self.target == "-":
                yield source, console.binary_stdout()
            else:
                with atomic_output(self.target, force=self.force, inputs=[source]) as out:
                    yield source, out
        finally:
            if source:
                os.close(source)

    def outcome(self, done: "EncryptedFile", verb: str) -> console.CommandResult:
        result = {"path": self.path, "output": self.target} | asdict(done)
        if self.target == "-":
            return console.CommandResult(result)
        return console.CommandResult(result, f"{display(self.path)}: {verb} to {display(self.target)}")
