"""What must not be: `mine.quality < baseline - 2`, for continuous integration.

    NAME.METRIC OP figure                       threshold-0.8.cost > 0.40
    NAME.METRIC OP baseline [+ - * figure]      policy.quality < baseline - 2
    NAME.METRIC OP NAME.METRIC [+ - * figure]   mine.p95 > threshold-0.8.p95 * 1.5
    NAME.METRIC == word                         mine.verdict == worse

OP is one of < <= > >= == !=. NAME is a policy's, `baseline`, or `policy`: every policy that was asked for (and where
none was, every one that chooses between rungs). A name with signs of its own stands in double quotes. Qualities and
differences are in points of a hundred. Nothing is evaluated but this: it is no Python.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals import statistics
from escalade.evals._rows import BASELINE, HINDSIGHT
from escalade.evals.findings import findings
from escalade.evals.reporting.cells import safe

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison, Row
    from escalade.evals.findings import Findings

__all__ = ["FIGURES", "WORDS", "Checked", "check", "check_read", "checks"]

ANY, BASE = "policy", "baseline"

_OPS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_SUMS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}

FIGURES: dict[str, tuple[str, float]] = {
    "quality": ("quality", 100),
    "quality_low": ("quality_low", 100),
    "quality_high": ("quality_high", 100),
    "diff": ("diff", 100),
    "diff_low": ("diff_low", 100),
    "diff_high": ("diff_high", 100),
    "detectable": ("detectable", 100),
    "cost": ("cost_per_1k_usd", 1),
    "cost_ratio": ("cost_ratio", 1),
    "errors": ("errors", 1),
    "unpaid": ("unpaid", 1),
    "violations": ("budget_violations", 1),
    "p95": ("p95_latency_s", 1),
    "apgr": ("apgr", 1),
    "cpt50": ("cpt50", 100),
    "cpt80": ("cpt80", 100),
    "p_better": ("p_better", 1),
}
"""Metric -> (field of `Row`, what it is multiplied by): points, dollars per 1,000 questions, seconds, counts."""

VERDICTS = (
    statistics.BETTER,
    statistics.AS_GOOD,
    statistics.CANT_TELL,
    statistics.WORSE,
    statistics.NOT_ENOUGH,
    BASELINE,
    HINDSIGHT,
)
WORDS: dict[str, tuple[str, ...]] = {"verdict": VERDICTS, "frontier": ("yes", "no"), "beats_random": ("yes", "no")}
"""Metrics that are words, and which."""

_FIGURE = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAMED = r'(?:"[^"]+"|.+?)\.[A-Za-z]\w*'
_WHOLE = re.compile(rf"\s*(?P<left>{_NAMED})\s*(?P<op><=|>=|==|!=|<|>)\s*(?P<right>.+?)\s*", re.DOTALL)
_SUM = re.compile(rf"(?P<of>{BASE}|{_NAMED})(?:\s*(?P<sign>[-+*])\s*(?P<by>{_FIGURE}))?", re.DOTALL)


@dataclass(frozen=True)
class Checked:
    """`holds`: is it so, for one policy or more? `said`: of whom, with the figures. True where it holds."""

    text: str
    holds: bool
    said: str

    def __bool__(self) -> bool:
        return self.holds


@dataclass(frozen=True)
class _Ref:
    """`name` is None for the baseline."""

    name: str | None
    metric: str


@dataclass(frozen=True)
class _Condition:
    """`right`: a figure, a word, or what another row has, `sign` and `by` applied."""

    left: _Ref
    op: str
    right: float | str | _Ref
    sign: str = "+"
    by: float = 0.0


def check(comparison: Comparison, text: str, policies: Sequence[str] | None = None) -> Checked:
    """Is it so? `policies`: whom the name `policy` stands for. Raises BadInput, UnknownName, and DataError for a figure
    that is unknown: what can't be told is never passed over.
    """
    return checks(comparison, [text], policies)[0]


def checks(comparison: Comparison, texts: Sequence[str], policies: Sequence[str] | None = None) -> list[Checked]:
    """All of them, each as `check`; they are read before any of them is judged."""
    reader = _Reader(comparison)
    read = [(text, _read(text)) for text in texts]
    return [_checked(text, condition, reader, policies) for text, condition in read]


def check_read(texts: Sequence[str]) -> None:
    """Can they be read, before anything is paid for? Raises BadInput, UnknownName."""
    for text in texts:
        _read(text)


def _checked(text: str, condition: _Condition, reader: _Reader, policies: Sequence[str] | None) -> Checked:
    names = reader.meant(condition.left.name, policies)
    told = [reader.judged(name, condition) for name in names]
    found = [said for holds, said in told if holds]
    return Checked(text, bool(found), "; ".join(found or [said for _, said in told]))


class _Reader:
    """Figures of a comparison by name of policy and metric."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._found: Findings | None = None

    def meant(self, name: str | None, policies: Sequence[str] | None) -> list[str]:
        """The policies that a name stands for."""
        known = {row.name for row in self.comparison.rows}
        if name is None:
            return [self.comparison.baseline]
        if name != ANY or ANY in known:
            return [self.comparison.row(name).name]
        asked = [self.comparison.row(one).name for one in policies or ()]
        meant = [one for one in asked if one != self.comparison.baseline] or [
            row.name
            for row in self.comparison.rows
            if row.judged and self._chooses(row) and row.name not in self.comparison.yardsticks
        ]
        if not meant:
            raise BadInput(f"--fail-if: {ANY!r} stands for the policies that are asked for, and none is; name one")
        return meant

    def _chooses(self, row: Row) -> bool:
        """Between rungs. One whose cost is unknown does so, too, and is never passed over."""
        evidence = self.comparison.evidence
        return row.beats_random is not None if evidence is None else evidence.entry(row.name).routes

    def judged(self, name: str, condition: _Condition) -> tuple[bool, str]:
        """(does it hold, the figures in words) for this policy."""
        metric, op = condition.left.metric, condition.op
        value, right = self.value(name, metric), condition.right
        if isinstance(right, str):
            return _OPS[op](value, right), f"{safe(name)}.{metric} is {value}"
        if isinstance(right, float):
            return _OPS[op](value, right), f"{safe(name)}.{metric} is {value:.4g}, to be compared with {right:g}"
        other = self.comparison.row(right.name).name if right.name is not None else self.comparison.baseline
        theirs = self.value(other, right.metric)
        limit = _SUMS[condition.sign](theirs, condition.by)
        extra = (
            "" if (condition.sign, condition.by) == ("+", 0.0) else f" {condition.sign} {condition.by:g} = {limit:.4g}"
        )
        told = f"{safe(name)}.{metric} is {value:.4g}, {safe(other)}.{right.metric} {theirs:.4g}{extra}"
        return _OPS[op](value, limit), told

    def value(self, name: str, metric: str) -> Any:
        """A figure or a word. Raises UnknownName, DataError."""
        row = self.comparison.row(name)
        if metric in WORDS:
            value = getattr(row, metric)
            word = {True: "yes", False: "no", None: None}[value] if metric != "verdict" else value
        else:
            word = self._figure(row, metric)
        if word is None or (isinstance(word, float) and math.isnan(word)):
            raise DataError(f"{safe(name)}.{metric} is unknown on this data, so nothing can be made to hang on it")
        return word

    def _figure(self, row: Row, metric: str) -> float | None:
        if metric in FIGURES:
            field, times = FIGURES[metric]
            value = getattr(row, field)
            return None if value is None else float(value) * times
        further = self._further(row.name)
        if metric not in further:
            raise UnknownName("metric", metric, list(dict.fromkeys([*FIGURES, *WORDS, *further])))
        return further[metric]

    def _further(self, policy: str) -> dict[str, float | None]:
        """What the other tables have of a policy, where they have one row of it: a row's first column names it."""
        if self.comparison.evidence is None:
            return {}
        self._found = self._found or findings(self.comparison)
        further: dict[str, float | None] = {}
        for table in self._found.tables:
            first = table.columns[0].name
            rows = [row for row in table.rows if row[first] == policy]
            if first not in {"policy", "name"} or len(rows) != 1:
                continue
            for column in table.columns[1:]:
                if column.kind not in {"text", "yes"}:
                    times = 100 if column.kind in {"share", "points"} else 1
                    value = rows[0][column.name]
                    further.setdefault(column.name, None if value is None else float(value) * times)
        return further


