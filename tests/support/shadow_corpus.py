"""Volumes with shadow copies that Windows made, unpacked once and kept outside the checkout."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus_images import image
from requirements import require_corpus, require_program
from vsssnap import BlockReader, open_device


@functools.cache
def golden() -> dict[str, Any]:
    """What ``golden.json`` says of each volume, by name."""
    with open(require_corpus() / "vss" / "golden.json", encoding="utf-8") as file:
        return {volume["name"]: volume for volume in json.load(file)}


def opened(name: str, offset: int = 0, length: int | None = None) -> BlockReader:
    """A volume of the corpus.

    Args:
        name: The file, as ``golden.json`` or ``EXPECTED-VSS.tsv`` names it.
        offset: First byte of the volume in it.
        length: Its bytes; None for the whole file.
    """
    makers: dict[str, Callable[[], Path]] = {
        "plaso_vsstest.raw": _vsstest,
        "vss_1_vol.raw": lambda: _untarred("vss_1_vol"),
        "vss_2_stor.raw": lambda: _untarred("vss_2_stor"),
        "dfvfs/vss.raw": lambda: image("dfvfs/vss.raw"),
    }
    device = open_device(makers[name]())
    return device if length is None else device.window(offset, length)


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "vsssnap" / "corpus" / "vss"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _vsstest() -> Path:
    target = _folder() / "vsstest.raw"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            packed = str(image("plaso/vsstest.qcow2"))
            command = [require_program("qemu-img"), "convert", "-O", "raw", "-S", "4k", packed, str(made)]
            subprocess.run(command, check=True)
            os.replace(made, target)
    return target


def _untarred(name: str) -> Path:
    """A sparse disk; its holes stay holes."""
    target = _folder() / f"{name}.raw"
    if not target.exists():
        with (
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
            tarfile.open(require_corpus() / "vss" / f"{name}.tar.gz") as archive,
        ):
            (member,) = archive.getmembers()
            archive.extract(member, folder, filter="data")
            os.replace(Path(folder) / member.name, target)
    return target
