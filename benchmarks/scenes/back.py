"""The way back: verifying, restoring, reading in order and at random."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Contender
from benchmarks.scene import HERE, Context, Goal, Scene, bound, foreign, ours
from vsssnap.formats import available

READS = 1000


def _saved(context: Context) -> Path:
    """The ext4 volume as our image."""
    image = context.path("back.vsnap")
    if not image.exists():
        command = [sys.executable, str(HERE / "ours.py"), "save", str(context.volumes.ext4), str(image)]
        subprocess.run(command, check=True)
    return image


def _packed(context: Context) -> Path:
    """The ext4 volume through zstd."""
    packed = context.path("back.zst")
    if not packed.exists():
        command = ["zstd", "-q", "-T2", "-1", str(context.volumes.ext4), "-o", str(packed)]
        subprocess.run(command, check=True)
    return packed


def _compressed_qcow(context: Context) -> Path:
    return _qemu(context, context.volumes.ext4, "qcow2", "-c", "-o", "compression_type=zstd")


def _verify(context: Context) -> Scene:
    source, image = context.volumes.ext4, _saved(context)
    packed, qcow = _packed(context), _compressed_qcow(context)
    return Scene(
        "verify",
        "Verify (ext4)",
        [
            ours("stored bytes", "verify", image, "stored", source=image),
            ours("content", "verify", image, "content", source=image),
            bound("read once", "read", image, source=image),
            bound("bound, content", "content", image, source=image),
            Contender("zstd -t", f"zstd -q -t {packed}", source=packed),
            Contender("qemu-img compare", f"qemu-img compare -f raw -F qcow2 {source} {qcow}", source=qcow),
        ],
        [
            Goal("stored bytes: of reading once", "read once", "stored bytes", 0.8),
            Goal("content: of the bound", "bound, content", "content", 0.85),
        ],
        source.stat().st_size,
    )


def _restore(context: Context) -> Scene:
    source, image, out = context.volumes.ext4, _saved(context), context.path("back.out")
    packed, qcow = _packed(context), _compressed_qcow(context)
    return Scene(
        "restore",
        "Restore to a file (ext4)",
        [
            ours("vsnap", "restore", image, out, output=out, source=image),
            bound("bound, content", "content", image, source=image),
            Contender("cp --sparse=always", f"cp --sparse=always {source} {out}", output=out, source=source),
            Contender("qemu-img", f"qemu-img convert -O raw -W -m 16 {qcow} {out}", output=out, source=qcow),
            Contender("zstd -d", f"zstd -q -d --sparse {packed} -o {out}", output=out, source=packed),
        ],
        [
            Goal("of the slower of bound and cp", ("bound, content", "cp --sparse=always"), "vsnap", 0.85),
            Goal("times qemu-img", "qemu-img", "vsnap", 1.0),
        ],
        source.stat().st_size,
    )


def _qemu(context: Context, source: Path, kind: str, *options: str) -> Path:
    path = context.path(f"qemu-{'-'.join(o.strip('-') for o in options[:1]) or 'plain'}.{kind}")
    if not path.exists():
        name = {"vhd": "vpc"}.get(kind, kind)
        command = [
            "qemu-img",
            "convert",
            "-f",
            "raw",
            "-O",
            name,
            *options,
            "-W",
            "-m",
            "16",
            str(source),
            str(path),
        ]
        subprocess.run(command, check=True)
    return path


def _random(context: Context) -> Scene:
    from benchmarks.ours import offsets

    source, image, qcow = context.volumes.ext4, _saved(context), _compressed_qcow(context)
    places = context.path("places.txt")
    chosen = offsets(source.stat().st_size, READS, str(source))
    places.write_text("\n".join(map(str, chosen)))
    script = context.path("reads.txt")
    script.write_text("".join(f"read -q {offset} 4096\n" for offset in chosen))
    return Scene(
        "random-reads",
        f"{READS} random reads of 4 KiB, each from another block of 256 KiB (ext4)",
        [
            ours("vsnap", "random_reads", image, source, READS, source=image),
            bound("bound: one decode each", "random_decodes", image, READS, source=image),
            Contender(
                "qemu-io, QCOW2 with zstd", f"qemu-io -r -f qcow2 {qcow} <{script} >/dev/null", source=qcow
            ),
            ours("ours, QCOW2 with zstd", "random_reads", qcow, source, READS, source=qcow),
            foreign("dissect, QCOW2 with zstd", "random_reads", "dissect", qcow, places, source=qcow),
        ],
        [
            Goal("of the bound", "bound: one decode each", "vsnap", 1 / 1.2),
            Goal("QCOW2: times qemu", "qemu-io, QCOW2 with zstd", "ours, QCOW2 with zstd", 1.0),
            Goal("QCOW2: times dissect", "dissect, QCOW2 with zstd", "ours, QCOW2 with zstd", 1.0),
        ],
    )


def _sequential(context: Context) -> Scene:
    source = context.volumes.ext4
    contenders, goals = [], []
    for kind in ("qcow2", "vhdx", "vhd"):
        if kind not in available():
            continue
        path = _qemu(context, source, kind)
        contenders.append(bound(f"{kind}: its file, read once", "read", path, source=path))
        contenders.append(ours(f"{kind}, ours", "sequential", path, source=path))
        for family in ("libyal", "dissect"):
            contenders.append(foreign(f"{kind}, {family}", "sequential", family, path, source=path))
            goals.append(Goal(f"{kind}: times {family}", f"{kind}, {family}", f"{kind}, ours", 2.0))
    return Scene(
        "sequential", "Read plain images from end to end (ext4)", contenders, goals, source.stat().st_size
    )


SCENES = {"verify": _verify, "restore": _restore, "random-reads": _random, "sequential": _sequential}
