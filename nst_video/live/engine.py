"""The engine of a live session: a painting that is optimised without end while the camera's frames go by beneath it.

What is shown never waits for the optimiser. A thread of its own takes one step after the other, each for the newest
frame, and leaves its painting together with the frame that it was painted for. Whatever is to be shown follows from
that frame along the flow. So the latency is that of flow and drawing, whatever the network costs.
"""

import logging
import threading
import time
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from nst_video.colors import keep_colors
from nst_video.devices.machine import forbid_tf32, resolve_machine
from nst_video.live.canvas import Canvas, resized, to_array, to_tensor
from nst_video.live.controller import Controller
from nst_video.live.desk import Look
from nst_video.live.follow import Calm, follow, to_uint8
from nst_video.live.frames import Captured, Shown, StylePicture
from nst_video.live.guide import enlarged, recolored
from nst_video.live.options import LiveOptions
from nst_video.live.subjects import Subjects
from nst_video.networks.encoders import load_encoder
from nst_video.options import LookOptions, MachineOptions
from nst_video.painting.teacher import load_teacher

log = logging.getLogger(__name__)

_NEW_SCENE = 0.25  # share of the picture that must be known from before, or everything begins anew
_BEGIN = 256  # long side in pixels that is painted in until the first times are measured
_MOST_STEPS = 8  # for one frame: a quick machine need not run hot


@dataclass(frozen=True)
class _Task:
    """A frame to paint: uint8 (h, w, 3) at the size to paint in, and how."""

    small: np.ndarray
    look: Look
    styles: tuple[StylePicture, ...]


@dataclass(frozen=True)
class _Painting:
    """A canvas with the frame it was painted for: content float32 (h, w, 3). steps: all that were taken so far."""

    content: np.ndarray
    canvas: Canvas
    mirror: bool
    steps: int = 0

    def onto(self, small: np.ndarray, mirror: bool) -> "_Painting":
        """The painting moved onto another frame, of any size."""
        size = small.shape[1], small.shape[0]
        content, canvas = self.content, self.canvas
        if mirror != self.mirror:
            content, canvas = np.ascontiguousarray(content[:, ::-1]), canvas.mirrored()
        content, canvas = resized(content, size), canvas.resized(size)
        step = follow(content, small)
        if step.trust.mean() < _NEW_SCENE:
            return _begun(small, mirror, self)
        return _Painting(step.content, canvas.moved(step, content), mirror, self.steps)


def _begun(small: np.ndarray, mirror: bool, before: _Painting | None = None) -> _Painting:
    """A new scene is painted from the frame itself on, in the colours of the painting there was."""
    content = small.astype(np.float32) / 255
    if before is None:
        return _Painting(content, Canvas.new(content), mirror)
    return _Painting(content, Canvas.new(recolored(content, before.canvas.shown)), mirror, before.steps)


