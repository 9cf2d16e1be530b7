"""The figures promised for the look and the coherence, as one table; bench_quality.py fills in what was measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Value = Callable[["Record"], float]


@dataclass(frozen=True)
class Record:
    """What was measured on one clip in one style: the stages' JSON by name; NaN for what is not there."""

    clip: str
    style: str
    stages: dict[str, dict[str, Any]]

    def get(self, *path: str) -> float:
        """The number at a path such as ("score", "reference", "fill_ours")."""
        found: Any = self.stages
        for name in path:
            found = found.get(name) if found is not None else None
        return math.nan if found is None else float(found)

    def gain(self, stage: str) -> float:
        """How many times the E_warp of independent frames exceeds ours; infinite where ours is 0."""
        ours, independent = (self.get(stage, "reference", f"e_warp_{whose}") for whose in ("ours", "independent"))
        return independent / ours if ours > 0.0 else (math.inf if ours == 0.0 else math.nan)

    def evaluations(self) -> list[float]:
        """Evaluations of every frame that is not the first of a shot."""
        rows = self.stages["render"]["rows"]
        return [
            row["evaluations"] for row, before in zip(rows[1:], rows, strict=False) if row["shot"] == before["shot"]
        ]


@dataclass(frozen=True)
class Figure:
    """A promise: `value` at most (or at least) `limit`; where the value is NaN it does not apply."""

    name: str
    value: Value
    limit: Value
    at_most: bool = True
    digits: str = ".2f"

    def kept(self, record: Record) -> bool:
        """Whether the promise holds for a record it applies to."""
        value, limit = self.value(record), self.limit(record)
        return value <= limit if self.at_most else value >= limit

    def margin(self, record: Record) -> float:
        """Value over limit, or the inverse: above 1 = missed, larger = worse."""
        value, limit = self.value(record), self.limit(record)
        return value / limit if self.at_most else limit / value


def reference(name: str, stage: str = "score") -> Value:
    """A figure of the comparison with independent frames."""
    return lambda record: record.get(stage, "reference", name)


def over(above: Value, below: Value) -> Value:
    """The ratio of two values."""
    return lambda record: above(record) / below(record) if below(record) != 0.0 else math.nan


def percentile_95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of the values do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else math.nan


def always(limit: float) -> Value:
    """The same limit for every record."""
    return lambda record: limit


def warp_limit(stage: str) -> Value:
    """Three times the input's own warping error, and what rounding to 8 bits and interpolation cost."""
    return lambda record: 3 * record.get(stage, "e_warp_input") + 1e-4


def least_gain(record: Record) -> float:
    """A still scene leaves no excuse."""
    return 30.0 if record.clip == "still" else 10.0


def content_ratio(stage: str) -> Value:
    """How much more of the content is lost at the worst places than in frames stylised on their own."""
    return over(reference("content_p95_ours", stage), reference("content_p95_independent", stage))


