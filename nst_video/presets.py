"""What `--quality` decides: size, network and effort of paintings and of dreams."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nst_video.options import DreamOptions, EffortOptions

PRESETS: dict[str, dict[str, Any]] = {
    "draft": {"size": 384, "encoder": "slim", "first_iterations": 150, "iterations": 5},
    "standard": {"size": 512, "encoder": "vgg19", "first_iterations": 200, "iterations": 7},
    "best": {"size": 768, "encoder": "vgg19", "first_iterations": 400, "iterations": 10},
}
# The same for dreaming: a step costs what an evaluation does.
DREAM_PRESETS: dict[str, dict[str, Any]] = {
    "draft": {"size": 256, "encoder": "vgg19"},
    "standard": {"size": 512, "encoder": "vgg19"},
    "best": {"size": 768, "encoder": "vgg19"},
}
DREAM_STEPS: dict[str, dict[str, float]] = {
    "draft": {"octaves": 3, "first_iterations": 10, "iterations": 3.0},
    "standard": {"octaves": 4, "first_iterations": 12, "iterations": 4.0},
    "best": {"octaves": 5, "first_iterations": 16, "iterations": 5.0},
}


# What dreams animals in networks that have no relu5_1.
DREAM_LAYERS = {"googlenet": ("inception_4c",), "inception_v3": ("mixed5",)}


def resolve_effort(effort: EffortOptions, presets: Mapping[str, Mapping[str, Any]] = PRESETS) -> EffortOptions:
    """The options with every field that its preset decides filled in; what was given stays."""
    return _filled(effort, presets[effort.quality])


def resolve_dream(dream: DreamOptions, quality: str = "standard", encoder: str = "vgg19") -> DreamOptions:
    """The same for what is dreamed, in this network."""
    return _filled(dream, {"layers": DREAM_LAYERS.get(encoder, ("relu5_1",)), **DREAM_STEPS[quality]})


def _filled(options: Any, preset: Mapping[str, Any]) -> Any:
    return replace(options, **{name: value for name, value in preset.items() if getattr(options, name) is None})
