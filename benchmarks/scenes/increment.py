"""An increment: a database file of which 2 % of the 64 KiB blocks changed."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Contender
from benchmarks.scene import HERE, Context, Scene, ours


def _increment(context: Context) -> Scene:
    old, new = context.volumes.database
    parent = context.path("db-0.vsnap")
    if not parent.exists():
        subprocess.run([sys.executable, str(HERE / "ours.py"), "save", str(old), str(parent)], check=True)
    made, patch = context.path("db-1.vsnap"), context.path("db-1.rdiff")
    signature = context.path("db-0.signature")
    contenders = [
        ours("vsnap child", "child", new, made, parent, output=made, source=new),
        ours("vsnap full", "save", new, made, output=made, source=new),
    ]
    if not context.quick:
        command = f"rdiff -f signature {old} {signature}; rdiff -f delta {signature} {new} {patch}"
        contenders.append(Contender("rdiff", command, output=patch, source=new))
    return Scene(
        "increment", "Save an increment (2 % of the blocks changed)", contenders, (), new.stat().st_size
    )


SCENES = {"increment": _increment}
