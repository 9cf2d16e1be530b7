"""What the engine paints for: the targets of each style, looked up in the background, and the teacher's corrections."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch

from nst_video.colors import to_image
from nst_video.controls import Controls
from nst_video.live.canvas import Canvas, to_array, to_tensor
from nst_video.live.desk import Look
from nst_video.live.dream import Dream
from nst_video.live.frames import StylePicture
from nst_video.networks.encoders import Encoder
from nst_video.optimization.objective import FrameObjective
from nst_video.options import EffortOptions, LookOptions, MachineOptions
from nst_video.painting.looks import UNKNOWN, Judgement
from nst_video.painting.scales import resize
from nst_video.painting.stylizer import Stylizer
from nst_video.painting.teacher import Teacher
from nst_video.presets import resolve_effort

_FADE = 0.2  # seconds in which one style's targets become another's
_SOON = 0.4  # seconds between looks of the teacher at least
_LOOKS = {True: 2.0, False: 7.0}  # times as long as a look takes, until the next: while a painting is new, and later
_FIRST_LOOK = 0.8  # seconds after a style is chosen
_NEW = 4.0  # seconds for which it is new
_MOST_READY = 16  # styles at a brush that are kept ready
_LARGEST = 1024  # long side in pixels at which a style picture is kept
_THUMBNAIL = 64
_SAME = 3 / 255  # mean difference of a few pixels that is no other picture
_SMOOTH = 0.75  # weight of the total variation: more than the usual one, as fine texture shimmers where things move
_EFFORT = resolve_effort(EffortOptions())  # nothing of it is used: the canvas has an optimiser of its own

_Key = tuple[str, float]  # a style's path and its brush


@dataclass(frozen=True)
class Subject:
    """What to paint just now.

    key: changes where the painting should, not where a correction does. picture: the style, small, float32 (h, w, 3),
    None where there is none.
    """

    key: tuple[object, ...]
    picture: np.ndarray | None
    improved: Callable[[Canvas, np.ndarray, int], Canvas]


@dataclass
class _Style:
    """A style at one brush, and what the teacher last found wrong about its targets."""

    key: _Key
    stylizer: Stylizer
    picture: np.ndarray
    known: Judgement = UNKNOWN
    next_look: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """The loss of an earlier frame: content float32 (h, w, 3), key as a Subject's."""

    key: tuple[object, ...]
    content: np.ndarray
    objective: FrameObjective


