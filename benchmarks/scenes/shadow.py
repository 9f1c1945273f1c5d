"""Reading a shadow copy that lies on a volume."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import Contender
from benchmarks.scene import HERE, Context, Goal, Scene, foreign, ours


def _scene(context: Context, name: str, volume: Path, number: int, title: str) -> Scene:
    mount = context.path("mount")
    reading = f"{sys.executable} {HERE / 'foreign.py'} plain {mount}/vss{number}"
    mounted = f"mkdir -p {mount}; vshadowmount {volume} {mount} >/dev/null; {reading}; fusermount -u {mount}"
    return Scene(
        name,
        title,
        [
            ours("windows", "shadow", volume, number, "windows", source=volume),
            ours("zero", "shadow", volume, number, "zero", source=volume),
            foreign("libvshadow", "shadow", volume, number, source=volume),
            Contender("vshadowmount", mounted, source=volume),
            foreign("the volume itself", "plain", volume, source=volume),
        ],
        [
            Goal("of libvshadow, the same bytes", "libvshadow", "windows", 1.0),
            Goal("of vshadowmount, the same bytes", "vshadowmount", "windows", 1.0),
        ],
        volume.stat().st_size,
    )


def _oldest(context: Context) -> Scene:
    return _scene(
        context, "shadow-oldest", context.volumes.shadow(32), 1, "Read the oldest of three shadow copies"
    )


def _newest(context: Context) -> Scene:
    return _scene(
        context, "shadow-newest", context.volumes.shadow(32), 3, "Read the newest of three shadow copies"
    )


def _scattered(context: Context) -> Scene:
    title = "Read the oldest of three shadow copies, every changed block on its own"
    return _scene(context, "shadow-scattered", context.volumes.shadow(1), 1, title)


SCENES = {"shadow-oldest": _oldest, "shadow-newest": _newest, "shadow-scattered": _scattered}
