"""Run many command lines in one process: reads JSON `[[arguments, variables], …]` on stdin, writes JSON to a file.

A process for each of them would take minutes. The file holds `[[status, stdout, stderr], …]`.
"""

import io
import json
import os
import sys

from batuta_cli.cli import app


def run(arguments: list[str], variables: dict[str, str]) -> tuple[int, str, str]:
    streams = io.BytesIO(), io.BytesIO()
    kept = sys.stdout, sys.stderr, dict(os.environ)
    wrapped = [io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in streams]
    sys.stdout, sys.stderr = wrapped
    os.environ.update(variables)
    try:
        status = app.run(arguments)
    finally:
        sys.stdout, sys.stderr = kept[:2]
        os.environ.clear()
        os.environ.update(kept[2])
    for wrapper in wrapped:
        wrapper.flush()
    out, err = (stream.getvalue().decode(errors="replace") for stream in streams)
    return status, out, err


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - it stays open until the end
    with open(sys.argv[1], "w") as file:
        json.dump([run(arguments, variables) for arguments, variables in cases], file)
