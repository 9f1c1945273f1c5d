"""Where things lie around the tests: the checkout, its files, the corpus of foreign images."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SRC = TOP / "src"
PACKAGE = SRC / "vsssnap"


@functools.cache
def public_files() -> tuple[Path, ...]:
    """Every file of the project, relative to its top: what git tracks, or would if asked.

    Outside a git checkout (an unpacked source distribution) every file that is no cache.
    """
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    if (TOP / ".git").exists():
        listing = subprocess.run(command, cwd=TOP, capture_output=True, check=True, text=True).stdout
        names = [Path(name) for name in listing.split("\0") if name]
    else:
        names = [path.relative_to(TOP) for path in TOP.rglob("*") if path.is_file()]
    return tuple(sorted(n for n in names if "__pycache__" not in n.parts and (TOP / n).is_file()))


def corpus() -> Path | None:
    """The folder of images written by other programs, if it is on this machine.

    ``VSSSNAP_CORPUS`` names it; else it is ``shared/corpus`` beside the checkout.  Tests
    call `requirements.require_corpus`, which also says what to do when there is none.
    """
    named = os.environ.get("VSSSNAP_CORPUS")
    folder = Path(named) if named else TOP.parent / "shared" / "corpus"
    return folder if (folder / "FILES.tsv").is_file() else None
