"""What bench_sign and bench_verify share: who signs and verifies, one large file and many small ones."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import Command, Comparison, Subject, benchmark, in_words, parser, race, size_of
from benchmarks.programs import Program, Programs, random_directory, random_file


@dataclass(frozen=True)
class Contest:
    """A model, and who signs and verifies it."""

    model: Path
    batuta: Program
    b3sum: Program | None
    minisign: tuple[Program, Sequence[str], Sequence[str]] | None
    model_signing: tuple[Program, Sequence[str], Sequence[str]] | None

    def beside(self, suffix: str) -> Path:
        """A file beside the model."""
        return self.model.with_name(self.model.name + suffix)

    def sign(self) -> list[Subject]:
        """Every program signs, into a new file."""
        batuta, own = self.batuta, self.beside(".sig")
        command: Command = [batuta.path, "pacha", "sign", self.model, "--output", own]
        subjects = [Subject("batuta sign", command, batuta.environment, [self.model], own)]
        if self.model_signing is not None:
            program, private, _ = self.model_signing
            made = self.beside(".oms")
            command = [program.path, "sign", "key", *private, "--signature", made, self.model]
            subjects.append(Subject("model_signing sign", command, program.environment, [self.model], made))
        if self.minisign is not None and self.model.is_file():  # one signature of it covers one file
            program, private, _ = self.minisign
            made = self.beside(".minisig")
            command = [program.path, "-S", *private, "-x", made, "-m", self.model]
            subjects.append(Subject("minisign -S", command, program.environment, [self.model], made))
        return [*subjects, *self._hash()]

    def verify(self) -> list[Subject]:
        """Every program verifies; `sign` must have been run."""
        batuta = self.batuta
        command: Command = [batuta.path, "pacha", "verify", self.model, "--signature", self.beside(".sig")]
        subjects = [Subject("batuta verify", command, batuta.environment, [self.model])]
        if self.model_signing is not None:
            program, _, public = self.model_signing
            command = [program.path, "verify", "key", *public, "--signature", self.beside(".oms"), self.model]
            subjects.append(Subject("model_signing verify", command, program.environment, [self.model]))
        if self.minisign is not None and self.model.is_file():
            program, _, public = self.minisign
            command = [program.path, "-V", *public, "-x", self.beside(".minisig"), "-m", self.model]
            subjects.append(Subject("minisign -V", command, program.environment, [self.model]))
        return [*subjects, *self._hash()]

    def _hash(self) -> list[Subject]:
        if self.b3sum is None:
            return []
        files = sorted(self.model.iterdir()) if self.model.is_dir() else [self.model]
        return [Subject("b3sum", [self.b3sum.path, *files], self.b3sum.environment, [self.model])]


def compare_signing(
    verb: str, claim: str | None, arguments: Sequence[str] | None, run: Callable[[Contest], list[Subject]]
) -> None:
    """Run what `run` makes of each model: a large file, and a directory of small ones."""
    options = _options(claim, arguments)
    with benchmark(verb, options) as (report, directory):
        programs = Programs(report, directory)
        batuta, b3sum = programs.batuta(), programs.find("b3sum")
        minisign, model_signing = programs.minisign(), programs.model_signing()

        def contest(title: str, model: Path) -> None:
            subjects = run(Contest(model, batuta, b3sum, minisign, model_signing))
            race(report, title, subjects, options, _comparisons(verb))

        contest("one file", random_file(directory / "model.bin", options.size))
        (directory / "model.bin").unlink()
        small = f"a directory of {options.files:,} files of {in_words(options.file_size)}"
        contest(small, random_directory(directory / "model", options.files, options.file_size))


def _options(claim: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(claim)
    made.add_argument("--files", type=int, default=2000, help="files in the directory (default: 2000)")
    made.add_argument("--file-size", type=size_of, default=size_of("64K"), help="size of each (default: 64K)")
    return made.parse_args(arguments)


def _comparisons(verb: str) -> list[Comparison]:
    own = f"batuta {verb}"
    return [
        Comparison(own, "b3sum", at_most=1.2),
        Comparison(own, f"model_signing {verb}", times_faster=4),
        Comparison(own, f"minisign -{verb[0].upper()}"),
    ]


def signed(contest: Contest) -> None:
    """Let every program sign the model once, untimed."""
    for subject in contest.sign():
        if subject.output is not None:
            Program(str(subject.command[0]), subject.environment).run(*subject.command[1:])
