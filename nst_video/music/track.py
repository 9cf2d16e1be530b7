"""All that is known of one sound: its features and beats, which travel from the process that listens to this one."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nst_video.music.beats import track_beats
from nst_video.music.features import SECONDS, Analyser, Features
from nst_video.music.sound import RATE, SoundRequest, samples

_CURVES = ("onset", "rms", "bass", "mid", "treble", "centroid", "wave")
_NOTES = 12


@dataclass(frozen=True)
class Track:
    """One sound as it was heard: its features in cells of 5 ms, and the times of its beats in seconds.

    seconds: how long it lasts, from the clock's zero on.
    """

    path: str
    seconds: float
    features: Features
    beats: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        found = {name: _packed(getattr(self.features, name)) for name in (*_CURVES, "chroma")}
        facts = {"peak": self.features.peak, "samples": self.features.samples}
        return {"path": self.path, "seconds": self.seconds, "beats": list(self.beats), "features": found | facts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Track":
        """What `to_json` wrote; ValueError or TypeError where that cannot be what is there."""
        packed = data["features"]
        found = {name: _unpacked(packed[name]) for name in (*_CURVES, "chroma")}
        found["chroma"] = found["chroma"].reshape(_NOTES, -1)
        if len({found[name].shape[-1] for name in found}) != 1:
            raise ValueError("curves of several lengths")
        features = Features(**found, peak=float(packed["peak"]), samples=int(packed["samples"]))
        return cls(str(data["path"]), float(data["seconds"]), features, tuple(map(float, data["beats"])))


def analyse(request: SoundRequest, on_step: Callable[[], None] = lambda: None) -> Track:
    """Decode a sound and say what is in it; it runs where `guarded.listen` has it run. InputError as `samples`."""
    analyser = Analyser()
    for block in samples(request, on_step):
        analyser.feed(block)
    features = analyser.finish()
    on_step()
    beats = () if features.silent else track_beats(features.onset, on_step)
    return Track(request.path, features.samples / RATE, features, beats)


def grid(count: int) -> np.ndarray:
    """The middle of each of so many cells, in seconds."""
    return (np.arange(count) + 0.5) * SECONDS


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    if not np.isfinite(values).all():
        raise ValueError("a curve with values that are not finite")
    return values.astype(np.float32)
