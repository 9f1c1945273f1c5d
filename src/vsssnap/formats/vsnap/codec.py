"""Digests and segments: what is computed over payload bytes.

Source: docs/formats/vsnap.md, sections 4 and 9; RFC 8878 for the Zstandard frames that are
laid out here by hand.  Compressors and decompressors must not be shared by threads, so each
thread has its own (python-zstandard, "API usage"; facebook/zstd issue 4206).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import xxhash
import zstandard
from blake3 import blake3

from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import corrupt

if TYPE_CHECKING:
    from typing_extensions import Buffer

Digest = Callable[["Buffer"], bytes]

_BLOCK: Final = 128 << 10  # RFC 8878, 3.1.1.2.4: largest block
_MAX_WINDOW: Final = 8 << 20
_HELD: Final = 64 << 10
_THREAD = threading.local()


def _blake3(data: Buffer) -> bytes:
    return blake3(data).digest()


class Hasher(Protocol):
    """A digest that is fed bytes."""

    def update(self, data: Buffer, /) -> object:
        """Feed some."""

    def digest(self) -> bytes:
        """Of all so far."""


def _sha256_hasher(data: Buffer = b"") -> Hasher:
    import hashlib  # loads OpenSSL, which nearly no image needs

    return hashlib.sha256(data)


def _sha256(data: Buffer) -> bytes:
    return _sha256_hasher(data).digest()


HASHERS: Final[dict[int, Callable[[], Hasher]]] = {structs.BLAKE3: blake3, structs.SHA256: _sha256_hasher}
DIGESTS: Final[dict[int, Digest]] = {structs.BLAKE3: _blake3, structs.SHA256: _sha256}
DIGEST_NAMES: Final = {structs.BLAKE3: "blake3", structs.SHA256: "sha256"}


def check_of(data: bytes | memoryview) -> bytes:
    """XXH3-128, canonical: against accidents, never for equality.

    It takes microseconds.  A digest of more than `_HELD` bytes at once would let other threads run
    meanwhile, and to have the interpreter back takes longer than that.
    """
    length = len(data)
    if length <= _HELD:
        return xxhash.xxh3_128_digest(data)
    found = xxhash.xxh3_128()
    for start in range(0, length, _HELD):
        found.update(data[start : start + _HELD])
    return found.digest()


def raw_frame(data: memoryview) -> bytes:
    """One Zstandard frame of raw blocks; its bytes depend on nothing but ``data``.

    Frame header descriptor (RFC 8878, 3.1.1.1.1): single segment, 4-byte content size.
    """
    size = len(data)
    parts: list[bytes | memoryview] = [b"\x28\xb5\x2f\xfd\xa0", size.to_bytes(4, "little")]
    for start in range(0, size, _BLOCK) or (0,):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= size
        parts += [(len(block) << 3 | last).to_bytes(3, "little"), block]
    return b"".join(parts)


def compress(data: memoryview, level: int) -> bytes:
    """A segment's Zstandard frame.

    Args:
        data: The plain bytes, at least 1.
        level: Zstandard's level; 0 for raw blocks.
    """
    if level:
        compressors = _THREAD.__dict__.setdefault("compressors", {})
        compressor = compressors.get(level)
        if compressor is None:
            compressor = compressors[level] = zstandard.ZstdCompressor(level=level, write_checksum=False)
        packed: bytes = compressor.compress(data)
        # Below 3 % it is not worth decompressing at every read.
        if len(packed) < len(data) - (len(data) >> 5):
            return packed
    return raw_frame(data)


def most_stored(plain: int) -> int:
    """The largest stored length of a segment (section 4)."""
    return plain + plain // 1024 + 64


def decompress(data: bytes | memoryview, plain: int, offset: int, path: str) -> bytes:
    """The plain bytes of a segment whose check has been compared.

    Raises:
        CorruptImageError: it is not exactly one frame of ``plain`` bytes under the rules of section 4.
    """
    try:
        found = zstandard.get_frame_parameters(data)
        if found.content_size != plain or found.dict_id or found.window_size > _MAX_WINDOW:
            raise corrupt(
                f"Zstandard frame of {found.content_size} bytes, dictionary {found.dict_id}, window"
                f" {found.window_size}; {plain} bytes without dictionary were due",
                "segment",
                offset,
                path,
            )
        decompressor = getattr(_THREAD, "decompressor", None)
        if decompressor is None:
            decompressor = _THREAD.decompressor = zstandard.ZstdDecompressor()
        result: bytes = decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise corrupt(f"segment does not decompress: {exc}", "segment", offset, path) from exc
    if len(result) != plain:
        raise corrupt(f"segment gives {len(result)} bytes, not {plain}", "segment", offset, path)
    return result
