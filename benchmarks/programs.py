"""batuta and its peers: where they are, which versions, and the keys and files they work with.

`make bench-tools` fetches the peers: Debian's age, minisign and b3sum into .venv/debian unless the machine has them,
model_signing with pyOpenSSL into a separate virtual environment, .venv/peers. A peer that is missing, or that does
not start, is reported and left out.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import BenchmarkError, Report

_ROOT = Path(__file__).resolve().parent.parent
_DEBIAN = _ROOT / ".venv/debian"

SEARCH = [
    str(Path(sys.executable).parent),
    *os.get_exec_path(),
    str(_DEBIAN / "usr/bin"),
    str(_ROOT / ".venv/peers/bin"),
]
"""Where programs are looked for, in this order."""

PASSWORD = "correct horse battery staple"

_PIECE = 8 * 1024 * 1024
_VERSION = {"minisign": "-v", "openssl": "version"}  # what tells the version, when it is not --version


@dataclass(frozen=True)
class Program:
    """A program that starts."""

    path: str
    environment: Mapping[str, str]

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run it, untimed, and return what it printed. Raises `BenchmarkError` when it fails."""
        done = subprocess.run(
            [self.path, *arguments],
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            errors="replace",
        )
        if done.returncode:
            raise BenchmarkError(f"{Path(self.path).name} failed with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout + done.stderr


@dataclass(frozen=True)
class Programs:
    """The programs of one benchmark, run in a separate home."""

    report: Report
    directory: Path

    def batuta(self) -> Program:
        """batuta as it is installed beside this Python, with a key that it trusts and a password in MODEL_KEY."""
        found = self.find("batuta")
        if found is None:
            raise BenchmarkError("batuta does not start; `make .venv/.ready` installs it")
        found.run("pacha", "keygen")
        return found

    def find(self, name: str) -> Program | None:
        """A program by its name; None, and a line in the report, when no such program starts."""
        path = shutil.which(name, path=os.pathsep.join(SEARCH))
        if path is None:
            self.report.skip(name, "not installed; `make bench-tools` fetches it")
            return None
        program = Program(path, self._environment(path))
        try:
            version = program.run(_VERSION.get(name, "--version")).strip().split("\n")[0]
        except (BenchmarkError, OSError) as error:
            self.report.skip(name, f"does not start: {error}")
            return None
        version = version.removeprefix(f"{name} ").removeprefix(f"{name}, version ")
        self.report.document.setdefault("programs", {})[name] = version
        self.report.say(f"{name}: {version} ({path})")
        return program

    def _environment(self, path: str) -> dict[str, str]:
        """Nothing of the user's: neither configuration nor keys. Debian packages that were only unpacked need to be
        told where their libraries are."""
        home = str(self.directory / "home")
        environment = {"PATH": os.pathsep.join(SEARCH), "LANG": "C.UTF-8", "HOME": home, "MODEL_KEY": PASSWORD}
        if Path(path).is_relative_to(_DEBIAN):
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, _DEBIAN.glob("usr/lib/*-linux-*")))
        return environment

    def minisign(self) -> tuple[Program, Sequence[str], Sequence[str]] | None:
        """minisign with the arguments that name its unencrypted private key, and those that name the public one."""
        program = self.find("minisign")
        if program is None:
            return None
        public, private = str(self.directory / "minisign.pub"), str(self.directory / "minisign.key")
        program.run("-G", "-W", "-p", public, "-s", private)
        return program, ["-s", private], ["-p", public]

    def model_signing(self) -> tuple[Program, Sequence[str], Sequence[str]] | None:
        """model_signing with the arguments that name an EC P-256 key, and those that name its public half."""
        program, openssl = self.find("model_signing"), self.find("openssl")
        if program is None or openssl is None:
            return None
        private, public = str(self.directory / "ec.key"), str(self.directory / "ec.pub")
        openssl.run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private)
        openssl.run("pkey", "-in", private, "-pubout", "-out", public)
        return program, ["--private_key", private], ["--public_key", public]

    def age(self) -> tuple[Program, Sequence[str], Sequence[str]] | None:
        """age with the arguments that encrypt to a new X25519 recipient, and those that name its identity."""
        program, keygen = self.find("age"), self.find("age-keygen")
        if program is None or keygen is None:
            return None
        identity = self.directory / "age.key"
        keygen.run("-o", identity)
        recipient = next(line for line in identity.read_text().splitlines() if "public key: " in line)
        return program, ["-r", recipient.partition("public key: ")[2]], ["-i", str(identity)]


def random_file(path: Path, size: int) -> Path:
    """A new file of `size` random bytes, on the disk."""
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))
        file.flush()
        os.fsync(file.fileno())
    return path


def random_directory(path: Path, count: int, size: int) -> Path:
    """A new directory of `count` files of `size` random bytes."""
    path.mkdir()
    for number in range(count):
        (path / f"part-{number:05}.bin").write_bytes(os.urandom(size))
    os.sync()
    return path


def same_content(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    with one.open("rb") as a, other.open("rb") as b:
        while (piece := a.read(_PIECE)) == b.read(_PIECE):
            if not piece:
                return True
    return False
