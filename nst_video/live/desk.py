"""What a person can change while a live session runs, and the keys that do it: one table for window and web page."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

_STRENGTH_STEP, _STRENGTHS = 1.25, (0.1, 4.0)
_BRUSH_STEP, _BRUSHES = 1.25, (0.25, 4.0)
ORIGINALS = ("off", "beside", "over")  # where the camera's own picture is shown; over: half transparent


@dataclass(frozen=True)
class Look:
    """What the painter is to do. style: index of the style picture. strength and brush as in LookOptions."""

    style: int = 0
    strength: float = 1.0
    brush: float = 1.0
    keep_colors: bool = False
    mirror: bool = True
    dream: bool = False


@dataclass(frozen=True)
class View:
    """What the outputs are to do. snapshots: how many were asked for so far."""

    frozen: bool = False
    original: str = "off"
    recording: bool = False
    snapshots: int = 0
    full_screen: bool = False
    information: bool = False
    help: bool = False
    quit: bool = False


@dataclass(frozen=True)
class Setting:
    """All of it at one moment."""

    look: Look = field(default_factory=Look)
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class Key:
    """What a key does: the setting and the number of styles there are -> the new setting."""

    meaning: str
    apply: Callable[[Setting, int], Setting]


def _look(**changes: Callable[[Look, int], object]) -> Callable[[Setting, int], Setting]:
    def apply(setting: Setting, styles: int) -> Setting:
        new = {name: change(setting.look, styles) for name, change in changes.items()}
        return replace(setting, look=replace(setting.look, **new))  # type: ignore[arg-type]

    return apply


def _view(**changes: Callable[[View], object]) -> Callable[[Setting, int], Setting]:
    def apply(setting: Setting, styles: int) -> Setting:
        new = {name: change(setting.view) for name, change in changes.items()}
        return replace(setting, view=replace(setting.view, **new))  # type: ignore[arg-type]

    return apply


def _toggled(name: str) -> Callable[[View], bool]:
    return lambda view: not getattr(view, name)


def _stepped(value: float, factor: float, span: tuple[float, float]) -> float:
    return min(max(value * factor, span[0]), span[1])


def _pick(index: int) -> Key:
    chosen = _look(style=lambda look, styles: index if index < styles else look.style)
    return Key(f"style {index + 1}", chosen)


# Key as typed -> what it does. Space and Escape go by their names.
KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "q": Key("quit", _view(quit=lambda view: True)),
        "escape": Key("quit", _view(quit=lambda view: True)),
        "space": Key("freeze the picture", _view(frozen=_toggled("frozen"))),
        "n": Key("next style", _look(style=lambda look, styles: (look.style + 1) % max(styles, 1))),
        "p": Key("previous style", _look(style=lambda look, styles: (look.style - 1) % max(styles, 1))),
        **{str(number): _pick(number - 1) for number in range(1, 10)},
        "+": Key("stronger", _look(strength=lambda look, _: _stepped(look.strength, _STRENGTH_STEP, _STRENGTHS))),
        "-": Key("weaker", _look(strength=lambda look, _: _stepped(look.strength, 1 / _STRENGTH_STEP, _STRENGTHS))),
        "]": Key("larger brush", _look(brush=lambda look, _: _stepped(look.brush, _BRUSH_STEP, _BRUSHES))),
        "[": Key("smaller brush", _look(brush=lambda look, _: _stepped(look.brush, 1 / _BRUSH_STEP, _BRUSHES))),
        "c": Key("keep the colours of the camera", _look(keep_colors=lambda look, _: not look.keep_colors)),
        "m": Key("mirror", _look(mirror=lambda look, _: not look.mirror)),
        "d": Key("dream", _look(dream=lambda look, _: not look.dream)),
        "o": Key(
            "original: beside, over, off",
            _view(original=lambda view: ORIGINALS[(ORIGINALS.index(view.original) + 1) % len(ORIGINALS)]),
        ),
        "s": Key("snapshot", _view(snapshots=lambda view: view.snapshots + 1)),
        "r": Key("record", _view(recording=_toggled("recording"))),
        "f": Key("full screen", _view(full_screen=_toggled("full_screen"))),
        "i": Key("information", _view(information=_toggled("information"))),
        "h": Key("this help", _view(help=_toggled("help"))),
    }
)
_ALSO = {"=": "+", "_": "-", " ": "space", "\x1b": "escape"}  # the same keys without shift, or as characters

_TYPED = {"escape": "Esc"}  # how a person reads the key, where it is not the name


def key_lines() -> tuple[str, ...]:
    """A line for each meaning, keys, tab, meaning; those of the styles in one.

    >>> key_lines()[:2]
    ('q, Esc\\tquit', 'space\\tfreeze the picture')
    """
    keys: dict[str, list[str]] = {}
    for key, what in KEYS.items():
        keys.setdefault("style of that number" if key.isdecimal() else what.meaning, []).append(_TYPED.get(key, key))
    names = {meaning: f"{all_[0]}-{all_[-1]}" if len(all_) > 2 else ", ".join(all_) for meaning, all_ in keys.items()}
    return tuple(f"{name}\t{meaning}" for meaning, name in names.items())


class Desk:
    """The setting of a session, which any thread may read or change."""

    def __init__(self, look: Look | None = None, view: View | None = None, styles: Callable[[], int] = lambda: 1):
        """`styles` says how many there are just now."""
        self._setting = Setting(look or Look(), view or View())
        self._lock = threading.Lock()
        self._styles = styles

    @property
    def setting(self) -> Setting:
        """The setting at this moment."""
        return self._setting

    def press(self, key: str) -> bool:
        """Do what the key means; False where it means nothing.

        >>> desk = Desk(styles=lambda: 3)
        >>> desk.press("p"), desk.setting.look.style
        (True, 2)
        """
        name = _ALSO.get(key, key.lower())
        if name not in KEYS:
            return False
        with self._lock:
            self._setting = KEYS[name].apply(self._setting, self._styles())
        return True

    def change(self, **changes: object) -> None:
        """Set fields of the view, as an output does whose recording could not be begun."""
        with self._lock:
            self._setting = replace(self._setting, view=replace(self._setting.view, **changes))  # type: ignore[arg-type]
