"""Files that grow record by record and survive being cut off anywhere: what is whole is read, a torn tail dropped."""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

MAGIC = b"NSTREC1\n"
_HEAD = struct.Struct(
    "<III"
)  # bytes of the description, bytes of the data, CRC-32 of both lengths and all that follows
_LENGTHS = struct.Struct("<II")
_LONGEST = 1 << 31  # bytes; a length above it was never written by this program


@dataclass(frozen=True)
class Record:
    """A description, of plain JSON types, and the bytes it describes; `end` is where the next record begins."""

    facts: dict[str, Any]
    data: bytes
    end: int


class RecordWriter:
    """Appends records to a file; `sync` waits until they are on the disk. Use it in a `with` or close it.

    keep: bytes of an existing file to go on from, as `Record.end` says them; the rest is cut off. None begins anew.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        self.path = path
        self._file: BinaryIO = open(path, "r+b" if keep is not None else "wb")  # noqa: SIM115
        if keep is None:
            self._file.write(MAGIC)
        else:
            self._file.truncate(keep)
            self._file.seek(keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, facts: dict[str, Any], data: bytes = b"") -> None:
        """Write one record. OSError, as from any file, when the disk is full."""
        text = json.dumps(facts, allow_nan=False, separators=(",", ":")).encode()
        lengths = _LENGTHS.pack(len(text), len(data))
        checksum = zlib.crc32(data, zlib.crc32(text, zlib.crc32(lengths)))
        self._file.write(_HEAD.pack(len(text), len(data), checksum) + text)
        self._file.write(data)

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Hand what is buffered to the system and close; without `sync` a power cut may still take it."""
        self._file.close()


def read_records(path: Path) -> Iterator[Record]:
    """The whole records from the beginning; stops without an error where one is torn or damaged."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        end = len(MAGIC)
        while True:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            described, length, checksum = _HEAD.unpack(head)
            if described > _LONGEST or length > _LONGEST:
                return
            text, data = file.read(described), file.read(length)
            whole = len(text) == described and len(data) == length
            if not whole or zlib.crc32(data, zlib.crc32(text, zlib.crc32(head[: _LENGTHS.size]))) != checksum:
                return
            end += _HEAD.size + described + length
            yield Record(json.loads(text), data, end)
