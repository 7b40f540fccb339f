"""What bench_encrypt and bench_decrypt share: one file, encrypted and decrypted by batuta, age and, in a way, cp.

The key is part of the time: batuta makes it with Argon2id in 0.2 s, `age -p` with scrypt in a second. `age -r` has a
key file instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import Command, Comparison, Subject, benchmark, parser, race, run_once
from benchmarks.programs import PASSWORD, Program, Programs, random_file, same_content

FORMAT_1, FORMAT_2, AGE_PASSWORD, AGE_KEY = "batuta, format 1", "batuta, format 2", "age -p", "age -r"


@dataclass(frozen=True)
class Contest:
    """A file, and who encrypts and decrypts it."""

    plain: Path
    batuta: Program
    age: tuple[Program, Sequence[str], Sequence[str]] | None
    cp: Program | None

    def encrypt(self) -> list[Subject]:
        """Every program encrypts; cp only copies."""
        subjects = [self._batuta(FORMAT_1, "1"), self._batuta(FORMAT_2, "2")]
        if self.age is not None:
            program, recipient, _ = self.age
            subjects.append(self._age(AGE_PASSWORD, program, ["-p"], answers=(PASSWORD, PASSWORD)))
            subjects.append(self._age(AGE_KEY, program, recipient))
        return [*subjects, *self._copy()]

    def decrypt(self, encrypted: Sequence[Subject]) -> list[Subject]:
        """Every program decrypts what it encrypted; cp copies again."""
        subjects = []
        for made in encrypted:
            assert made.output is not None
            source, target = made.output, made.output.with_suffix(".back")
            if made.name in (FORMAT_1, FORMAT_2):
                command: Command = [self.batuta.path, "pacha", "decrypt", source, "--output", target]
                subjects.append(self._decrypting(made, command, source, target))
            elif self.age is not None and made.name in (AGE_PASSWORD, AGE_KEY):
                program, _, identity = self.age
                flags = [] if made.answers else identity
                command = [program.path, "-d", *flags, "-o", target, source]
                subjects.append(self._decrypting(made, command, source, target))
        return [*subjects, *self._copy()]

    def _decrypting(self, made: Subject, command: Command, source: Path, target: Path) -> Subject:
        return Subject(
            made.name,
            command,
            made.environment,
            inputs=[source],
            output=target,
            large=True,
            answers=made.answers[:1],
            check=lambda: same_content(self.plain, target),
        )

    def _batuta(self, name: str, version: str) -> Subject:
        made = self.plain.with_suffix(f".{version}.enc")
        command: Command = [self.batuta.path, "pacha", "encrypt", self.plain, "--format", version, "--output", made]
        return Subject(name, command, self.batuta.environment, [self.plain], made, large=True)

    def _age(self, name: str, program: Program, flags: Sequence[str], answers: Sequence[str] = ()) -> Subject:
        made = self.plain.with_suffix(f".{name.replace(' ', '')}")
        command: Command = [program.path, *flags, "-o", made, self.plain]
        return Subject(name, command, program.environment, [self.plain], made, large=True, answers=answers)

    def _copy(self) -> list[Subject]:
        if self.cp is None:
            return []
        made = self.plain.with_suffix(".copy")
        command: Command = [self.cp.path, "--reflink=never", self.plain, made]  # a reflink would copy nothing
        return [Subject("cp", command, self.cp.environment, [self.plain], made, large=True)]


def compare_encryption(verb: str, claim: str | None, arguments: Sequence[str] | None) -> None:
    """Time `verb`, which is encrypt or decrypt."""
    options = parser(claim).parse_args(arguments)
    with benchmark(verb, options) as (report, directory):
        programs = Programs(report, directory)
        batuta, age, cp = programs.batuta(), programs.age(), programs.find("cp")
        contest = Contest(random_file(directory / "model.bin", options.size), batuta, age, cp)
        subjects = contest.encrypt()
        if verb == "decrypt":
            kept = [subject for subject in subjects if subject.name != "cp"]
            for subject in kept:
                run_once(subject, keep=True)
            subjects = contest.decrypt(kept)
        race(report, verb, subjects, options, _comparisons())


def _comparisons() -> list[Comparison]:
    return [
        Comparison(FORMAT_1, AGE_PASSWORD, at_most=0.5),
        Comparison(FORMAT_1, AGE_PASSWORD, on_disk=True),
        Comparison(FORMAT_1, AGE_KEY),
        Comparison(FORMAT_2, AGE_PASSWORD),
        Comparison(FORMAT_2, "cp"),
        Comparison(FORMAT_2, "cp", on_disk=True),
    ]
