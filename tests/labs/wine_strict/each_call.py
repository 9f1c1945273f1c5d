"""Runs under the Windows Python: each call that the strict vssapi.dll gets is refused, wherever it is made.

A scene is played once as it is, which tells the calls; and then for each of them.  Prints what came of
each as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from vsssnap import Consistency, vss
from vsssnap._win32 import com, dll
from vsssnap.vss import ComponentSelection, RestoreStatus, VssOptions, WriterRestore
from wine_scenes import EVER, Scene, fail, lab, prepare, run, take

DENIED = 0x80070005
ALL = VssOptions(components=ComponentSelection())


def looked_after() -> None:
    lab.LabLeave(UUID(int=7).bytes_le, "\\\\?\\Volume{7}\\")
    for copy in vss.list_shadow_copies():
        vss.expose_shadow_copy(copy.id, at="X:\\")
        vss.unexpose_shadow_copy(copy.id)
        vss.delete_shadow_copy(copy.id)


def restored() -> None:
    with WriterRestore("<saved/>") as it:
        it.select(*it.components, options="options")
        it.begin()
        it.report(it.components[0], RestoreStatus.ALL)


def managed() -> None:
    vss.list_providers()
    vss.resize_shadow_storage("C:", maximum=1 << 30)
    vss.shadow_storage()
    vss.least_shadow_storage()
    vss.protect_volume("C:", vss.ProtectionLevel.SHADOW_COPIES)
    vss.volume_protection("C:")
    vss.clear_protection_fault("C:")
    vss.delete_unused_shadow_storage("C:")


SCENES: dict[str, Scene] = {
    "backup": lambda: take(options=ALL, require=Consistency.APPLICATION),
    "lasting": lambda: take(options=ALL, persistent=True),
    "without writers": lambda: take(options=VssOptions(writers=False)),
    "writers": lambda: [one.state for one in vss.list_writers()],
    "components": lambda: [one.path for one in vss.list_components()],
    "looked after": looked_after,
    "restore": restored,
    "managed": managed,
}


def each(name: str, scene: Scene) -> Iterator[dict[str, object]]:
    """The scene, and the scene with each of its calls refused, once and from then on: what came of it."""
    played = run(scene)
    yield {"scene": name, "call": "", "number": 0, "times": 0} | played
    before: Counter[tuple[str, int]] = Counter()
    for line in lab.LabAsked().decode().splitlines():
        call, _, where = line.rpartition(" ")
        place = (call, int(where))
        for times in (1, EVER):

            def refused(
                place: tuple[str, int] = place, times: int = times, skip: int = before[place]
            ) -> object:
                fail(place[0], DENIED, place[1], times, skip)
                return scene()

            played = run(refused)
            yield {"scene": name, "call": line, "number": before[place], "times": times} | played
        before[place] += 1


def main() -> dict[str, object]:
    prepare()
    watched = bool(lab.LabWatch())
    system = dll.current()
    assert system is not None, "this is Windows"
    com.enter_apartment(system)  # as long as one thread is in it, what is registered there stays
    code = lab.LabManage()
    assert not code, code
    return {"watched": watched, "rows": [row for name, scene in SCENES.items() for row in each(name, scene)]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
