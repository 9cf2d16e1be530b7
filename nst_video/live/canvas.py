"""A painting that never ends: every place has its own age, and the older it is, the less it still changes.

The optimiser is Adam (Kingma & Ba 2015) with a rate and a bias correction for every pixel, by the number of steps that
this pixel has had. A gradient a frame is all it needs, whatever the frames do to the objective, and its memory can be
moved along with the picture. What the camera newly shows is painted in large steps while the rest holds still.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from nst_video.live.follow import Step
from nst_video.live.guide import fitted, recolored
from nst_video.optimization.optimizers import Objective, value_and_gradient

_DECAY = (0.6, 0.9)  # short: the objective is another one every frame
_FIRST_RATE, _LAST_RATE = 0.05, 0.006  # change of a pixel in a step, in [0, 1], at first and in the end
_RATE_AGE = 20.0  # steps after which a place has half its first rate
_NEWEST = 0.35  # share of the newest step in what is shown
_AGE_OF_CHANGE = 2.0  # steps that a painting counts as old when what it is painted for has changed
_TINY = 1e-12


@dataclass(frozen=True)
class Canvas:
    """A painting of one size and what its optimisation needs: float32 arrays (H, W, C).

    painted (3 channels): RGB, not clipped. shown (3): its average over the last steps, steadier and no worse. mean,
    square (3): averages of the gradient and of its square. age (1): steps that the place has had.
    """

    painted: np.ndarray
    shown: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    age: np.ndarray

    @staticmethod
    def new(content: np.ndarray) -> "Canvas":
        """A canvas that begins as this picture, float32 (H, W, 3)."""
        zeros = np.zeros_like(content)
        return Canvas(content, content, zeros, zeros, zeros[..., :1])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.painted.shape[1], self.painted.shape[0]

    def moved(self, step: Step, before: np.ndarray) -> "Canvas":
        """The canvas under the next frame; `before` is the content (H, W, 3) that it was painted for."""
        certain = step.trust[..., None]
        pictures = {name: _moved(step, getattr(self, name)) for name in ("painted", "shown")}
        if certain.min() < 1:
            new = (1 - certain) * fitted(before, self.shown, step.content, weight=step.trust)
            pictures = {name: certain * picture + new for name, picture in pictures.items()}
        kept = {name: certain * step.moved(getattr(self, name)) for name in ("mean", "square", "age")}
        return Canvas(**pictures, **kept)

    def resized(self, size: tuple[int, int]) -> "Canvas":
        """The canvas at (width, height) `size`."""
        if size == self.size:
            return self
        # The loss is a mean over the picture, so a pixel's gradient shrinks as their number grows.
        scale = self.size[0] * self.size[1] / (size[0] * size[1])
        pictures = {name: resized(getattr(self, name), size) for name in ("painted", "shown")}
        # Linear: a square, or an age, that cubic interpolation made negative would be fatal.
        kept = {name: resized(getattr(self, name), size, cv2.INTER_LINEAR) for name in ("mean", "square", "age")}
        return Canvas(**pictures, mean=kept["mean"] * scale, square=kept["square"] * scale**2, age=kept["age"])

    def mirrored(self) -> "Canvas":
        """Left and right exchanged; what was known of the gradients does not hold for that."""
        fresh = Canvas.new(np.ascontiguousarray(self.shown[:, ::-1]))
        return replace(fresh, age=np.ascontiguousarray(self.age[:, ::-1]))

    def changed(self, style: np.ndarray | None) -> "Canvas":
        """The canvas when what it is painted for has changed, into this style picture, float32 (h, w, 3), if any.

        No place of it is old any more. Half of the way to the new colours is gone at once, a third of it to be seen.
        """
        age = np.minimum(self.age, np.float32(_AGE_OF_CHANGE))
        if style is None:
            return replace(self, age=age)
        step = recolored(self.painted, style) - self.painted
        return replace(self, painted=self.painted + step / 2, shown=self.shown + step / 3, age=age)

    def improved(self, objective: Objective, steps: int, device: str) -> "Canvas":
        """The canvas after `steps` steps down the objective, which gives the loss (1,) of an image (1, 3, H, W)."""
        painted, shown, mean, square, age = (to_tensor(value, device) for value in vars(self).values())
        for _ in range(steps):
            gradient = _gradient(objective, painted)
            age = age + 1
            mean = mean + (1 - _DECAY[0]) * (gradient - mean)
            square = square + (1 - _DECAY[1]) * (gradient.square() - square)
            unbiased = mean / (1 - _DECAY[0] ** age)
            spread = (square / (1 - _DECAY[1] ** age)).sqrt()
            painted = painted - _rate(age) * unbiased / (spread + _TINY)
            shown = shown + (painted - shown) * (1 / age).clamp_min(_NEWEST)
        return Canvas(*(to_array(value) for value in (painted, shown, mean, square, age)))


def _moved(step: Step, picture: np.ndarray) -> np.ndarray:
    """A picture moved without end: OpenCV's cubic (a = -3/4) strengthens detail by 3 % where it moves by half a pixel,
    which adds up to bright dots in some hundred frames; with a third of linear nothing grows.
    """
    if step.lookup is None:
        return picture
    return (2 * step.moved(picture, cv2.INTER_CUBIC) + step.moved(picture)) / 3


def _rate(age: Tensor) -> Tensor:
    """How far a place goes in its next step."""
    return _LAST_RATE + (_FIRST_RATE - _LAST_RATE) / (1 + age / _RATE_AGE)


def _gradient(objective: Objective, image: Tensor) -> Tensor:
    _, gradient, _ = value_and_gradient(objective, image)
    return torch.where(gradient.isfinite(), gradient, 0.0)


def to_tensor(array: np.ndarray, device: str) -> Tensor:
    """float32 (H, W, C) -> (1, C, H, W)."""
    return torch.from_numpy(array).to(device).permute(2, 0, 1)[None].contiguous()


def to_array(tensor: Tensor) -> np.ndarray:
    """float32 (1, C, H, W) -> (H, W, C)."""
    return np.ascontiguousarray(tensor[0].permute(1, 2, 0).cpu().numpy())


def resized(array: np.ndarray, size: tuple[int, int], larger: int = cv2.INTER_CUBIC) -> np.ndarray:
    """An array (H, W, C) at (width, height) `size`; `larger` is OpenCV's interpolation where it grows."""
    smaller = size[0] < array.shape[1]
    found = cv2.resize(array, size, interpolation=cv2.INTER_AREA if smaller else larger)
    return found.reshape(size[1], size[0], array.shape[2])
