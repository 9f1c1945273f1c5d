"""Start-up, giants and memory."""

from __future__ import annotations

import sys

from benchmarks.data import GIB
from benchmarks.measure import Contender
from benchmarks.scene import Context, Scene, ours


def _import(context: Context) -> Scene:
    return Scene(
        "import",
        "Import the library",
        [ours("import vsssnap", "nothing"), Contender("python alone", [sys.executable, "-c", "pass"])],
    )


def _sparse(context: Context) -> Scene:
    contenders = []
    for gib in (1, 64, 1024):
        source, made = context.volumes.sparse(gib * GIB), context.path(f"sparse-{gib}.vsnap")
        contenders.append(ours(f"{gib} GiB", "save", source, made, output=made, source=source))
    return Scene("sparse", "Save sparse volumes with 64 MiB of data", contenders)


def _empty(context: Context) -> Scene:
    empty, made = context.path("empty.img"), context.path("empty.vsnap")
    with open(empty, "wb") as file:
        file.truncate(8 << 40)
    return Scene("empty", "Save an empty volume of 8 TiB", [ours("vsnap", "save", empty, made, output=made)])


SCENES = {"import": _import, "sparse": _sparse, "empty": _empty}
