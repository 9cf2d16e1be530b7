"""The frames of a render as they were painted, on disk without loss: FFV1 pictures, each readable on its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from nst_video.errors import InputError
from nst_video.records import RecordWriter, read_records

_OPTIONS = {"level": "3", "g": "1", "slicecrc": "1"}
_PIXELS = "bgr0"  # RGB as it is: nothing is rounded on the way to and fro


def _share(codec: Any) -> None:
    """Let the four slices of a picture be coded at once where there are many cores; the bytes are the same."""
    codec.thread_count, codec.thread_type = max(1, min(4, (os.cpu_count() or 1) // 4)), "SLICE"


@dataclass(frozen=True)
class KeptFrame:
    """A painted frame, uint8 (H, W, 3), and its row: what a trace says of it, as plain JSON types."""

    number: int
    row: dict[str, Any]
    rgb: np.ndarray


class FrameLog:
    """Appends frames of one size (width, height) to a file.

    keep: the bytes of an existing file to go on from, from `intact`; None begins anew.
    """

    def __init__(self, path: Path, size: tuple[int, int], *, keep: int | None = None) -> None:
        self._encoder: Any = av.CodecContext.create("ffv1", "w")
        self._encoder.width, self._encoder.height = size
        self._encoder.pix_fmt, self._encoder.time_base = _PIXELS, Fraction(1, 1)
        self._encoder.options = dict(_OPTIONS)
        _share(self._encoder)
        self._encoder.open()
        self._records = RecordWriter(path, keep=keep)
        if keep is None:
            self._records.append({"size": size}, self._encoder.extradata or b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, frame: KeptFrame) -> None:
        """Write one more frame; its number follows that of the frame before it."""
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24").reformat(format=_PIXELS)
        picture.pts, picture.time_base = frame.number, Fraction(1, 1)
        (packet,) = self._encoder.encode(picture)
        self._records.append({"frame": frame.number, "row": frame.row}, bytes(packet))

    def sync(self) -> None:
        """Wait until every frame appended is on the disk."""
        self._records.sync()

    def close(self) -> None:
        """Close the file."""
        self._records.close()


def intact(path: Path, first: int) -> list[int]:
    """Where each whole frame of the log ends, in bytes, for frames `first`, `first` + 1, ...; a torn tail is left out.

    Empty where the file is missing, damaged from its start, or of other frames.
    """
    if not path.exists():
        return []
    records = read_records(path)
    if next(records, None) is None:
        return []
    ends: list[int] = []
    for record in records:
        if record.facts.get("frame") != first + len(ends):
            break
        ends.append(record.end)
    return ends


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the log's frames."""
    records = read_records(path)
    next(records, None)
    for record in records:
        yield record.facts["row"]


def read_frames(path: Path) -> Iterator[KeptFrame]:
    """The frames of a log; InputError where one that is there cannot be decoded."""
    records = read_records(path)
    head = next(records, None)
    if head is None:
        return
    decoder: Any = av.CodecContext.create("ffv1", "r")
    decoder.width, decoder.height = head.facts["size"]
    decoder.pix_fmt, decoder.extradata = _PIXELS, head.data
    _share(decoder)
    for record in records:
        packet = av.Packet(record.data)
        packet.pts = record.facts["frame"]
        try:
            (picture,) = decoder.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{path}: frame {record.facts['frame']} cannot be decoded") from error
        yield KeptFrame(record.facts["frame"], record.facts["row"], picture.to_ndarray(format="rgb24"))
