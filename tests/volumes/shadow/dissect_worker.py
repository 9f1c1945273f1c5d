"""Reads blocks of shadow copies with dissect.volume, in a process of its own.

A question is a line: a volume's path and, for each of its shadow copies, oldest first, the numbers of
blocks, as JSON.  The answer is a line: the SHA-256 of each block.  Imports nothing of the project: it is
run with ``python -I``.
"""

import hashlib
import importlib
import io
import json
import sys
from typing import Any

BLOCK = 16 << 10


def answer(path: str, wanted: list[list[int]]) -> list[list[str]]:
    """The digests of the blocks of each shadow copy."""
    library: Any = importlib.import_module("dissect.volume.vss")
    with open(path, "rb") as volume:
        stores = library.VSS(volume).catalog.stores
        if len(stores) != len(wanted):
            raise SystemExit(f"dissect finds {len(stores)} shadow copies of {len(wanted)}")
        told = []
        for store, blocks in zip(stores, wanted, strict=True):
            stream = store.open()
            digests = []
            for block in blocks:
                stream.seek(block * BLOCK)
                digests.append(hashlib.sha256(stream.read(BLOCK)).hexdigest())
            told.append(digests)
    return told


def main() -> None:
    """Answer line by line."""
    out, sys.stdout = sys.stdout, io.StringIO()  # the library prints what it does there
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), file=out, flush=True)
        sys.stdout.seek(0)
        sys.stdout.truncate()


if __name__ == "__main__":
    main()
