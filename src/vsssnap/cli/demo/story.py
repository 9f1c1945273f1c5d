"""The story: copy a busy volume naively and through a snapshot, and look at both copies."""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vsssnap._units import format_size
from vsssnap.cli import interrupts

if TYPE_CHECKING:
    from vsssnap.cli.demo.scene import Scene, Verdict
    from vsssnap.cli.output import Output

WHY = (
    "The naive copier reads one block after the other while the application goes on.  When it stood still, "
    "the blocks behind it were already copied as they were before, and those ahead of it were copied as they "
    "were afterwards.  So its image holds a header from one moment and a body from another: a state that the "
    "volume never had.  No checksum finds that, for every block was copied faithfully.  The snapshot keeps "
    "every block as it was at one instant, while the application writes on; so its image is the volume as it "
    "really was."
)


@dataclass
class Ending:
    """What came of it.

    Attributes:
        scene: "loop devices" or "user space".
        naive: What is in the naive copy.
        snapshot: What is in the copy restored from the snapshot's image.
        commits: Commits while the naive copier stood still, by offset; and during each copy.
        consistency: Of the snapshot.
        verified: Whether the image passed its own check.
        seconds: Wall time.
    """

    scene: str
    naive: list[Verdict] = field(default_factory=list)
    snapshot: list[Verdict] = field(default_factory=list)
    stops: dict[int, int] = field(default_factory=dict)
    commits: int = 0
    consistency: str = ""
    provider: str = ""
    format: str = ""
    verified: bool = False
    seconds: float = 0.0

    @property
    def torn(self) -> bool:
        """Whether the naive copy is a state that the volume never had."""
        return any(not verdict.ok for verdict in self.naive)

    @property
    def clean(self) -> bool:
        """Whether the snapshot's image is in order, in every respect."""
        return self.verified and bool(self.snapshot) and all(verdict.ok for verdict in self.snapshot)

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {**vars(self), "torn": self.torn, "clean": self.clean}


def tell(out: Output, scene: Scene, images: str, ending: Ending) -> None:
    """Play it.

    Args:
        out: Where to tell it.
        scene: The volume, with its application at work.
        images: Folder for the three images.
        ending: Filled in.
    """
    began, first = time.monotonic(), scene.commits()
    paragraph(out, scene.told)
    naive, restored = os.path.join(images, "naive.raw"), os.path.join(images, "restored.raw")

    def stopped(offset: int, commits: int) -> None:
        ending.stops[offset] = commits
        out.say(
            f"   stood still at {format_size(offset)}: {commits} commits changed blocks before and behind it"
        )

    out.say("1. A naive copy, block by block, as dd and cp do it", bold=True)
    scene.copy_naively(naive, stopped)

    out.say("2. A copy through a snapshot", bold=True)
    image = _image(out, scene, images, ending)
    interrupts.check()
    _restore(out, image, restored, ending)
    ending.commits = scene.commits() - first
    out.say(f"   meanwhile the application made {ending.commits} commits")
    scene.stop()

    out.say("3. What is in them", bold=True)
    ending.naive = scene.examine(naive, "naive")
    interrupts.check()
    ending.snapshot = scene.examine(restored, "restored")
    ending.seconds = time.monotonic() - began
    _side_by_side(out, ending)
    out.say()
    if ending.torn and ending.clean:
        paragraph(out, WHY)
    elif not ending.torn:
        out.warn("the naive copy is whole: that should not be")
    else:
        out.warn("the snapshot's image is not in order: that should not be")


def _image(out: Output, scene: Scene, images: str, ending: Ending) -> str:
    from vsssnap import Snapshot, save_image
    from vsssnap.cli.naming import default_format
    from vsssnap.formats import by_name

    ending.format = default_format()
    image = os.path.join(images, "snapshot" + by_name(ending.format).suffixes[0])
    snapshot = Snapshot(scene.volume, quiesce=scene.quiesce, timeout=60)
    with interrupts.deferred(snapshot.cancel), snapshot:
        ending.provider, ending.consistency = snapshot.provider, snapshot.consistency.name.lower()
        out.say(f"   snapshot by provider {ending.provider}, {ending.consistency} consistent")
        with snapshot.open() as reader, out.progress("save") as progress:
            report = save_image(reader, image, progress=progress)
    stored = format_size(report.stored or 0)
    out.say(f"   saved {format_size(report.size)} as {os.path.basename(image)} ({ending.format}, {stored})")
    return image


def _restore(out: Output, image: str, restored: str, ending: Ending) -> None:
    from vsssnap import restore_image, verify_image

    with out.progress("verify") as progress:
        verified = verify_image(image, progress=progress)
    ending.verified = verified.ok
    out.say(f"   verified, {verified.depth.name.lower()}: {'ok' if verified.ok else 'DAMAGED'}")
    with out.progress("restore") as progress:
        restore_image(image, restored, progress=progress)
    out.say(f"   restored to {os.path.basename(restored)}")


def _side_by_side(out: Output, ending: Ending) -> None:
    good = {verdict.subject: verdict for verdict in ending.snapshot}
    for name, verdicts in (("naive copy", ending.naive), ("snapshot", ending.snapshot)):
        bad = any(not verdict.ok for verdict in verdicts)
        out.say(f"   {name}: {'TORN' if bad else 'clean'}", fg="red" if bad else "green", bold=True)
        width = max(len(subject) for subject in good)
        for verdict in verdicts:
            mark = "ok  " if verdict.ok else "TORN"
            out.say(f"      {mark}  {verdict.subject:<{width}}  {verdict.text}")


def paragraph(out: Output, text: str) -> None:
    """Say something at length."""
    for line in textwrap.wrap(text, 100):
        out.say(line)
