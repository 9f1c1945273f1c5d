"""Saving a volume of real files, compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Contender
from benchmarks.scene import Context, Goal, Scene, bound, ours


def _scene(context: Context, kind: str) -> Scene:
    source: Path = getattr(context.volumes, kind)
    contenders = [*_common(context, source), *_peers(context, source, kind)]
    names = {contender.name for contender in contenders}
    goals = [
        Goal("of the bound", "bound", "vsnap", 0.90),
        Goal("of the bound with a file", "bound, with a file", "vsnap", 0.85),
        Goal("of zstd alone", "bound, zstd alone", "vsnap", 0.75),
        Goal("times qemu-img, QCOW2 with zstd", "qemu-img qcow2 zstd", "vsnap", 3.0),
        Goal("times zstd -T2 -1", "zstd -T2 -1", "vsnap", 1.6),
        Goal("times ntfsclone, zstd", "ntfsclone | zstd", "vsnap", 1.6),
        Goal("times borg", "borg zstd,1", "vsnap", 4.0),
        Goal("times restic", "restic", "vsnap", 5.0),
    ]
    return Scene(
        f"save-{kind}",
        f"Save a volume ({kind}, level 1)",
        contenders,
        [goal for goal in goals if goal.slower in names],
        source.stat().st_size,
    )


def _common(context: Context, source: Path) -> Iterator[Contender]:
    made = context.path("out.vsnap")
    yield ours("vsnap", "save", source, made, output=made, source=source)
    yield bound("bound", "save", source, 1, source=source)
    yield bound("bound, zstd alone", "save", source, 1, "none", source=source)
    made = context.path("out.bound")
    yield bound("bound, with a file", "save", source, 1, "blake3", made, output=made, source=source)
    made = context.path("out.qcow2")
    options = "-c -O qcow2 -o compression_type=zstd -W -m 16"
    yield Contender(
        "qemu-img qcow2 zstd",
        f"qemu-img convert -f raw {options} {source} {made}",
        output=made,
        source=source,
    )
    made = context.path("out.zst")
    yield Contender("zstd -T2 -1", f"zstd -q -T2 -1 {source} -o {made}", output=made, source=source)
    made = context.path("out.copy")
    yield Contender("cp --sparse=always", f"cp --sparse=always {source} {made}", output=made, source=source)


def _peers(context: Context, source: Path, kind: str) -> Iterator[Contender]:
    made = context.path("out.zst")
    if kind == "ntfs":
        clone = f"ntfsclone -q -s -o - {source} | zstd -q -T2 -1 -o {made}"
        yield Contender("ntfsclone | zstd", clone, output=made, source=source)
    if context.quick:
        return
    tool = "partclone.ntfs" if kind == "ntfs" else "partclone.extfs"
    clone = f"{tool} -c -q -L /dev/null -s {source} -o - | zstd -q -T2 -1 -o {made}"
    yield Contender("partclone | zstd", clone, output=made, source=source)
    made = context.path("borg")
    borg = f"borg init -e none {made}; borg create -C zstd,1 --read-special {made}::a {source}"
    yield Contender(
        "borg zstd,1",
        f"export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR={context.work}/home; {borg}",
        output=made,
        source=source,
    )
    made = context.path("restic")
    restic = f"restic -q init -r {made}; restic -q backup -r {made} --no-cache --stdin <{source}"
    yield Contender("restic", f"export RESTIC_PASSWORD=x; {restic}", output=made, source=source)
    made = context.path("casync.castr")
    yield Contender(
        "casync",
        f"casync make --store={made} {context.path('out.caibx')} {source}",
        output=made,
        source=source,
    )


SCENES = {
    "save-ntfs": lambda context: _scene(context, "ntfs"),
    "save-ext4": lambda context: _scene(context, "ext4"),
}
