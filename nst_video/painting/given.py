"""What callers from Python hand to stylizers, looked at before torch and OpenCV do: what is none of what they take is
refused in one line.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nst_video.errors import UsageError
from nst_video.flow.motion import Motion
from nst_video.options import EffortOptions
from nst_video.painting.state import State
from nst_video.words import described


def check_frame(image: Any, motion: Any, state: Any, *, any_size: bool = False) -> None:
    """UsageError unless these are frames (L, 3, H, W), and a motion and a state of as many of that size; with
    `any_size` the state may be of another.
    """
    _check_image(image, "the frame")
    if not isinstance(motion, Motion):
        raise UsageError(f"the motion is {described(motion)}; allowed a Motion, such as MotionWindow gives")
    if not isinstance(state, State):
        raise UsageError(f"the state is {described(state)}; allowed initial_state(), or what the frame before left")
    if motion.references == 0:
        return
    for name, past in (("motion", motion.flows), ("state", None if any_size else state.outputs)):
        if past is not None and (len(past), past.shape[-2:]) != (len(image), image.shape[-2:]):
            raise UsageError(
                f"the frame is {_size(image)}, but its {name} {_size(past)}; all frames of a shot are of one size, "
                "and another one begins with initial_state() and a motion without references"
            )


def check_styles(styles: Any) -> None:
    """UsageError unless these are (image (1, 3, h, w), weight) each."""
    pairs = isinstance(styles, Sequence) and all(isinstance(style, Sequence) and len(style) == 2 for style in styles)
    if not pairs:
        raise UsageError(f"the styles are {described(styles)}; allowed a list of (image, weight)")
    for image, _ in styles:
        _check_image(image, "a style picture")


def check_ready(effort: EffortOptions, styles: Sequence[Tensor]) -> None:
    """UsageError where there is no style picture, or a preset has still to decide how much is done."""
    if not styles:
        raise UsageError("there is no style to paint in; allowed one (image, weight) or more")
    if effort.first_iterations is None or effort.iterations is None:
        raise UsageError(
            "the effort leaves open how many iterations there are; give them, or presets.resolve_effort(effort)"
        )


def _check_image(image: Any, what: str) -> None:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise UsageError(
            f"{what} is {described(image)}; allowed a tensor of floats (1, 3, H, W) in [0, 1], such as "
            "colors.to_image makes of uint8 (1, H, W, 3)"
        )


def _size(tensor: Tensor) -> str:
    height, width = tensor.shape[-2:]
    return f"{len(tensor)} of {width}x{height}"
