"""The climb over many questions at once: the same decisions as `climb_sync`, in columns.

`climb_all` mirrors the loop of `climb.climbing`; `DECIDE` holds one function per policy type that mirrors its `decide`.
`tests/evals/test_vector_equals_climb.py` holds both equal to the originals on random tables. A policy of any other
type, subclasses included, isn't vectorised: `replay` then climbs row by row.

A budget of the run is consumed in order, so that the budget of a row depends on all rows before it. Rows are climbed as
if each had what is left now; `Board.slack` collects, for each row, how much less it could have had without any answer
to "does it fit?" changing. The rows that had at least that much are final, the next block starts behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import OK, UNLIMITED, Policy, Rung
from escalade.agents.learned.nearest import Nearest
from escalade.agents.policies import (
    Agreement,
    Budgeted,
    Constant,
    PromptLength,
    RandomMix,
    Threshold,
    draw,
    rung_index,
)
from escalade.errors import UnknownName
from escalade.evals._nearest import facts_in, nearest_scores
from escalade.evals.folds import ByFold
from escalade.evals.outcomes import NO_ANSWER, STATUSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from escalade.evals.outcomes import Outcomes

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Decisions = tuple[Ints, Ints]

NONE = -1
"""Stands for "no rung" in columns of rungs."""


@dataclass(frozen=True)
class Table:
    """The columns of some rows of an `Outcomes` that a climb looks at. Shapes `(n, k)` but for keys and features."""

    rungs: tuple[Rung, ...]
    keys: tuple[str, ...]
    features: Mapping[str, NDArray[Any]]
    ok: Bools
    voted: Bools
    answer: Ints
    confidence: Floats
    paid: Ints
    expected: Ints
    ceiling: Ints

    @classmethod
    def of(cls, outcomes: Outcomes, rows: Ints) -> Table:
        """The table of these rows, in this order. Columns of all rows are shared with the outcomes, not copied."""
        everything = len(rows) == outcomes.n and bool((rows == np.arange(outcomes.n)).all())
        keys = outcomes.keys if everything else tuple(outcomes.keys[i] for i in rows.tolist())
        at: Any = slice(None) if everything else rows
        ok = outcomes.status[at] == STATUSES.index(OK)
        answer, price, ceiling = outcomes.answer[at], outcomes.price[at], outcomes.ceiling[at]
        return cls(
            rungs=outcomes.rungs,
            keys=keys,
            features={name: column[at] for name, column in outcomes.features.items()},
            ok=ok,
            voted=ok & (answer != NO_ANSWER),
            answer=answer,
            confidence=outcomes.confidence[at],
            paid=np.maximum(np.where(outcomes.cost[at] < 0, ceiling, outcomes.cost[at]), 0),
            expected=np.where(price < 0, ceiling, price),
            ceiling=ceiling,
        )

    @property
    def n(self) -> int:
        return len(self.keys)

    def part(self, start: int, end: int) -> Table:
        """Rows start..end-1, as views on the same memory."""
        s = slice(start, end)
        return Table(
            self.rungs,
            self.keys[s],
            {name: column[s] for name, column in self.features.items()},
            self.ok[s],
            self.voted[s],
            self.answer[s],
            self.confidence[s],
            self.paid[s],
            self.expected[s],
            self.ceiling[s],
        )


class Board:
    """Where the climb stands on each of n questions; columns have shape `(n,)`, `tried` has `(n, k)`.

    `active`: not stopped yet. `last`, `last_ok`: rung of the last attempt and of the last good one, NONE without.
    `spent`: nano-dollars. `slack`: see the module; it only ever shrinks. `memo`: columns that a policy needs in every
    round and that are dear to compute, by the id of the policy.
    """

    def __init__(self, table: Table) -> None:
        self.table, n = table, table.n
        self.at = np.arange(n)
        self.tried = np.zeros((n, len(table.rungs)), dtype=bool)
        self.active = np.ones(n, dtype=bool)
        self.last = np.full(n, NONE, dtype=np.int64)
        self.last_ok = np.full(n, NONE, dtype=np.int64)
        self.spent = np.zeros(n, dtype=np.int64)
        self.slack = np.full(n, UNLIMITED, dtype=np.int64)
        self.chosen = np.full(n, NONE, dtype=np.int64)
        self.memo: dict[int, NDArray[Any]] = {}

    def column(self, policy: Policy, value: Callable[[str], Any], dtype: type) -> NDArray[Any]:
        """`value(key)` of every row, computed once per policy."""
        if id(policy) not in self.memo:
            self.memo[id(policy)] = np.fromiter(map(value, self.table.keys), dtype=dtype, count=self.table.n)
        return self.memo[id(policy)]

    @property
    def best(self) -> Ints:
        """Rung of `best_attempt`: the last good one, else the last."""
        return np.where(self.last_ok >= 0, self.last_ok, self.last)

    def advance(self, rung: Ints, rows: Bools) -> None:
        """Try `rung` on the rows."""
        at, rung = self.at[rows], rung[rows]
        self.tried[at, rung] = True
        self.last[at] = rung
        self.last_ok[at] = np.where(self.table.ok[at, rung], rung, self.last_ok[at])
        self.spent[at] += self.table.paid[at, rung]

    def finish(self, rung: Ints, rows: Bools) -> None:
        """Answer with `rung` on the rows."""
        self.chosen[rows] = rung[rows]
        self.active &= ~rows


@dataclass(frozen=True)
class Look:
    """What a policy sees of a board.

    `left`: nano-dollars, `(n,)`, None without a limit. `run_left`: of the run alone, None where that isn't looked at.
    `braking`: nano-dollars that the run has left before it brakes, None if it never does.
    """

    board: Board
    left: Ints | None
    run_left: Ints | None
    braking: Ints | None = None

    def braked(self, rows: Bools) -> Bools:
        """`View.braked` where the answer matters: on `rows` that have an answer already; False on the others."""
        asked = rows & (self.board.last_ok >= 0) & self.board.active
        if self.braking is None:
            return np.zeros_like(asked)
        np.minimum(self.board.slack, self.braking - 1, out=self.board.slack, where=asked & (self.braking > 0))
        braked: Bools = asked & (self.braking <= 0)
        return braked

    def fits(self, rung: Ints, rows: Bools) -> Bools:
        """`View.fits` of a rung per row, asked by `rows`; False for NONE and on the other rows."""
        asked = rows & (rung >= 0) & self.board.active
        if self.left is None:
            return asked
        ceiling = self.board.table.ceiling[self.board.at, rung]
        fit: Bools = asked & (ceiling >= 0) & (ceiling <= self.left)
        if self.run_left is not None:
            np.minimum(self.board.slack, self.run_left - ceiling, out=self.board.slack, where=fit)
        return fit


def vectorised(policy: Policy) -> bool:
    """Is there a vectorised form of this policy and of all policies in it?"""
    if type(policy) not in DECIDE:
        return False
    inner = policy.policies if isinstance(policy, ByFold) else (policy.policy,) if isinstance(policy, Budgeted) else ()
    return all(vectorised(p) for p in inner)


def climb_all(
    policy: Policy, outcomes: Outcomes, rows: Ints, per_run: int | None, brake_left: int | None = None
) -> tuple[Ints, Bools]:
    """Climb the rows: (rung that answers or NONE, `(n,)`; tried, `(n, k)`), as `climb_sync` would one after the other.

    `per_run`: nano-dollars that the rows share in this order, None without a limit. `brake_left`: what is left of them
    when the run brakes.
    """
    table = Table.of(outcomes, rows)
    if per_run is None:
        board = climb_block(policy, table, None)
        return board.chosen, board.tried
    chosen, tried = np.full(table.n, NONE, dtype=np.int64), np.zeros((table.n, outcomes.k), dtype=bool)
    start, size, left = 0, table.n, min(per_run, UNLIMITED)
    brake_left = None if per_run > UNLIMITED else brake_left
    while start < table.n:
        board = climb_block(policy, table.part(start, start + size), left, brake_left)
        before = np.cumsum(board.spent) - board.spent
        changed = np.flatnonzero(before > board.slack)
        final = int(changed[0]) if len(changed) else board.table.n
        chosen[start : start + final], tried[start : start + final] = board.chosen[:final], board.tried[:final]
        left -= int(board.spent[:final].sum())
        start, size = start + final, max(64, 2 * final)
    return chosen, tried


def climb_block(policy: Policy, table: Table, left: int | None, brake_left: int | None = None) -> Board:
    """Climb every row as if it had all of `left` for itself."""
    board = Board(table)
    decide = DECIDE[type(policy)]
    while board.active.any():
        run_left = None if left is None else left - board.spent
        braking = None if run_left is None or brake_left is None else run_left - brake_left
        look = Look(board, run_left, run_left, braking)
        want, stop = decide(policy, look)
        go = look.fits(want, board.active)
        held_back = want >= 0
        board.finish(np.where(held_back, board.best, stop) if held_back.any() else stop, board.active & ~go)
        board.advance(want, go)
    return board


def _constant(policy: Constant, look: Look) -> Decisions:
    n = look.board.table.n
    return _pick(look, np.full(n, rung_index(look.board.table.rungs, policy.rung), dtype=np.int64))


def _random(policy: RandomMix, look: Look) -> Decisions:
    table = look.board.table
    low, high = rung_index(table.rungs, policy.low), rung_index(table.rungs, policy.high)
    drawn = look.board.column(policy, partial(draw, policy.seed), np.float64)
    return _pick(look, np.where(drawn < policy.share, high, low))


def _prompt_length(policy: PromptLength, look: Look) -> Decisions:
    table = look.board.table
    if "prompt_chars" not in table.features:
        raise UnknownName("feature", "prompt_chars", list(table.features))
    low, high = rung_index(table.rungs, policy.low), rung_index(table.rungs, policy.high)
    return _pick(look, np.where(table.features["prompt_chars"] >= policy.chars, high, low))


def _pick(look: Look, rung: Ints) -> Decisions:
    done = look.board.tried[look.board.at, rung]
    return np.where(done, NONE, rung), rung


def _threshold(policy: Threshold, look: Look) -> Decisions:
    board, table = look.board, look.board.table
    refs = range(len(table.rungs)) if policy.ladder is None else policy.ladder
    following = np.full(table.n, NONE, dtype=np.int64)
    for rung in reversed([rung_index(table.rungs, ref) for ref in refs]):
        following[~board.tried[:, rung]] = rung
    last = board.last
    sure = (last >= 0) & table.ok[board.at, last] & (table.confidence[board.at, last] >= policy.threshold)
    go = look.fits(following, ~sure & ~look.braked(~sure & (following >= 0)))
    return np.where(go, following, NONE), np.where(sure, last, board.best)


def _agreement(policy: Agreement, look: Look) -> Decisions:
    board, table = look.board, look.board.table
    members = [rung_index(table.rungs, m) for m in policy.members]
    then = rung_index(table.rungs, policy.then)
    quorum = policy.quorum or len(members)
    agreeing, best = largest_group(board, members)
    untried = ~board.tried[:, members]
    possible = untried.any(axis=1) & (agreeing + untried.sum(axis=1) >= quorum)
    following = np.where(possible, np.array(members)[np.argmax(untried, axis=1)], then)
    enough, escalated = agreeing >= quorum, board.tried[:, then]
    going = ~enough & ~escalated
    go = look.fits(following, going & ~look.braked(going))
    best = np.where(agreeing > 0, best, board.best)
    stop = np.where(~enough & escalated & table.ok[:, then], then, best)
    return np.where(go, following, NONE), stop


def largest_group(board: Board, members: list[int]) -> Decisions:
    """(size of the largest group of equal answers, rung of its last attempt): as in `policies`, in columns."""
    votes = board.tried[:, members] & board.table.voted[:, members]
    answer = board.table.answer[:, members]
    agreeing, best = np.zeros(board.table.n, dtype=np.int64), np.full(board.table.n, NONE, dtype=np.int64)
    for j, member in enumerate(members):  # in the order of the attempts: among equal groups the last one stays
        size = np.where(votes[:, j], (votes & (answer == answer[:, [j]])).sum(axis=1), 0)
        larger = votes[:, j] & (size >= agreeing)
        agreeing, best = np.where(larger, size, agreeing), np.where(larger, member, best)
    return agreeing, best


def _budgeted(policy: Budgeted, look: Look) -> Decisions:
    board, decide = look.board, DECIDE[type(policy.policy)]
    narrow = look
    if policy.per_request is not None:
        left = min(int(policy.per_request), UNLIMITED) - board.spent
        narrow = replace(look, left=left if look.left is None else np.minimum(left, look.left))
    want, stop = decide(policy.policy, narrow)
    go = narrow.fits(want, board.active)
    answered = board.last_ok >= 0
    stop = np.where(want >= 0, board.best, stop)
    stuck = board.active & ~go & ~answered
    if not stuck.any():
        return np.where(go, want, NONE), stop
    wanted = np.where(want >= 0, want, decide(policy.policy, replace(look, left=None, run_left=None))[0])
    stuck &= (wanted >= 0) & ~narrow.fits(wanted, stuck)
    stop = np.where(stuck, board.best, stop)
    return np.where(go, want, np.where(stuck, _degraded(narrow, wanted, stuck), NONE)), stop


def _degraded(look: Look, wanted: Ints, rows: Bools) -> Ints:
    """The dearest rung that was not tried, fits, and is expected to be cheaper than the one wanted; else NONE."""
    board, expected = look.board, look.board.table.expected
    limit = expected[board.at, wanted]
    rung, price = np.full(board.table.n, NONE, dtype=np.int64), np.full(board.table.n, -1, dtype=np.int64)
    for i in range(len(board.table.rungs)):
        cheaper = (expected[:, i] > price) & ((limit < 0) | (expected[:, i] < limit)) & ~board.tried[:, i]
        fit = look.fits(np.full_like(rung, i), rows & cheaper)
        rung, price = np.where(fit, i, rung), np.where(fit, expected[:, i], price)
    return rung


def _nearest(policy: Nearest, look: Look) -> Decisions:
    board, table = look.board, look.board.table
    low, high = rung_index(table.rungs, policy.low), rung_index(table.rungs, policy.high)
    if id(policy) not in board.memo:
        board.memo[id(policy)] = nearest_scores(policy, facts_in(table.features, table.n))
    first, strong = board.last < 0, np.full(table.n, high, dtype=np.int64)
    answered = ~first & table.ok[board.at, board.last]
    wanted = np.where(first, board.memo[id(policy)] >= policy.threshold, ~answered & ~board.tried[:, high])
    go = look.fits(strong, wanted)
    want = np.where(go, high, np.where(first, low, NONE))
    return want, np.where(answered, board.last, board.best)


def _by_fold(policy: ByFold, look: Look) -> Decisions:
    table = look.board.table
    fold = look.board.column(policy, policy.fold.__getitem__, np.int64)
    want, stop = np.full(table.n, NONE, dtype=np.int64), np.full(table.n, NONE, dtype=np.int64)
    for i, inner in enumerate(policy.policies):
        its_want, its_stop = DECIDE[type(inner)](inner, look)
        want, stop = np.where(fold == i, its_want, want), np.where(fold == i, its_stop, stop)
    return want, stop


DECIDE: dict[type, Callable[[Any, Look], Decisions]] = {
    Constant: _constant,
    Threshold: _threshold,
    Agreement: _agreement,
    RandomMix: _random,
    PromptLength: _prompt_length,
    Budgeted: _budgeted,
    ByFold: _by_fold,
    Nearest: _nearest,
}
"""Per exact type: (rung wanted or NONE; rung that answers where none is wanted, NONE for unanswered), both `(n,)`."""
