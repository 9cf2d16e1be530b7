"""What `--quality` decides: size, network and effort of paintings and of dreams."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nst_video.dreaming.options import DreamOptions
from nst_video.options import EffortOptions

PRESETS: dict[str, dict[str, Any]] = {
    "draft": {"size": 384, "encoder": "slim", "first_iterations": 80, "iterations": 5},
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


@dataclass(frozen=True)
class Balance:
    """What the weights of the loss are multiplied with where nobody gives them; layers: those of the style layers."""

    content_weight: float = 1.0
    temporal_weight: float = 1.0
    layers: Mapping[str, float] = field(default_factory=dict)


# A small network sees less of the frame and of the deep layers of the style than the one it was distilled from. With
# these weights its paintings keep what the frame shows, and hold still, as the teacher's do: scripts/bench_encoders.py.
BALANCES = {
    "slim": Balance(
        content_weight=1.85,
        temporal_weight=5.0,
        layers={"relu1_1": 0.9, "relu2_1": 0.9, "relu4_1": 1.1, "relu5_1": 0.9},
    )
}


def balance_of(encoder: str | None) -> Balance:
    """That of an encoder; of all but the small ones none."""
    return BALANCES.get(str(encoder), Balance())


def resolve_effort(effort: EffortOptions, presets: Mapping[str, Mapping[str, Any]] = PRESETS) -> EffortOptions:
    """The options with every field that its preset decides filled in; what was given stays."""
    return _filled(effort, presets[effort.quality])


def resolve_dream(dream: DreamOptions, quality: str = "standard", encoder: str = "vgg19") -> DreamOptions:
    """The same for what is dreamed, in this network."""
    return _filled(dream, {"layers": DREAM_LAYERS.get(encoder, ("relu5_1",)), **DREAM_STEPS[quality]})


def _filled(options: Any, preset: Mapping[str, Any]) -> Any:
    return replace(options, **{name: value for name, value in preset.items() if getattr(options, name) is None})
