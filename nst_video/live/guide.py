"""What the camera's picture says about the painting: a locally linear map from one to the other.

The guided filter of He, Sun and Tang 2010: around every place the painting is fitted by a * grey + b. It paints what is
newly seen like its surroundings, and lends a painting the edges of a larger picture.
"""

import cv2
import numpy as np

_LEAST_CONTRAST = (4 / 255) ** 2  # variance of the grey values below which the fit is a constant
_NEAR = 3  # pixels: half a window, for edges
_FAR = 20  # for places that have to borrow their colours


def _grey(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _fit(guide: np.ndarray, image: np.ndarray, radius: int, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """a, b (H, W, 3) of image ~ a * guide + b around each place; `weight` (H, W) says which places count."""
    side = (2 * radius + 1,) * 2
    share = np.ones_like(guide) if weight is None else weight + 1e-4
    total = cv2.blur(share, side)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values * (share if values.ndim == 2 else share[..., None]), side) / (
            total if values.ndim == 2 else total[..., None]
        )

    grey, color = mean(guide), mean(image)
    variance = mean(guide * guide) - grey * grey
    together = mean(image * guide[..., None]) - color * grey[..., None]
    slope = together / (np.maximum(variance, 0) + _LEAST_CONTRAST)[..., None]
    return slope, color - slope * grey[..., None]


def fitted(before: np.ndarray, painted: np.ndarray, content: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`content` (H, W, 3) in the colours in which `before` was `painted`, by the places near by that count."""
    slope, offset = _fit(_grey(before), painted, _FAR, weight)
    return slope * _grey(content)[..., None] + offset


def recolored(content: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """`content` (H, W, 3) with the mean and the spread of every colour of a painting of something else."""
    (mean, spread), (wanted_mean, wanted_spread) = (
        (image.mean((0, 1)), image.std((0, 1)) + 1e-3) for image in (content, painted)
    )
    return ((content - mean) * (wanted_spread / spread) + wanted_mean).astype(np.float32)


def enlarged(painted: np.ndarray, content: np.ndarray, large: np.ndarray) -> np.ndarray:
    """A painting (h, w, 3) of `content` at the size of `large` (H, W, 3), the same scene with more detail; float32.

    The painting is enlarged smoothly; to that comes the detail that `large` has over `content`, as strongly as the
    painting follows the content there. So edges stay sharp, and flat paint stays flat.
    """
    size = large.shape[1], large.shape[0]
    slope, _ = _fit(_grey(content), painted, _NEAR, None)
    detail = _grey(large) - cv2.resize(_grey(content), size, interpolation=cv2.INTER_CUBIC)
    slope = cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(painted, size, interpolation=cv2.INTER_CUBIC) + slope * detail[..., None]
