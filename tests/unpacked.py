"""Programs that `scripts/debian-tools` unpacked under .venv/debian, which is not where they were built to be."""

import os
import shutil
from pathlib import Path

DEBIAN = Path(__file__).resolve().parents[1] / ".venv" / "debian"


def libraries(program: str) -> dict[str, str]:
    """The environment variables with which an unpacked program finds its libraries; empty for an installed one."""
    if not _is_unpacked(program):
        return {}
    folders = [*DEBIAN.glob("usr/lib/*-linux-*"), *DEBIAN.glob("usr/lib/*-linux-*/pulseaudio")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}


def zshenv() -> str:
    """What `.zshenv` has to say for an unpacked zsh to find its modules and functions; empty for an installed one.

    zsh ignores a module path from the environment.
    """
    if not _is_unpacked("zsh"):
        return ""
    functions = f"{DEBIAN}/usr/share/zsh/functions"
    return f"module_path=({DEBIAN}/usr/lib/*/zsh/*(/))\nfpath=({functions}/**/*(/) {functions})\n"


def _is_unpacked(program: str) -> bool:
    found = shutil.which(program)
    return found is not None and Path(found).is_relative_to(DEBIAN)
