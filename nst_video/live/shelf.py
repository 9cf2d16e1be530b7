"""The style pictures of a live session: files, and folders into which more may be dropped while it runs."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nst_video.errors import InputError, NstVideoError
from nst_video.live.frames import StylePicture
from nst_video.media.guarded import read_pictures
from nst_video.media.pictures import READ_SUFFIXES

log = logging.getLogger(__name__)

POLL_EVERY = 1.0  # seconds
LARGEST_SIDE = 1024  # pixels that are kept of a style picture: twice the usual window
SUFFIXES = frozenset({*READ_SUFFIXES, ".gif"})

Stamp = tuple[int, int]  # size in bytes and time of the last change in nanoseconds: tells whether a file is at rest


class Shelf:
    """Style pictures in the order in which they were named or found; none is ever taken away.

    Start it before use, and close it. A picture that cannot be used costs one line in the log.
    """

    def __init__(
        self,
        places: Sequence[str],
        *,
        poll_every: float = POLL_EVERY,
        read: Callable[[Sequence[str], int], list[np.ndarray]] = read_pictures,
    ) -> None:
        """places: files and folders."""
        self._places, self._poll_every, self._read = tuple(places), poll_every, read
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
        usable = self._usable([path for path in found if os.path.realpath(path) not in self._taken])
        for path, stamp in found.items():
            real = os.path.realpath(path)
            if path in usable and real not in self._taken:
                self._add(path, real, usable[path])
            self._settled[real] = stamp

    def _add(self, path: str, real: str, rgb: np.ndarray) -> None:
        self._taken.add(real)
        self._pictures = (*self._pictures, StylePicture(path, Path(path).stem, rgb))
        if self._thread.is_alive():
            log.info("style %d: %s", len(self._pictures), path)

    def _usable(self, paths: list[str]) -> dict[str, np.ndarray]:
        """Those that can be read, with few processes: all at once, and halves where one of them cannot."""
        if not paths or self._stop.is_set():
            return {}
        try:
            return dict(zip(paths, self._read(paths, LARGEST_SIDE), strict=True))
        except InputError as error:
            if len(paths) == 1:
                log.warning("%s; it is left out", error)
                return {}
        half = len(paths) // 2
        return self._usable(paths[:half]) | self._usable(paths[half:])


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    try:
        names = sorted(place.iterdir())
    except OSError:  # unplugged, or not to be read for a while
        return []
    return [path for path in names if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]
