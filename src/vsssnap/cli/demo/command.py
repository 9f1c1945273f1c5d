"""The command ``demo`` itself: which scene, where, and what to leave."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vsssnap.cli import exits, interrupts
from vsssnap.cli.common import PATH, command
from vsssnap.errors import TargetError, TargetRefusedError

if TYPE_CHECKING:
    from vsssnap.cli.demo.story import Ending
    from vsssnap.cli.output import Output


_PREFIX = "vsssnap-demo-"  # of the folders it works in


@command(
    "demo",
    examples="""
vsssnap demo
vsssnap demo --user-space
vsssnap demo --keep /tmp/images --json
""",
)
@click.option(
    "--keep", type=PATH, metavar="FOLDER", help="Leave the three images in this new or empty folder."
)
@click.option(
    "--user-space", is_flag=True, help="Without loop devices and mounts, even if they could be had."
)
def demo(out: Output, *, keep: str | None, user_space: bool) -> int:
    """Make a torn image and a good one, and show why.

    A small volume is written all the time by an application.  It is copied block by block, as dd
    does it, and through a snapshot; then both copies are restored and checked.  As root on Linux
    the volume is a file system on loop devices; else the program serves it itself.  Everything
    happens in a temporary folder and is cleaned up.  Exit code 0 only if the naive copy is torn
    and the snapshot's image is clean.
    """
    with interrupts.deferred(), _folders(out, keep) as (work, images):
        ending = _play(out, work, images, user_space=user_space)
    if keep:
        out.say(f"{ending.seconds:.0f} seconds.  The images are in {keep}; nothing else is left behind.")
    else:
        out.say(f"{ending.seconds:.0f} seconds; nothing is left behind.")
    good = ending.torn and ending.clean
    out.document(good, {**ending.document(), "kept": keep})
    return exits.OK if good else exits.FOUND


def _play(out: Output, work: str, images: str, *, user_space: bool) -> Ending:
    from vsssnap.cli.demo import story

    reason = "it was asked for"
    if not user_space:
        reason = _play_looped(out, work, images, ending := story.Ending("loop devices"))
        if not reason:
            return ending
    story.paragraph(out, f"This runs in user space alone, without loop devices and mounts: {reason}.")
    from vsssnap.cli.demo import served

    ending = story.Ending("user space")
    with served.build(work) as scene:
        story.tell(out, scene, images, ending)
    return ending


def _play_looped(out: Output, work: str, images: str, ending: Ending) -> str:
    """Play on loop devices; why that cannot be, or ""."""
    if sys.platform == "linux":
        from vsssnap.cli.demo import looped, story, tools

        reason = looped.why_not()
        if reason:
            return reason
        folder = os.path.join(work, "loop")
        os.mkdir(folder, 0o700)
        with contextlib.ExitStack() as stack:
            try:
                scene = stack.enter_context(looped.build(folder))
            except tools.ProgramError as exc:
                # Root in a container may be refused what root is not; what was begun is undone by now.
                return str(exc)
            story.tell(out, scene, images, ending)
        return ""
    else:  # noqa: RET505 - so that mypy for win32 skips the rest
        return "loop devices are Linux's"


@contextlib.contextmanager
def _folders(out: Output, keep: str | None) -> Iterator[tuple[str, str]]:
    """A folder to work in, which goes, and one for the images, which stays if it is ``keep``."""
    made = False
    if keep is not None:
        made = _claim(keep)
    with _work(out) as work:
        images = os.path.abspath(keep) if keep is not None else os.path.join(work, "images")
        try:
            if keep is None:
                os.mkdir(images, 0o700)
            yield work, images
        except BaseException:
            if keep is not None:
                for name in os.listdir(images):
                    os.unlink(os.path.join(images, name))
                if made:
                    os.rmdir(images)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if os.path.exists(work):
                out.warn(f"{work} could not be removed")


def _work(out: Output) -> contextlib.AbstractContextManager[str]:
    """A temporary folder; what an earlier demo left that was killed is removed."""
    if sys.platform == "win32":
        return contextlib.nullcontext(tempfile.mkdtemp(prefix=_PREFIX))
    else:  # noqa: RET505 - so that mypy for win32 skips the rest
        from vsssnap.cli.demo import leftovers

        for gone in leftovers.remove(_PREFIX):
            out.say(f"removed {gone}, which a demo that was killed had left")
        return leftovers.folder(_PREFIX)


def _claim(keep: str) -> bool:
    """See to it that a folder is there and empty; whether it was made for that."""
    try:
        os.mkdir(keep, 0o700)
    except FileExistsError:
        if not os.path.isdir(keep) or os.listdir(keep):
            raise TargetRefusedError(
                f"{keep} exists and is no empty folder", path=keep, hint="name a new folder"
            ) from None
        return False
    except OSError as exc:
        raise TargetError(
            f"{keep} cannot be made: {exc.strerror}",
            path=keep,
            call="mkdir",
            code=exc.errno,
            hint="name another folder",
        ) from exc
    return True