class Engine:
    """Paints frame after frame: see `frames.Painter`. fps: frames wanted in a second."""

    def __init__(self, subjects: Subjects, *, fps: float) -> None:
        self.subjects, self.fps, self.begin = subjects, fps, _BEGIN
        self.controller: Controller | None = None
        self.window = (0, 0)
        self.painting: _Painting | None = None  # the optimiser's; whoever reads it takes the whole at once
        self.seen = 0  # steps that were taken when a frame was last shown
        self.calm = Calm()
        self.error: BaseException | None = None
        self.task: _Task | None = None
        self.news, self.ending = threading.Event(), threading.Event()
        self.worker = threading.Thread(target=self._work, name="painting", daemon=True)
        self.worker.start()

    def paint(self, frame: Captured, look: Look, styles: tuple[StylePicture, ...], size: tuple[int, int]) -> Shown:
        """The frame as the painting is just now, at (width, height) `size`."""
        if self.error is not None:
            raise self.error
        begun = time.monotonic()
        controller = self._controller(size)
        large = _fitted(frame.rgb, size, look.mirror)
        small = cv2.resize(large, controller.size, interpolation=cv2.INTER_AREA)
        self.task = _Task(small, look, styles)
        self.news.set()
        before, fitted = self.painting, time.monotonic()
        painting = before.onto(small, look.mirror) if before else _begun(small, look.mirror)
        followed = time.monotonic()
        rgb = _drawn(painting, self.calm(large), look)
        finished = time.monotonic()
        if controller.measured_frame(fitted - begun + finished - followed, followed - fitted, finished):
            log.debug("painting at %dx%d", *controller.size)
        evaluations, self.seen = painting.steps - self.seen, painting.steps
        return Shown(
            rgb=rgb,
            before=large,
            number=frame.number,
            captured=frame.time,
            finished=finished,
            size=painting.canvas.size,
            evaluations=evaluations,
            style=self.subjects.name(look, styles),
            device=self.subjects.device,
        )

    def close(self) -> None:
        """End what works in the background."""
        self.ending.set()
        self.news.set()
        self.worker.join()
        self.subjects.close()

    def _controller(self, window: tuple[int, int]) -> Controller:
        if self.controller is None or self.window != window:
            begin = max(self.controller.size) if self.controller else self.begin
            self.controller = Controller(self.fps, window, smallest=self.subjects.smallest_side, begin=begin)
            self.window = window
        return self.controller

    def _work(self) -> None:
        """One step after the other, each for the newest frame."""
        task, repeats, key = None, 0, None
        try:
            while not self.ending.is_set():
                repeats = 0 if self.task is not task else repeats + 1
                if self.task is None or repeats >= _MOST_STEPS:
                    self.news.wait()
                    self.news.clear()
                    continue
                task = self.task
                key = self._improve(task, key, again=repeats > 0)
        except BaseException as error:  # raised where the next frame is asked for
            self.error = error

    def _improve(self, task: _Task, key: object, *, again: bool) -> object:
        """Take a step for a frame; the key of what it was painted for."""
        begun = time.perf_counter()
        painting = self.painting
        if painting is None:
            painting = _begun(task.small, task.look.mirror)
        elif not again:
            painting = painting.onto(task.small, task.look.mirror)
        subject = self.subjects.subject(task.look, task.styles)
        if subject is None:
            self.painting = painting
            return key
        if subject.key != key:
            painting = replace(painting, canvas=painting.canvas.changed(subject.picture))
            self.painting = painting  # so that it is seen before the first step is done
        improved = subject.improved(painting.canvas, painting.content, 1)
        self.painting = replace(painting, canvas=improved, steps=painting.steps + 1)
        controller = self.controller
        if controller and improved.size == controller.size:
            controller.measured_step(time.perf_counter() - begun)
        return subject.key


def _drawn(painting: _Painting, large: np.ndarray, look: Look) -> np.ndarray:
    """The painting uint8 at the size of the camera's picture `large`, float32 (H, W, 3)."""
    painted, content = painting.canvas.shown, painting.content
    if look.keep_colors:
        painted = to_array(keep_colors(to_tensor(painted, "cpu"), to_tensor(content, "cpu")))
    return to_uint8(enlarged(painted, content, large))


def _fitted(rgb: np.ndarray, size: tuple[int, int], mirror: bool) -> np.ndarray:
    """The camera's picture at (width, height) `size`, mirrored where asked."""
    if (rgb.shape[1], rgb.shape[0]) != size:
        smaller = size[0] < rgb.shape[1]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return cv2.flip(rgb, 1) if mirror else rgb


def make_painter(options: LiveOptions, machine: MachineOptions) -> Engine:
    """The engine for these options; UsageError or ResourceError where they cannot be had."""
    settled, look = resolve_machine(machine), LookOptions()
    forbid_tf32()
    torch.set_num_threads(machine.threads or max(1, torch.get_num_threads() - 1))  # one core is for what is shown
    encoder = load_encoder(
        options.encoder,
        (*look.content_layers, *look.style_layers),
        device=settled.device,
        precision=settled.precision,
        weights=machine.weights,
        offline=machine.offline,
    )
    teacher = load_teacher(encoder, look.style_layers, precision=settled.precision, offline=machine.offline)
    return Engine(Subjects(encoder, teacher, look, settled), fps=options.fps)
