"""Run directories as outcomes: whatever the order of the lines, whatever else is among them."""

from __future__ import annotations

import json
import random
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.errors import DataError
from escalade.evals.loaders import load_outcomes
from escalade.evals.studies import blocks
from escalade.evals.studies.identity import answer_code
from escalade.evals.studies.reading import _NEVER, _Places
from escalade.evals.studies.rundir import RunDir
from tests.evals.studies.test_study import Bench

PLAIN = st.one_of(st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.none())
ANSWERS = st.one_of(PLAIN, st.tuples(PLAIN, PLAIN))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A study, complete, with two epochs."""
    folder = tmp_path_factory.mktemp("recorded")
    Bench(6).study(epochs=2, latency="measured").run(folder)
    return folder


@given(ANSWERS, ANSWERS)
def test_equal_answers_have_equal_codes(one, other):
    """1, 1.0 and true are the same answer, "1" is another one, and nan is none."""
    if one == other:
        assert answer_code(one) == answer_code(other)
    elif not isinstance(one, tuple) and not isinstance(other, tuple) and one == one and other == other:  # noqa: PLR0124
        assert answer_code(one) != answer_code(other)


@given(st.lists(st.text(max_size=4), unique=True, min_size=1), st.lists(st.text(max_size=4), min_size=1))
def test_places_of_keys_are_those_of_a_dict(known, others):
    """Keys are found by their hashes as in a dict, and what isn't among them has no place."""
    numbers = {key: i * 10 for i, key in enumerate(known)}
    asked = [*others, *known]
    assert _Places(numbers).of(asked).tolist() == [numbers.get(key, _NEVER) for key in asked]


def test_keys_of_one_hash_are_told_apart():
    """-1 and -2 have the same hash in CPython, which two strings hardly ever have."""
    assert hash(-1) == hash(-2)
    assert _Places({-1: 10, -2: 20}).of([-2, -1, 3]).tolist() == [20, 10, _NEVER]


@settings(max_examples=20)
@given(st.integers(0, 1 << 30), st.sampled_from([64, 700, 1 << 16]))
def test_the_order_of_lines_does_not_matter(recorded, seed, block):
    """Lines in any order and in blocks of any size, lines of other rungs, epochs and questions among them."""
    whole = load_outcomes(recorded)
    path = recorded / "attempts.jsonl"
    content = path.read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    others = [{**lines[0], "of": "0" * 12}, {**lines[1], "epoch": 7}, {**lines[2], "key": "nobody"}]
    mixed = [*lines, *others]
    random.Random(seed).shuffle(mixed)
    before, blocks.BLOCK = blocks.BLOCK, block
    try:
        path.write_text("".join(json.dumps(line) + "\n" for line in mixed))
        again = load_outcomes(recorded)
    finally:
        blocks.BLOCK = before
        path.write_bytes(content)
    assert again.digest == whole.digest
    assert np.array_equal(again.form, whole.form, equal_nan=True)


def test_the_last_line_of_an_attempt_counts(recorded, tmp_path):
    """What was made again, or graded anew, takes the place of what was there."""
    for name in ("study.json", "prices.json", "questions.jsonl"):
        (tmp_path / name).write_bytes((recorded / name).read_bytes())
    lines = (recorded / "attempts.jsonl").read_text().splitlines(keepends=True)
    later = {**json.loads(lines[0]), "quality": 0.25}
    (tmp_path / "attempts.jsonl").write_text("".join([*lines, json.dumps(later) + "\n"]))
    assert (load_outcomes(tmp_path).quality == 0.25).sum() == 1


def test_a_damaged_line_is_named(recorded, tmp_path):
    """A line in the middle that is no JSON is shown, and what to do about it."""
    for name in ("study.json", "prices.json", "questions.jsonl"):
        (tmp_path / name).write_bytes((recorded / name).read_bytes())
    content = (recorded / "attempts.jsonl").read_bytes()
    (tmp_path / "attempts.jsonl").write_bytes(b"{oops\n" + content)
    with pytest.raises(DataError, match=r"a line that is no JSON .*oops.*take it out"):
        load_outcomes(tmp_path)
    (tmp_path / "attempts.jsonl").write_bytes(b"[1]\n" + content)
    with pytest.raises(DataError, match=r"attempts\.jsonl, line 1: expected a JSON object, got \[1\]"):
        load_outcomes(tmp_path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"quality": 7}, "quality: expected a number from 0 to 1, got 7"),
        ({"quality": -1}, "quality: expected a number from 0 to 1, got -1"),
        ({"quality": "x"}, "quality: expected a number from 0 to 1, got 'x'"),
        ({"quality": None}, "quality: expected a number from 0 to 1, got None"),
        ({"cost": 10**16}, "cost: expected whole nano-dollars"),
        ({"confidence": [1]}, "confidence: expected a number from 0 to 1"),
        ({"cost": -1000, "spent": -1000}, "spent: expected whole nano-dollars"),
        ({"cost": -1000}, "cost: expected whole nano-dollars from 0 to a million dollars, got -1000"),
        ({"spent": "5"}, "spent: expected whole nano-dollars"),
        ({"latency": -1.0}, "latency: expected seconds"),
        ({"epoch": -1}, "epoch: expected a whole number"),
        ({"status": "fine"}, "status: expected one of ok, "),
        ({"key": None}, "key: expected a text"),
    ],
)
def test_a_line_that_can_not_be_is_named(recorded, tmp_path, changed, told):
    """A figure out of its range is refused with its file and line, whoever reads it; none becomes a result."""
    for name in ("study.json", "prices.json", "questions.jsonl"):
        (tmp_path / name).write_bytes((recorded / name).read_bytes())
    lines = (recorded / "attempts.jsonl").read_text().splitlines()
    lines[16] = json.dumps({**json.loads(lines[16]), **changed})
    (tmp_path / "attempts.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for read in (load_outcomes, lambda path: list(RunDir(path).lines())):
        with pytest.raises(
            DataError, match=rf"attempts\.jsonl, line 17: {told}.*; take it out, and its attempt is owed"
        ):
            read(tmp_path)


def test_limits_and_rungs_of_a_run(recorded):
    """A run loads as other data do: the first questions, some of the rungs; not at other prices."""
    assert load_outcomes(recorded, limit=2).n == 4
    assert [rung.name for rung in load_outcomes(recorded, rungs=["large"]).rungs] == ["Predict/large"]
    from escalade.registry.prices import Price

    with pytest.raises(ValueError, match="reprice"):
        load_outcomes(recorded, prices={"small": Price.of("1", "1")})


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A line that finds no room is taken back: what is written when there is room again begins a line of its own."""
    resource = pytest.importorskip("resource")
    usual, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RunDir(tmp_path).writer() as lines:
        lines.add(b'{"a":1}\n')
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, usual[1]))
        try:
            with pytest.raises(DataError, match="can't be written: File too large"):
                lines.add(b'{"b":2}\n')
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
            signal.signal(signal.SIGXFSZ, ignored)
        lines.add(b'{"c":3}\n')
    assert (tmp_path / "attempts.jsonl").read_bytes() == b'{"a":1}\n{"c":3}\n'
