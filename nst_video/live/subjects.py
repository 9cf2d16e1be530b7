"""What the engine paints for: the targets of each style, looked up in the background, and the teacher's corrections."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from nst_video.colors import to_image
from nst_video.controls import Controls
from nst_video.encoders import Encoder
from nst_video.live.canvas import Canvas, to_tensor
from nst_video.live.desk import Look
from nst_video.live.dream import Dream
from nst_video.live.frames import StylePicture
from nst_video.options import EffortOptions, LookOptions, MachineOptions, resolve_effort
from nst_video.stylizer import Stylizer
from nst_video.teacher import Statistics, Teacher

_FADE = 0.4  # seconds in which one style becomes another
_LOOKS = 7.0  # times as long as a look of the teacher takes, until the next: an eighth of a core is its
_SOON = 0.4  # seconds between looks at least
_EFFORT = resolve_effort(EffortOptions())  # nothing of it is used: the canvas has an optimiser of its own


@dataclass(frozen=True)
class Subject:
    """What to paint just now. key: changes where the painting should, not where a correction does."""

    key: tuple[object, ...]
    improved: Callable[[Canvas, np.ndarray, int], Canvas]


@dataclass
class _Style:
    """A style at one brush: its stylizer, and what the teacher last found wrong about its targets."""

    stylizer: Stylizer
    correction: Statistics = field(default_factory=dict)
    next_look: float = 0.0


class Subjects:
    """The styles of a session, each made ready in the background when it is first chosen."""

    def __init__(self, encoder: Encoder, teacher: Teacher | None, look: LookOptions, machine: MachineOptions) -> None:
        """machine: settled, nothing in it is "auto" any more."""
        self.encoder, self.teacher, self.look, self.machine = encoder, teacher, look, machine
        self.device = machine.device
        self.dream: Dream | None = None
        self.smallest_side = max(network.smallest_side for network in (encoder, teacher and teacher.encoder) if network)
        self.known: dict[tuple[str, float], _Style] = {}
        self.study = ThreadPoolExecutor(1, "study")
        self.pending: Future[None] | None = None  # a style that is made ready
        self.looking = False  # whether the teacher is
        self.shown: tuple[str, float] | None = None  # the style of the moment and its brush
        self.before: tuple[str, float] | None = None  # what it was before, while the one becomes the other
        self.since = 0.0

    def name(self, look: Look, styles: tuple[StylePicture, ...]) -> str:
        """Of the style that is chosen, or that it is a dream."""
        return "dream" if look.dream or not styles else styles[look.style].name

    def subject(self, look: Look, styles: tuple[StylePicture, ...]) -> Subject | None:
        """What to paint now; the style before until the chosen one is ready, None before the first is."""
        self._collect()
        if look.dream or not styles:
            return self._dreaming(look)
        wanted = styles[look.style].path, look.brush
        if wanted in self.known:
            self._change_to(wanted)
        elif self.pending is None:
            self.pending = self.study.submit(self._prepare, wanted, styles[look.style].rgb)
        if self.shown is None:
            return None
        return Subject((self.shown, look.strength), lambda *work: self._improved(look, *work))

    def _dreaming(self, look: Look) -> Subject | None:
        """The dream as subject; None until its network is there."""
        if self.dream is None:
            if self.pending is None:
                self.pending = self.study.submit(self._prepare_dream)
            return None
        return Subject(("dream", look.strength), partial(self.dream.improved, look.strength))

    def _prepare_dream(self) -> None:
        self.dream = Dream(self.machine)

    def close(self) -> None:
        """End what works in the background."""
        self.study.shutdown(cancel_futures=True)

    def _change_to(self, wanted: tuple[str, float]) -> None:
        if wanted != self.shown:
            self.before, self.shown, self.since = self.shown, wanted, time.monotonic()

    def _prepare(self, wanted: tuple[str, float], rgb: np.ndarray) -> None:
        """A style made ready; in the background."""
        look = replace(self.look, style_scale=self.look.style_scale * wanted[1])
        image = to_image(rgb[None], self.device)
        stylizer = Stylizer(self.encoder, [(image, 1.0)], effort=_EFFORT, look=look, teacher=self.teacher)
        self.known[wanted] = _Style(stylizer)

    def _collect(self) -> None:
        """An error of what was done in the background is raised here."""
        done, self.pending = self.pending, None
        if done is not None and not done.done():
            self.pending = done
        elif done is not None:
            done.result()

    def _improved(self, look: Look, canvas: Canvas, content: np.ndarray, steps: int) -> Canvas:
        """The canvas after some steps towards the style of the moment."""
        assert self.shown is not None
        style, controls = self.known[self.shown], Controls(strength=look.strength)
        image = to_tensor(content, self.device)
        objective = style.stylizer.objective(image, controls, style.correction)
        share = (time.monotonic() - self.since) / _FADE
        if self.before is not None and share < 1:
            old = self.known[self.before]
            targets = old.stylizer.targets(image, controls, old.correction)
            objective = objective.aimed_at(
                {layer: targets[layer].lerp(new, share) for layer, new in objective.styles.items()}
            )
        improved = canvas.improved(objective, steps, self.device)
        self._let_teacher_look(style, improved)
        return improved

    def _let_teacher_look(self, style: _Style, canvas: Canvas) -> None:
        """Now and then, when nothing else is to be done in the background."""
        if self.teacher is None or self.looking or time.monotonic() < style.next_look:
            return
        self.looking = True
        self.study.submit(self._look, style, canvas)

    def _look(self, style: _Style, canvas: Canvas) -> None:
        begun = time.monotonic()
        try:
            image = to_tensor(canvas.painted, self.device)
            style.correction = style.stylizer.corrected(image, Controls(), style.correction)
        finally:
            done = time.monotonic()
            style.next_look = done + max(_SOON, _LOOKS * (done - begun))
            self.looking = False
