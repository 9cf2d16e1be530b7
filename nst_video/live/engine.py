"""The engine of a live session: a painting that is optimised without end while the camera's frames go by beneath it.

What is shown never waits for the optimiser. A frame is followed from the one that was painted last, the painting is
moved onto it and shown; the optimiser takes its next steps meanwhile, in a thread of its own, and what it found is
moved to wherever its places have gone. So the latency is that of the flow and the drawing, whatever the network costs.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nst_video.colors import keep_colors
from nst_video.encoders import Encoder, load_encoder
from nst_video.live.canvas import Canvas, resized, to_array, to_tensor
from nst_video.live.controller import Controller
from nst_video.live.desk import Look
from nst_video.live.follow import Step, follow, to_uint8
from nst_video.live.frames import Captured, Shown, StylePicture
from nst_video.live.guide import enlarged
from nst_video.live.subjects import Subjects
from nst_video.machine import resolve_machine
from nst_video.options import LookOptions, MachineOptions
from nst_video.teacher import load_teacher

log = logging.getLogger(__name__)

_NEW_SCENE = 0.25  # share of the picture that must be known from before, or everything begins anew
_AGE_OF_CHANGE = 2.0  # steps that a painting counts as old when what it is painted for has changed


@dataclass(frozen=True)
class _Job:
    """Steps that are being taken for the frame that was painted last."""

    future: "Future[tuple[Canvas, float]]"
    steps: int


class Engine:
    """Paints frame after frame: see `frames.Painter`. fps: frames wanted in a second."""

    def __init__(self, subjects: Subjects, *, fps: float, begin: int = 256) -> None:
        self.subjects, self.fps, self.begin = subjects, fps, begin
        self.controller: Controller | None = None
        self.window = (0, 0)
        self.content: np.ndarray | None = None  # of the frame that was painted last, float32 (h, w, 3)
        self.canvas: Canvas | None = None
        self.job: _Job | None = None
        self.mirrored = True
        self.key: object = None
        self.worker = ThreadPoolExecutor(1, "painting")

    def paint(self, frame: Captured, look: Look, styles: tuple[StylePicture, ...], size: tuple[int, int]) -> Shown:
        """The frame as the painting is just now, at (width, height) `size`; the optimiser goes on from there."""
        begun = time.monotonic()
        controller = self._controller(size)
        large = _fitted(frame.rgb, size, look.mirror)
        steps = self._collect()
        step, canvas = self._follow(large, controller.size, look.mirror)
        if self.job is None:
            self.content, self.canvas = step.content, canvas
            self._submit(look, styles, controller.steps)
        rgb = self._drawn(canvas, step.content, large, look)
        finished = time.monotonic()
        if controller.measured_frame(finished - begun, finished):
            log.debug("painting at %dx%d", *controller.size)
        return Shown(
            rgb=rgb,
            before=large,
            number=frame.number,
            captured=frame.time,
            finished=finished,
            size=canvas.size,
            evaluations=steps,
            style=self.subjects.name(look, styles),
            device=self.subjects.device,
        )

    def close(self) -> None:
        """End what works in the background."""
        self.worker.shutdown(cancel_futures=True)
        self.subjects.close()

    def _controller(self, window: tuple[int, int]) -> Controller:
        if self.controller is None or self.window != window:
            begin = max(self.controller.size) if self.controller else self.begin
            self.controller = Controller(self.fps, window, smallest=self.subjects.smallest_side, begin=begin)
            self.window = window
        return self.controller

    def _collect(self) -> int:
        """Take over what the optimiser has done, if it has; how many steps that were."""
        if self.job is None or not self.job.future.done():
            return 0
        canvas, seconds = self.job.future.result()
        steps, self.job = self.job.steps, None
        self.canvas = canvas
        if self.controller and canvas.size == self.controller.size:
            self.controller.measured_step(seconds / steps)
        return steps

    def _follow(self, large: np.ndarray, size: tuple[int, int], mirror: bool) -> tuple[Step, Canvas]:
        """How the frame follows from the one painted last, and the painting under it."""
        small = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
        if self.content is None or self.canvas is None:
            return self._begun(small)
        if mirror != self.mirrored:
            self.content, self.canvas = self.content[:, ::-1], self.canvas.mirrored()
        self.mirrored = mirror
        before, canvas = resized(np.ascontiguousarray(self.content), size), self.canvas.resized(size)
        step = follow(before, small)
        if step.trust.mean() < _NEW_SCENE:
            return self._begun(small)
        return step, canvas.moved(step, before)

    def _begun(self, small: np.ndarray) -> tuple[Step, Canvas]:
        """A new scene is painted from the frame itself on."""
        content = small.astype(np.float32) / 255
        return Step(content, None, np.zeros(content.shape[:2], np.float32)), Canvas.new(content)

    def _submit(self, look: Look, styles: tuple[StylePicture, ...], steps: int) -> None:
        """Let the optimiser take steps for the frame that is painted last."""
        assert self.content is not None
        assert self.canvas is not None
        subject = self.subjects.subject(look, styles)
        if subject is None:
            return
        canvas, content = self.canvas, self.content
        if subject.key != self.key:  # another style, strength or brush
            canvas, self.key = canvas.younger(_AGE_OF_CHANGE), subject.key

        def work() -> tuple[Canvas, float]:
            begun = time.perf_counter()
            improved = subject.improved(canvas, content, steps)
            return improved, time.perf_counter() - begun

        self.job = _Job(self.worker.submit(work), steps)

    def _drawn(self, canvas: Canvas, content: np.ndarray, large: np.ndarray, look: Look) -> np.ndarray:
        painted = canvas.painted
        if look.keep_colors:
            painted = _with_colors(painted, content)
        return to_uint8(enlarged(painted, content, large.astype(np.float32) / 255))


def _with_colors(painted: np.ndarray, content: np.ndarray) -> np.ndarray:
    return to_array(keep_colors(to_tensor(painted, "cpu"), to_tensor(content, "cpu")))


def _fitted(rgb: np.ndarray, size: tuple[int, int], mirror: bool) -> np.ndarray:
    """The camera's picture at (width, height) `size`, mirrored where asked."""
    if (rgb.shape[1], rgb.shape[0]) != size:
        smaller = size[0] < rgb.shape[1]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return cv2.flip(rgb, 1) if mirror else rgb


