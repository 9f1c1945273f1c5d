"""Saving without compression, and what cannot be compressed."""

from __future__ import annotations

from benchmarks.measure import Contender
from benchmarks.scene import Context, Goal, Scene, ours
from vsssnap.formats import available

QEMU = {"vhdx": "vhdx", "vhd": "vpc", "qcow2": "qcow2"}


def _plain(context: Context) -> Scene:
    source = context.volumes.ext4
    contenders, goals = [], []
    made = context.path("out.copy")
    copy = Contender("cp --sparse=always", f"cp --sparse=always {source} {made}", output=made, source=source)
    for kind in ("raw", "vhdx", "qcow2", "vhd"):
        if kind not in available():
            continue
        made = context.path(f"out.{kind}")
        contenders.append(ours(kind, "save", source, made, 0, output=made, source=source))
        peer = context.path(f"qemu.{kind}")
        options = "-o subformat=dynamic" if kind == "vhdx" else ""
        command = f"qemu-img convert -f raw -O {QEMU.get(kind, kind)} {options} -W -m 16 {source} {peer}"
        contenders.append(Contender(f"qemu-img {kind}", command, output=peer, source=source))
        goals.append(Goal(f"{kind}: of cp", copy.name, kind, 0.9))
        goals.append(Goal(f"{kind}: times qemu-img", f"qemu-img {kind}", kind, 1.0))
    return Scene(
        "plain", "Save without compression (ext4)", [*contenders, copy], goals, source.stat().st_size
    )


def _random(context: Context) -> Scene:
    source = context.volumes.random
    made = context.path("out.vsnap")
    copied = context.path("out.copy")
    return Scene(
        "random",
        "Save incompressible bytes (level 1)",
        [
            ours("vsnap", "save", source, made, output=made, source=source),
            Contender("cp", f"cp --sparse=never {source} {copied}", output=copied, source=source),
            Contender("zstd -T2 -1", f"zstd -q -T2 -1 {source} -o {copied}", output=copied, source=source),
        ],
        [Goal("of cp", "cp", "vsnap", 0.8)],
        source.stat().st_size,
    )


SCENES = {"plain": _plain, "random": _random}
