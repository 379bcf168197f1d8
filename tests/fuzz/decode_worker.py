"""Run in a process of its own: `python decode_worker.py CASES MODEL`.

CASES is a folder of files. Each is decompressed by the command line's own `main`; what came of it goes to
CASES/outcomes.json. A crash of the process, or a hang, is for the caller to see.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from tto.cli import main


def outcome(case: Path, model: str) -> dict:
    output = case.with_suffix(".png")
    errors = io.StringIO()
    code = None
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["decompress", str(case), "-o", str(output), "-m", model])
        except SystemExit as stop:
            code = stop.code
    return {"code": code, "lines": errors.getvalue().splitlines(), "wrote": output.exists()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcomes = {case.stem: outcome(case, sys.argv[2]) for case in sorted(folder.glob("*.tto"))}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