def make_painter(*, encoder: str, look: LookOptions, machine: MachineOptions, fps: float, teacher: bool) -> Engine:
    """The engine for these options; UsageError or ResourceError where they cannot be had.

    machine: as given; a precision of "auto" becomes the quicker one, by measurement.
    """
    settled = resolve_machine(machine)
    torch.set_num_threads(machine.threads or max(1, torch.get_num_threads() - 1))  # one core is for what is shown
    layers = (*look.content_layers, *look.style_layers)
    precisions = ("fp32", "bf16") if machine.precision == "auto" else (settled.precision,)
    networks = [
        load_encoder(
            encoder,
            layers,
            device=settled.device,
            precision=precision,
            weights=machine.weights,
            offline=machine.offline,
        )
        for precision in precisions
    ]
    took = [_pace(network, settled.device) for network in networks] if len(networks) > 1 else [0.0]
    chosen = took.index(min(took))
    master = (
        load_teacher(networks[chosen], look.style_layers, precision=precisions[chosen], offline=machine.offline)
        if teacher
        else None
    )
    return Engine(Subjects(networks[chosen], master, look=look, device=settled.device), fps=fps)


def _pace(network: Encoder, device: str) -> float:
    """Seconds that a gradient through the network takes at a small size."""
    image = torch.rand(1, 3, 96, 160, device=device)

    def once() -> float:
        begun = time.perf_counter()
        leaf = image.clone().requires_grad_()
        features = network(leaf)
        sum(feature.float().square().mean() for feature in features.values()).backward()
        assert leaf.grad is not None
        float(leaf.grad.sum())  # waits for the device
        return time.perf_counter() - begun

    return min(once() for _ in range(4))
