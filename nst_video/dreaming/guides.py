"""A picture or a video that is dreamed of, as the Dreamer wants it."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from torch import Tensor

from nst_video.colors import to_image
from nst_video.dreaming.dreamer import Guide
from nst_video.media import survey
from nst_video.media.probe import probe
from nst_video.options import OutputOptions

_Timed = tuple[Fraction, np.ndarray]


def open_guide(path: str, options: OutputOptions, device: str = "cpu") -> Guide:
    """A picture as an image (1, 3, h, w) in [0, 1]; a video as a function from seconds to one. Both are small."""
    if probe(path, max_pixels=options.max_pixels).kind != "picture":
        return GuideVideo(path, options, device)
    with survey.open_guide(path, options) as reader:
        return to_image(next(iter(reader)).rgb[:1], device)


class GuideVideo:
    """Shows the frame of a video at any time; after its end it begins again."""

    def __init__(self, path: str, options: OutputOptions, device: str = "cpu"):
        self.path, self.options, self.device = path, options, device
        self.length: Fraction | None = None  # seconds, known once it was read to its end
        self._frames: Iterator[_Timed] = iter(())
        self._shown: _Timed | None = None
        self._next: _Timed | None = None

    def __call__(self, seconds: float) -> Tensor:
        """The image (1, 3, h, w) in [0, 1] that is shown at this time."""
        wanted = Fraction(seconds)
        if self.length is not None:
            wanted %= self.length
        if self._shown is None or wanted < self._shown[0]:
            self._rewind()
        while self._next is not None and (self._shown is None or self._next[0] <= wanted):
            self._shown, before = self._next, self._shown
            self._next = next(self._frames, None)
            if self._next is None:
                self.length = self._shown[0] + (self._shown[0] - before[0] if before else Fraction(1))
                if wanted >= self.length:
                    return self(seconds)
        assert self._shown is not None
        return to_image(self._shown[1][None], self.device)

    def _rewind(self) -> None:
        self._frames, self._shown = self._read(), None
        self._next = next(self._frames, None)

    def _read(self) -> Iterator[_Timed]:
        """Each frame with its time, the first at 0."""
        first: Fraction | None = None
        with survey.open_guide(self.path, self.options) as reader:
            for batch in reader:
                for time, rgb in zip(batch.times, batch.rgb, strict=True):
                    first = time if first is None else first
                    yield time - first, rgb