def _read(text: str) -> _Condition:
    """Raises BadInput, UnknownName."""
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise _unread(text)
    left, op, right = _ref(whole["left"]), whole["op"], whole["right"]
    if left.metric in WORDS:
        return _Condition(left, op, _word(left.metric, op, right.strip("\"'"), text))
    if re.fullmatch(_FIGURE, right):
        _check_points(left.metric, float(right), text)
        return _Condition(left, op, float(right))
    parts = _SUM.fullmatch(right)
    if parts is None:
        raise _unread(text)
    other = _Ref(None, left.metric) if parts["of"] == BASE else _ref(parts["of"])
    if parts["by"] is None:
        return _Condition(left, op, other)
    return _Condition(left, op, other, parts["sign"], float(parts["by"]))


def _check_points(metric: str, figure: float, text: str) -> None:
    """A share in place of points would hold never, or always, and nobody would see it."""
    if metric.startswith("quality") and 0 < figure < 1:
        raise BadInput(
            f"--fail-if {text!r}: qualities are in points of a hundred; write {100 * figure:g} for {figure:g}"
        )


def _ref(text: str) -> _Ref:
    name, _, metric = text.rpartition(".")
    name = name.strip()
    quoted = name.startswith('"')
    return _Ref(None if name == BASE and not quoted else name.strip('"'), metric)


def _word(metric: str, op: str, word: str, text: str) -> str:
    if op not in {"==", "!="}:
        raise BadInput(f"--fail-if {text!r}: {metric} is a word: compare it with == or !=")
    if word not in WORDS[metric]:
        raise UnknownName(metric, word, WORDS[metric])
    return word


def _unread(text: str) -> BadInput:
    return BadInput(
        f"--fail-if {text!r} can't be read; expected NAME.METRIC OP figure, or baseline in its place, like "
        f'"policy.quality < baseline - 2" or "mine.verdict == worse"; metrics: {", ".join([*FIGURES, *WORDS])}'
    )