class Subjects:
    """The styles of a session and the dream, each made ready in the background, and the teacher's looks there too.

    Which styles are ready changes only in the thread that asks for subjects, so what it finds there stays there.
    """

    def __init__(self, encoder: Encoder, teacher: Teacher | None, look: LookOptions, machine: MachineOptions) -> None:
        """machine: settled, nothing in it is "auto" any more."""
        self.encoder, self.teacher, self.look, self.machine = encoder, teacher, look, machine
        self.smallest_side = max(network.smallest_side for network in (encoder, teacher and teacher.encoder) if network)
        self.ready: dict[_Key, _Style] = {}
        self.dream: Dream | None = None
        self.background = ThreadPoolExecutor(1, "study")
        self.task: Future[_Style | None] | None = None
        self.shown: _Key | None = None
        self.before: _Key | None = None  # what was shown before, while the one becomes the other
        self.since = 0.0
        self.kept: _Kept | None = None

    @property
    def device(self) -> str:
        """Where it is painted."""
        return self.machine.device

    def name(self, look: Look, styles: tuple[StylePicture, ...]) -> str:
        """Of the style that is chosen, or that it is a dream."""
        return "dream" if look.dream or not styles else styles[look.style].name

    def subject(self, look: Look, styles: tuple[StylePicture, ...]) -> Subject | None:
        """What to paint now; the style before until the chosen one is ready, None before the first is.

        Raises what went wrong in the background.
        """
        self._collect()
        if look.dream or not styles:
            return self._dreaming(look)
        wanted = _key(styles[look.style], look)
        if wanted not in self.ready:
            self._let(self._prepare, wanted, styles[look.style].rgb)
        elif wanted != self.shown:
            self.before, self.shown, self.since = self.shown, wanted, time.monotonic()
            # What the teacher would say about the style before is of no use.
            self.ready[wanted].next_look = self.since + _FIRST_LOOK
        if self.shown is None:
            return None
        return Subject(
            (self.shown, look.strength), self.ready[self.shown].picture, partial(self._improved, look, styles)
        )

    def close(self) -> None:
        """End what works in the background."""
        self.background.shutdown(cancel_futures=True)

    def _collect(self) -> None:
        if self.task is not None and self.task.done():
            made = self.task.result()
            self.task = None
            if made is not None:
                self._keep(made)

    def _keep(self, made: _Style) -> None:
        """Have a style ready, if need be in the place of one that is not to be seen."""
        old = [key for key in self.ready if key not in (self.shown, self.before)]
        for key in old[: max(0, len(self.ready) + 1 - _MOST_READY)]:
            del self.ready[key]
        self.ready[made.key] = made

    def _let(self, do: Callable[..., _Style | None], *what: object) -> None:
        """Do something in the background, unless something else is being done there; it is asked for again."""
        if self.task is None:
            self.task = self.background.submit(do, *what)

    def _dreaming(self, look: Look) -> Subject | None:
        """The dream; None until its network is there."""
        if self.dream is None:
            self._let(self._prepare_dream)
            return None
        return Subject(("dream", look.strength), None, partial(self.dream.improved, look.strength))

    def _prepare_dream(self) -> None:
        self.dream = Dream(self.machine)

    def _prepare(self, wanted: _Key, rgb: np.ndarray) -> _Style:
        """Make a style ready."""
        look = replace(self.look, style_scale=self.look.style_scale * wanted[1])
        image = _at_most(to_image(rgb[None], self.device), _LARGEST)
        stylizer = Stylizer(self.encoder, [(image, 1.0)], effort=_EFFORT, look=look, teacher=self.teacher)
        return _Style(wanted, stylizer, to_array(_at_most(image, _THUMBNAIL)))

    def _improved(
        self, look: Look, styles: tuple[StylePicture, ...], canvas: Canvas, content: np.ndarray, steps: int
    ) -> Canvas:
        """The canvas after some steps towards the style of the moment."""
        assert self.shown is not None
        style, controls = self.ready[self.shown], Controls(strength=look.strength, tv_weight=_SMOOTH)
        image = to_tensor(content, self.device)
        objective = self._objective((self.shown, look.strength), style, content, controls)
        share = (time.monotonic() - self.since) / _FADE
        if self.before is not None and share < 1:
            old = self.ready[self.before]
            targets = old.stylizer.targets(image, old.known)
            objective = objective.aimed_at(
                {layer: targets[layer].lerp(new, share) for layer, new in objective.styles.items()}
            )
        improved = canvas.improved(objective, steps, self.device)
        self._look_ahead(look, styles, style, improved)
        return improved

    def _objective(
        self, key: tuple[object, ...], style: _Style, content: np.ndarray, controls: Controls
    ) -> FrameObjective:
        """The loss for a frame. Where nothing moves, what the network sees in the frame before holds for this one."""
        image, kept = to_tensor(content, self.device), self.kept
        if kept is not None and kept.key == key and _is_same(kept.content, content):
            return kept.objective.aimed_at(style.stylizer.targets(image, style.known))
        objective = style.stylizer.objective(image, controls, style.known)
        self.kept = _Kept(key, content, objective)
        return objective

    def _look_ahead(self, look: Look, styles: tuple[StylePicture, ...], style: _Style, canvas: Canvas) -> None:
        """Let the background do what is due: a look of the teacher, or the styles that `n` and `p` would bring."""
        if self.teacher is not None and time.monotonic() >= style.next_look:
            return self._let(self._look, style, canvas)
        for step in (1, -1):
            neighbour = styles[(look.style + step) % len(styles)]
            if _key(neighbour, look) not in self.ready:
                return self._let(self._prepare, _key(neighbour, look), neighbour.rgb)
        return None

    def _look(self, style: _Style, canvas: Canvas) -> None:
        """The teacher looks at the canvas and corrects the style's targets."""
        begun = time.monotonic()
        image = to_tensor(canvas.painted, self.device)
        style.known = style.stylizer.looks.at(image, style.known.correction)
        done = time.monotonic()
        style.next_look = done + max(_SOON, _LOOKS[done - self.since < _NEW] * (done - begun))


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames (h, w, 3) differ nowhere by more than what is left of the camera's noise."""
    return one.shape == other.shape and bool(cv2.blur(np.abs(one - other).mean(2), (9, 9)).max() < _SAME)


def _key(style: StylePicture, look: Look) -> _Key:
    return style.path, look.brush


def _at_most(image: torch.Tensor, side: int) -> torch.Tensor:
    """An image (1, 3, h, w) with a long side of `side` pixels at most."""
    factor = min(1.0, side / max(image.shape[-2:]))
    return resize(image, (round(image.shape[2] * factor), round(image.shape[3] * factor)))
