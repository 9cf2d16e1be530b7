"""The style pictures of a live session: files, and folders into which more may be dropped while it runs."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from nst_video.errors import InputError, NstVideoError
from nst_video.guarded import look
from nst_video.live.frames import StylePicture
from nst_video.options import OutputOptions
from nst_video.pictures import PICTURE_SUFFIXES, decode_picture
from nst_video.survey import Request
from nst_video.video import scaled_size

log = logging.getLogger(__name__)

POLL_EVERY = 1.0  # seconds
LARGEST_SIDE = 1024  # pixels that are kept of a style picture: twice the usual window
SUFFIXES = frozenset({*PICTURE_SUFFIXES, ".gif"})

Stamp = tuple[int, int]  # size in bytes and time of the last change in nanoseconds: tells whether a file is at rest


def check_pictures(paths: Sequence[str]) -> None:
    """Decode these pictures in a process of its own. Raises InputError for one that cannot be used."""
    with look(Request(paths[0], tuple(paths), OutputOptions(), cut_threshold=0)) as found:
        found.finish()


class Shelf:
    """Style pictures in the order in which they were named or found; none is ever taken away.

    Start it before use, and close it. A picture that cannot be used costs one line in the log.
    """

    def __init__(
        self,
        places: Sequence[str],
        *,
        poll_every: float = POLL_EVERY,
        check: Callable[[Sequence[str]], None] = check_pictures,
    ) -> None:
        """places: files and folders."""
        self._places, self._poll_every, self._check = tuple(places), poll_every, check
        self._pictures: tuple[StylePicture, ...] = ()
        self._taken: set[str] = set()  # as resolved, so that none comes twice
        self._settled: dict[str, Stamp] = {}  # by resolved path: taken, or found to be of no use
        self._seen: dict[str, Stamp] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nst-video shelf", daemon=True)

    @property
    def pictures(self) -> tuple[StylePicture, ...]:
        """Those that there are just now; a later answer begins with an earlier one."""
        return self._pictures

    def start(self) -> None:
        """Read what is there, and go on looking into the folders. InputError where there is no usable picture."""
        for place in self._places:
            if not os.path.exists(place):
                raise InputError(f"the style picture {place} does not exist")
        self._take(self._found())
        if self._places and not self._pictures:
            raise InputError(f"no style picture that can be used in {', '.join(self._places)}; give png, jpg or webp")
        if any(map(os.path.isdir, self._places)):
            self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_every):
            found = self._found()
            # A file that changed since the last look is being written.
            try:
                self._take({path: stamp for path, stamp in found.items() if self._seen.get(path) == stamp})
            except NstVideoError as error:  # no process to look at them just now
                log.warning("%s", error)
            self._seen = found

    def _found(self) -> dict[str, Stamp]:
        """Files not settled yet, in order, and their stamps."""
        found: dict[str, Stamp] = {}
        for place in self._places:
            for path in _files(Path(place)):
                try:
                    status = path.stat()
                except OSError:  # gone in this moment
                    continue
                stamp = (status.st_size, status.st_mtime_ns)
                if self._settled.get(os.path.realpath(path)) != stamp:
                    found[str(path)] = stamp
        return found

    def _take(self, found: dict[str, Stamp]) -> None:
        usable = set(self._usable([path for path in found if os.path.realpath(path) not in self._taken]))
        for path, stamp in found.items():
            real = os.path.realpath(path)
            if path in usable and real not in self._taken:
                self._add(path, real)
            self._settled[real] = stamp

    def _add(self, path: str, real: str) -> None:
        try:
            rgb = decode_picture(path)
        except NstVideoError as error:  # it changed since it was checked
            log.warning("%s", error)
            return
        self._taken.add(real)
        self._pictures = (*self._pictures, StylePicture(path, Path(path).stem, _fitted(rgb)))
        if self._thread.is_alive():
            log.info("style %d: %s", len(self._pictures), path)

    def _usable(self, paths: list[str]) -> list[str]:
        """Those that can be read, found with few processes: all at once, and halves where one of them cannot."""
        if not paths or self._stop.is_set():
            return []
        try:
            self._check(paths)
            return paths
        except InputError as error:
            if len(paths) == 1:
                log.warning("%s; it is left out", error)
                return []
        half = len(paths) // 2
        return self._usable(paths[:half]) + self._usable(paths[half:])


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    try:
        names = sorted(place.iterdir())
    except OSError:  # unplugged, or not to be read for a while
        return []
    return [path for path in names if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]


def _fitted(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    if max(height, width) <= LARGEST_SIDE:
        return rgb
    return cv2.resize(rgb, scaled_size((width, height), LARGEST_SIDE, even=False), interpolation=cv2.INTER_AREA)
