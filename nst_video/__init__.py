"""Paints a video in the style of any picture, without flicker; the public names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nst_video.controls import Controls as Controls
    from nst_video.dreaming.dreamer import Dreamer as Dreamer
    from nst_video.dreaming.dreamer import load_dreamer as load_dreamer
    from nst_video.dreaming.options import DreamOptions as DreamOptions
    from nst_video.errors import InputError as InputError
    from nst_video.errors import NstVideoError as NstVideoError
    from nst_video.errors import ResourceError as ResourceError
    from nst_video.errors import Stopped as Stopped
    from nst_video.errors import UsageError as UsageError
    from nst_video.flow.motion import Motion as Motion
    from nst_video.flow.motion import MotionWindow as MotionWindow
    from nst_video.music.options import MusicOptions as MusicOptions
    from nst_video.networks.encoders import load_encoder as load_encoder
    from nst_video.options import CoherenceOptions as CoherenceOptions
    from nst_video.options import EffortOptions as EffortOptions
    from nst_video.options import LookOptions as LookOptions
    from nst_video.options import MachineOptions as MachineOptions
    from nst_video.options import OutputOptions as OutputOptions
    from nst_video.painting.stylizer import Stylizer as Stylizer
    from nst_video.painting.teacher import load_teacher as load_teacher
    from nst_video.plan import Plan as Plan
    from nst_video.planning import make_plan as make_plan
    from nst_video.render import Progress as Progress
    from nst_video.render import Result as Result
    from nst_video.render import dream as dream
    from nst_video.render import render_plan as render_plan
    from nst_video.render import stylize as stylize
    from nst_video.settings import Settings as Settings

__version__ = "0.1.0"

# Module -> its public names. Loading them on first use keeps `import nst_video` free of torch.
_PUBLIC = {
    "controls": ("Controls",),
    "dreaming.dreamer": ("Dreamer", "load_dreamer"),
    "dreaming.options": ("DreamOptions",),
    "networks.encoders": ("load_encoder",),
    "errors": ("InputError", "NstVideoError", "ResourceError", "Stopped", "UsageError"),
    "flow.motion": ("Motion", "MotionWindow"),
    "music.options": ("MusicOptions",),
    "options": ("CoherenceOptions", "EffortOptions", "LookOptions", "MachineOptions", "OutputOptions"),
    "plan": ("Plan",),
    "planning": ("make_plan",),
    "render": ("Progress", "Result", "dream", "render_plan", "stylize"),
    "settings": ("Settings",),
    "painting.stylizer": ("Stylizer",),
    "painting.teacher": ("load_teacher",),
}

__all__ = [name for names in _PUBLIC.values() for name in names]


def __getattr__(name: str) -> object:
    for module, names in _PUBLIC.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
