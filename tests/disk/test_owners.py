"""A partition of a group that another host may use is not taken for one that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest

import lvm_images as lvm
from lvm_images import physical_volume, segment, volume
from vsssnap._deadline import Deadline
from vsssnap.disk import owners

TEXT = lvm.group(volume("root", segment(1, 0, 3, [("pv0", 4)])))


def said(line: str, folder: Path) -> dict[int | str, str]:
    path = folder / "pv"
    path.write_bytes(physical_volume(TEXT.replace(b"seqno = 7\n", f"seqno = 7\n{line}\n".encode())))
    other = folder / "other"
    other.write_bytes(bytes(1 << 20))
    return owners.elsewhere({1: str(other), 3: str(path), 4: str(folder / "away")}, Deadline(60))


def test_what_hosts_share_or_another_one_owns_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "_system_id", lambda _: "we")
    assert said("", tmp_path) == {}
    assert said('system_id = "we"', tmp_path) == {}
    assert said('system_id = "they"', tmp_path) == {3: "is of the volume group vg, which the host they owns"}
    assert said('lock_type = "dlm"', tmp_path) == {3: "is of the volume group vg, which hosts share"}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo '  WARNING: a'; echo '  system ID: host-1'", "host-1"),
        ("echo '  system ID: '; echo b", ""),
        ("echo '  system ID: x'; exit 5", ""),
        (None, ""),
    ],
)
@pytest.mark.posix("shell scripts")
def test_lvm_is_asked_who_we_are(
    script: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    if script:
        (tmp_path / "lvm").write_text(f'#!/bin/sh\n[ "$1" = systemid ] || exit 1\n{script}\n')
        (tmp_path / "lvm").chmod(0o755)
    assert owners._system_id(Deadline(60)) == expected
