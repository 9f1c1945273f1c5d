"""Reads one image through a foreign Python library, in a process of its own; see `oracles`.

Called with one argument, a request as JSON; prints the answer as JSON.  Imports nothing of
the project: it is run with ``python -I``.
"""

import hashlib
import importlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = 64 << 10
STEP = 1 << 20

Read = Callable[[int, int], bytes]


def libyal(request: dict[str, Any]) -> tuple[int, Read]:
    """Open with libvhdi, libqcow or libvmdk, and its parents one behind the other."""
    base = request["kind"].partition("-")[0]
    name = {"vhd": "pyvhdi", "vhdx": "pyvhdi", "qcow2": "pyqcow", "vmdk": "pyvmdk"}[base]
    library: Any = importlib.import_module(name)
    opened = []
    for path in (request["path"], *request["parents"]):
        image = library.handle() if base == "vmdk" else library.file()
        image.open(path)
        if base == "vmdk":
            image.open_extent_data_files()
        opened.append(image)
    for child, parent in itertools.pairwise(opened):
        child.set_parent(parent)
    first = opened[0]
    # libvhdi takes the unused end of the bitmap of a block below 2 MiB for sectors of the next blocks,
    # and goes wrong where one read passes from block to block.
    most = 64 << 10 if request["kind"] == "vhd-diff" else 1 << 30

    def read(offset: int, length: int) -> bytes:
        pieces = []
        while length:
            first.seek(offset)
            piece = first.read(min(length, most))
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    return int(first.get_media_size()), read


def dissect(request: dict[str, Any]) -> tuple[int, Read]:
    """Open with dissect.hypervisor; a parent is handed over where its class takes one."""
    base = request["kind"].partition("-")[0]
    module: Any = importlib.import_module(f"dissect.hypervisor.disk.{base}")
    path = Path(request["path"])
    image: Any
    if base == "vhd":
        image = module.VHD(path.open("rb"))
        size = image.size
    elif base == "vhdx":
        image = module.VHDX(path)
        size = image.size
    elif base == "vmdk":
        image = module.VMDK(path)
        size = image.size
    else:
        options: dict[str, Any] = {}
        if request["kind"] == "qcow2-data-file":
            options["data_file"] = Path(request["parents"][0]).open("rb")  # noqa: SIM115 - as long as the process
        elif request["parents"]:
            below = dissect({**request, "path": request["parents"][0], "parents": request["parents"][1:]})
            options["backing_file"] = _File(*below)
        image = module.QCow2(path, **options)
        size = image.size
        image = image.open()

    def read(offset: int, length: int) -> bytes:
        image.seek(offset)
        return bytes(image.read(length))

    return int(size), read


class _File:
    """The least of a file that a backing file must be."""

    def __init__(self, size: int, read: Read) -> None:
        self.size = size
        self._read = read
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, length: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        data = self._read(self._at, left if length < 0 else min(length, left))
        self._at += len(data)
        return data


def digest(size: int, read: Read) -> str:
    """As `oracles.digest_of`, written once more."""
    state = hashlib.sha256()
    for start in range(0, size, STEP):
        data = read(start, min(STEP, size - start))
        if len(data) != min(STEP, size - start):
            raise OSError(f"{len(data)} bytes at {start}")
        if data == bytes(len(data)):
            continue
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            if block != bytes(len(block)):
                state.update((start + at).to_bytes(8, "little"))
                state.update(block)
    return state.hexdigest()


def main() -> None:
    """Answer the request."""
    request = json.loads(sys.argv[1])
    size, read = {"libyal": libyal, "dissect": dissect}[request["family"]](request)
    if request["ranges"] is None:
        answer: dict[str, Any] = {"size": size, "digest": digest(size, read)}
    else:
        answer = {"spots": [read(offset, length).hex() for offset, length in request["ranges"]]}
    print(json.dumps(answer))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