FIGURES = (
    Figure("style distance", lambda r: r.get("score", "style"), always(0.05), digits=".4f"),
    Figure("E_warp (limit: 3 x input + 1e-4)", lambda r: r.get("score", "e_warp"), warp_limit("score"), digits=".2e"),
    Figure("E_warp, independent / ours", lambda r: r.gain("score"), least_gain, at_most=False, digits=".1f"),
    Figure("E_warp by the true flow", lambda r: r.get("true", "e_warp"), warp_limit("true"), digits=".2e"),
    Figure("the same, independent / ours", lambda r: r.gain("true"), least_gain, at_most=False, digits=".1f"),
    Figure(
        "fill, ours / independent",
        over(reference("fill_ours"), reference("fill_independent")),
        always(0.7),
        at_most=False,
    ),
    Figure("local style, untrusted / elsewhere", reference("local_ratio"), always(1.5)),
    Figure("local style, untrusted / like regions", reference("local_ratio_mirrored"), always(1.5)),
    Figure("content p95, ours / independent", content_ratio("score"), always(1.1)),
    Figure("the same, worst sampled frame", reference("content_p95_worst"), always(1.3)),
    Figure(
        "evaluations of a later frame, mean", lambda r: fmean(r.evaluations() or [math.nan]), always(7), digits=".1f"
    ),
    Figure("the same, 95th percentile", lambda r: percentile_95(r.evaluations()), always(15), digits=".0f"),
    Figure(
        "style distance / with 30 evaluations",
        over(lambda r: r.get("effort", "style"), lambda r: r.get("effort", "style_long")),
        always(1.05),
    ),
    Figure("second judge: style distance", lambda r: r.get("judge", "style"), always(0.05), digits=".4f"),
    Figure("second judge: local style, untrusted / elsewhere", reference("local_ratio", "judge"), always(1.5)),
    Figure(
        "second judge: local style, untrusted / like regions", reference("local_ratio_mirrored", "judge"), always(1.5)
    ),
    Figure("second judge: content p95, ours / independent", content_ratio("judge"), always(1.1)),
    Figure("second judge: the same, worst sampled frame", reference("content_p95_worst", "judge"), always(1.3)),
)


@dataclass(frozen=True)
class Column:
    """A column of the table of results."""

    title: str
    cell: Callable[[Record], str]


def number(value: float, digits: str) -> str:
    """A number, or a dash where nothing was measured."""
    return "–" if math.isnan(value) else f"{value:{digits}}"


def pair(digits: str, first: Value, second: Value) -> Callable[[Record], str]:
    """`ours (theirs)`."""
    return lambda record: f"{number(first(record), digits)} ({number(second(record), digits)})"


COLUMNS = (
    Column("clip", lambda r: r.clip),
    Column("style", lambda r: r.style),
    Column("frames", lambda r: number(r.get("score", "frames"), ".0f")),
    Column("style distance (alone)", pair(".4f", lambda r: r.get("score", "style"), reference("style_independent"))),
    Column("E_warp (input)", pair(".1e", lambda r: r.get("score", "e_warp"), lambda r: r.get("score", "e_warp_input"))),
    Column("alone / ours", lambda r: number(r.gain("score"), ".0f")),
    Column("fill (alone)", pair(".2f", reference("fill_ours"), reference("fill_independent"))),
    Column("local style (like regions)", pair(".2f", reference("local_ratio"), reference("local_ratio_mirrored"))),
    Column("content p95 (alone)", pair(".2f", reference("content_p95_ours"), reference("content_p95_independent"))),
    Column("evaluations", lambda r: number(r.get("render", "evaluations"), ".1f")),
    Column("s/frame", lambda r: number(r.get("render", "seconds_per_frame"), ".1f")),
)


def results_table(records: Sequence[Record]) -> str:
    """One line per clip and style, as markdown; "alone": frames stylised on their own."""
    return table([column.title for column in COLUMNS], [[column.cell(r) for column in COLUMNS] for r in records])


def checks_table(records: Sequence[Record]) -> str:
    """One line per figure, as markdown: its worst value over the records, where, and how many records keep it."""
    lines = []
    for figure in FIGURES:
        measured = [record for record in records if not math.isnan(figure.value(record))]
        if not measured:
            lines.append([figure.name, "–", "–", "–", "not measured"])
            continue
        worst = max(measured, key=figure.margin)
        kept = sum(figure.kept(record) for record in measured)
        value, limit = (number(f(worst), figure.digits) for f in (figure.value, figure.limit))
        verdict = "ok" if kept == len(measured) else f"missed by {len(measured) - kept} of {len(measured)}"
        lines.append(
            [figure.name, f"{'<=' if figure.at_most else '>='} {limit}", value, f"{worst.clip}, {worst.style}", verdict]
        )
    return table(["figure", "limit", "worst", "on", "verdict"], lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))
