"""Opens damaged images in a process of its own, under a limit of memory; see `damaged_images`.

Reads a request as JSON from standard input; prints a list of problems as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import DeviceReadError, ImageError, ImageNotFoundError
from vsssnap.formats import Depth, ImageFormat, ImageReader, MemoryStorage, by_name

MEMORY = 512 << 20  # bytes of address space above what the program takes at the start
SLOW = 5.0  # seconds of work for one image; what waits for ever is ended with the process


class Files:
    """Images in memory that refer to one another by name."""

    def __init__(self, files: dict[str, bytes], driver: ImageFormat) -> None:
        self.files = files
        self.driver = driver

    def open(self, name: str, *, recover: bool, depth: int = 0) -> ImageReader:
        """Open one of them; those behind it are found by the last part of their path."""
        if depth > 8:
            raise ImageError("too many parents")

        def resolve(candidates: Any, /, *, format: str | None = None) -> ImageReader:  # noqa: ANN401 - names
            for candidate in candidates:
                bare = os.path.basename(candidate)
                if bare in self.files:
                    if format == "raw":
                        return by_name("raw").open(MemoryStorage(self.files[bare], bare))
                    return self.open(bare, recover=recover, depth=depth + 1)
            raise ImageNotFoundError("it is not there")

        return self.driver.open(
            MemoryStorage(bytearray(self.files[name]), name), resolve_parent=resolve, recover=recover
        )


def look(files: Files, name: str, wanted: bytes, *, recover: bool) -> str:
    """What comes of opening, reading and verifying: "" (right), "error" or "bytes"."""
    try:
        image = files.open(name, recover=recover)
    except ImageError:
        return "error"
    with image:
        wrong = ""
        list(image.verify(Depth.STRUCTURE, lambda _: None))
        json.dumps(image.info())
        if image.size != len(wanted):
            # An image that says it is huge is not read whole.
            image.pread(1 << 20, max(0, image.size - (1 << 20)))
            return "bytes"
        for extent in image.extents():
            part = wanted[extent.offset : extent.end]
            if extent.reads_as_zero:
                wrong = wrong or ("bytes" if part.strip(b"\0") else "")
            else:
                try:
                    data = image.pread(extent.length, extent.offset)
                except (ImageError, DeviceReadError):
                    wrong = "error"
                    continue
                if extent.kind is ExtentKind.UNREADABLE or data != part:
                    wrong = wrong or "bytes"
        return wrong


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    wanted = files.pop(request["wanted"])
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    whole = files[request["target"]]
    problems = []
    for change in request["changes"]:
        data = bytearray(whole)
        for at, text in change["patches"]:
            piece = bytes.fromhex(text)
            data[at : at + len(piece)] = piece
        files[request["target"]] = bytes(data[: change["length"]])
        for recover in (False, True):
            started = time.process_time()
            try:
                seen = look(
                    Files(files, by_name(request["format"])), request["image"], wanted, recover=recover
                )
            except (ImageError, DeviceReadError) as exc:
                seen = "error"
                if not recover and isinstance(exc, DeviceReadError):
                    seen = repr(exc)
            except BaseException as exc:
                seen = repr(exc)
            if time.process_time() - started > SLOW:
                seen = f"{time.process_time() - started:.1f} s"
            if seen not in ("", "error") and not (seen == "bytes" and (recover or change["silent"])):
                problems.append(f"{change['what']}{', recover' if recover else ''}: {seen}")
    print(json.dumps(problems))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
