#!/usr/bin/env python3
"""Read `.vsnap` images, format 0, without vsssnap; the format is described in vsnap.md beside this file.

    python -I vsnap_reader.py [-o OUT] FILE [ANCESTOR ...]

Checks FILE and its ancestors whole, reads the volume (its data in memory) by the index, prints states
and SHA-256 of the content (UNREADABLE as zeros; up to 16 GiB) as JSON, writes the raw volume to OUT.
"""
# ruff: noqa: D102, D103, T201 - one page of plain Python, without a library around it

import hashlib
import json
import struct
import sys
from pathlib import Path

import xxhash
import zstandard

MAGIC, SKIPPABLE, FAN_OUT = b"\x8eVSNAP\r\n", 0x184D2A5B, 512


def need(condition: object, message: str) -> None:
    if not condition:
        sys.exit(f"vsnap_reader: {message}")


class File:
    """One file, checked from the first byte to the last."""

    def __init__(self, path: str) -> None:
        self.data, self.path, at = Path(path).read_bytes(), path, 0
        self.boxes: dict[int, tuple[int, bytes, bytes]] = {}
        need(len(self.data) >= 64 + 8192, f"{path}: incomplete")
        self.id = self.data[32:48]
        while at < len(self.data):
            need(at + 64 <= len(self.data), f"{path}: cut short at {at}")
            lead, box, magic, kind, flags, outer, place = struct.unpack_from("<II8sHHIQ", self.data, at)
            end = at + 8 + box
            need((lead, magic, place) == (SKIPPABLE, MAGIC, at) and box >= 56, f"{path}: no frame at {at}")
            need(end + outer <= len(self.data), f"{path}: frame at {at} is cut short")
            need(self.data[at + 32 : at + 48] == self.id, f"{path}: another image's frame at {at}")
            check = xxhash.xxh3_128_digest(self.data[at : at + 48] + self.data[at + 64 : end])
            need(check == self.data[at + 48 : at + 64], f"{path}: damaged frame at {at}")
            need(kind in (1, 2, 3, 4, 5, 6, 7, 15) or not flags & 1, f"{path}: unknown critical frame {kind}")
            self.boxes[at] = (kind, self.data[at + 64 : end], self.data[end : end + outer])
            at = end + outer
        footers = [body for kind, body, _ in list(self.boxes.values())[-2:] if kind == 15]
        need(len(footers) == 2, f"{path}: no footers: the image is incomplete")
        self.footer, other = footers
        need(self.footer[:72] + other[72:73] + self.footer[73:] == other, f"{path}: footers differ")
        need(struct.unpack_from("<Q", self.footer)[0] == len(self.data), f"{path}: wrong total length")
        header = self.footer[192 : 192 + struct.unpack_from("<I", self.footer, 76)[0]]
        need(self.boxes[0][:2] == (1, header), f"{path}: header and copy differ")
        version, self.digest, self.sector, self.size = struct.unpack_from("<HHIQ", header)
        self.chunk, self.cell, self.segment, self.chain = struct.unpack_from("<III4xQ", header, 16)
        need(version == 0 and self.chain < 2, f"{path}: format {version}, features {self.chain:#x}")
        self.number, self.root = struct.unpack_from("<I", self.footer, 92)[0], self.footer[112:144]
        self.per_chunk, self.chunks = self.chunk // self.cell, -(-self.size // self.chunk)
        self.width = -(-self.per_chunk // 8)
        for at in [at for at, box in self.boxes.items() if box[0] == 2]:
            self.data_frame(at)

    def length(self, chunk: int) -> int:
        return int(min(self.chunk, self.size - chunk * self.chunk))

    def states(self, body: bytes, at: int, chunk: int) -> tuple[list[int], list[tuple[int, int]], int]:
        flags, has_data = body[at], body[at + 1]
        codes, at = [0] * -(-self.length(chunk) // self.cell), at + 4
        for present, code in ((flags & 1, 1), (flags & 2, 2), (flags & 4, 4), (has_data, 3)):
            if present:
                for cell in self.map(body, at):
                    codes[cell] = code
                at += self.width
        end = at + 4 + 8 * struct.unpack_from("<I", body, at)[0] if flags & 8 else at
        return codes, list(struct.iter_unpack("<II", body[at + 4 : end])), end

    def map(self, body: bytes, at: int) -> list[int]:
        bits = int.from_bytes(body[at : at + self.width], "little")
        return [cell for cell in range(self.per_chunk) if bits >> cell & 1]

    def data_frame(self, place: int) -> tuple[int, dict[int, bytes]]:
        kind, body, outer = self.boxes[place]
        need(kind == 2, f"{self.path}: no data frame at {place}")
        chunk, _, _, plain, count = struct.unpack_from("<Q16s32sIH", body)
        codes, _, at = self.states(body, 64, chunk)
        cells, out, start = dict[int, bytes](), b"", 0
        for stored, check in struct.iter_unpack("<I16s", body[at : at + 20 * count]):
            part = outer[start : start + stored]
            need(xxhash.xxh3_128_digest(part) == check, f"{self.path}: damaged data frame at {place}")
            out += zstandard.ZstdDecompressor().decompress(part, max_output_size=self.segment)
            start += stored
        need(len(out) == plain and start == len(outer), f"{self.path}: wrong lengths in the frame at {place}")
        for cell in (cell for cell, code in enumerate(codes) if code == 3):
            at = len(cells) * self.cell
            cells[cell] = out[at : at + self.cell]
        return chunk, cells


def hashed(name: str, *parts: bytes) -> bytes:
    return hashlib.sha256(f"vsnap0 {name}".encode().ljust(16, b"\0") + b"".join(parts)).digest()


class Image:
    """A file with its ancestors, read by the index."""

    def __init__(self, own: File, ancestors: list[File]) -> None:
        self.own, self.files = own, {own.number: own}
        self.chunks: dict[int, bytearray] = {}  # those with data
        self.runs, self.unreadable = list[list[int]](), list[list[int]]()  # offset and state, or length
        place = struct.unpack_from("<Q", own.footer, 80)[0]
        if own.chain:
            body, at, known = own.boxes[place][1], 8, {(f.id, f.root, len(f.data)): f for f in ancestors}
            for number in range(own.number):
                *identity, used, name = struct.unpack_from("<16s32sQHH", body, at)
                at += 60 + name
                if used:
                    need(
                        tuple(identity) in known, f"ancestor {number} is missing: name it on the command line"
                    )
                    self.files[number] = known[tuple(identity)]
        top = next(level for level in range(8) if FAN_OUT ** (level + 1) >= own.chunks)
        value = self.reference(own.footer[16:72], top, 0)
        geometry = struct.pack("<HQIII", own.digest, own.size, own.sector, own.chunk, own.cell)
        need(own.digest != 2 or hashed("root", geometry, value) == own.root, "wrong content root")

    def reference(self, entry: bytes, level: int, number: int) -> bytes:
        """Read the subtree below a reference; its value."""
        own, kind, file, place, value = self.own, entry[0], *struct.unpack_from("<IQ", entry, 4), entry[24:56]
        span = FAN_OUT ** (level + 1)
        if kind != 4:
            self.state(number * span * own.chunk, kind)
            need(own.digest != 2 or value == hashed("flat", bytes([kind])), "wrong flat value")
            return value
        kind, body, _ = self.files[file].boxes[place]
        found, count, first = struct.unpack_from("<B3xIQ", body)
        need((kind, found, first, body[16:48]) == (4, level, number * span, value), f"wrong page at {place}")
        if level:
            values = [self.reference(body[48 + 56 * i : 104 + 56 * i], level - 1, number * FAN_OUT + i)
                      for i in range(count)]  # fmt: skip
        else:
            ends = [52 + 4 * count + end for end in struct.unpack_from(f"<{count + 1}I", body, 48)]
            values = [self.entry(body[ends[i] : ends[i + 1]], first + i) for i in range(count)]
        if own.digest == 2:
            flat = [hashed("flat", bytes([s])) for s in range(3)]
            same = values[0] in flat and values.count(values[0]) == len(values)
            computed = values[0] if same else hashed("node", struct.pack("<BI", level, count), *values)
            need(computed == value, f"wrong value of page {number} of level {level}")
        return value

    def state(self, offset: int, code: int) -> None:
        if offset < self.own.size and (not self.runs or self.runs[-1][1] != code):
            self.runs.append([offset, code])

    def entry(self, entry: bytes, chunk: int) -> bytes:
        """Read a chunk by its leaf entry; its value."""
        own, base, data = self.own, chunk * self.own.chunk, bytearray(self.own.length(chunk))
        if entry[0] < 3:
            self.state(base, entry[0])
            return hashed("flat", entry[:1])
        codes, ranges, at = own.states(entry, 36, chunk)
        for _ in range(entry[1]):
            file, place, _, _ = struct.unpack_from("<IQII", entry, at)
            found, stored = self.files[file].data_frame(place)
            need(found == chunk, f"frame at {place} holds chunk {found}, not {chunk}")
            for cell in own.map(entry, at + 20):
                codes[cell], low = 3, cell * own.cell
                data[low : low + len(stored[cell])] = stored[cell]
                self.chunks[chunk] = data
            at += 20 + own.width
        for cell, code in enumerate(codes):
            self.state(base + cell * own.cell, code)
        self.unreadable += [[base + offset, length] for offset, length in ranges]
        digest = hashlib.sha256(data).digest()
        need(own.digest != 2 or digest == entry[4:36], f"wrong digest of chunk {chunk}")
        listed = struct.pack("<I", len(ranges)) + b"".join(struct.pack("<II", *item) for item in ranges)
        return hashed("chunk", struct.pack("<I", len(codes)), bytes(codes), listed, digest)


def main(arguments: list[str]) -> None:
    out = arguments.pop(1) if arguments[:1] == ["-o"] else None
    own, *ancestors = [File(path) for path in arguments[out is not None :]]
    image = Image(own, ancestors)
    content, small = hashlib.sha256(), own.size <= 1 << 34
    for chunk in range(own.chunks if small else 0):
        content.update(image.chunks.get(chunk, bytes(own.length(chunk))))
    if out:
        with Path(out).open("wb") as file:
            file.truncate(own.size)
            for chunk, data in image.chunks.items():
                file.seek(chunk * own.chunk)
                file.write(data)
    result = {"size": own.size, "content_root": own.root.hex(), "runs": image.runs}
    result |= {"unreadable": image.unreadable, "sha256": content.hexdigest() if small else None}
    print(json.dumps(result))


main(sys.argv[1:])
