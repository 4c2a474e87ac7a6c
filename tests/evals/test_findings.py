"""All that is found out from one comparison: every room is asked, and none spoils it for the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals import findings as rooms
from escalade.evals.compare import compare
from escalade.evals.findings import Check, findings
from escalade.evals.loaders import load_outcomes
from escalade.evals.tables import Column, Table
from tests.evals._tables import table


@pytest.fixture(scope="module")
def comparison():
    return compare(table(quality=[[0, 1], [1, 0], [1, 1]], cost=[[1, 5]] * 3))


def test_rooms_are_asked_in_order(comparison, monkeypatch) -> None:
    """Tables, checks and sentences are told apart; a table is found by its name and by its room."""
    one = Table.of("one", "One", [Column("x", "x", "count")], [{"x": 1}])
    monkeypatch.setattr(rooms, "BUILDERS", {"a": lambda _: [Check("c", True, "so"), one], "b": lambda _: ["words"]})
    found = findings(comparison)
    assert found.tables == (one,)
    assert found.checks == (Check("c", True, "so"),)
    assert found.sentences == ("words",)
    assert found.table("one") is found.named(["a"])[0]
    assert findings(comparison, only=["b"]).tables == ()
    with pytest.raises(UnknownName, match="room of findings"):
        findings(comparison, only=["d"])


def test_a_room_that_refuses_is_told(comparison, monkeypatch) -> None:
    """What the data doesn't allow is said, and the other rooms still speak; a mistake of ours isn't hidden."""

    def refuses(_):
        raise DataError("too few questions")

    monkeypatch.setattr(rooms, "BUILDERS", {"a": refuses, "b": lambda _: ["words"]})
    found = findings(comparison)
    assert found.checks == (Check("a", None, "nothing can be told of this data: too few questions"),)
    assert found.sentences == ("words",)
    monkeypatch.setattr(rooms, "BUILDERS", {"a": lambda _: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        findings(comparison)


def test_made_by_hand(comparison) -> None:
    """Without evidence nothing can be found out."""
    with pytest.raises(BadInput, match="made by hand"):
        findings(replace(comparison, evidence=None))


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_few_questions(n) -> None:
    """Every room stands small data."""
    found = findings(compare(load_outcomes(limit=n), ["threshold-0.8", "agreement-3"]))
    assert found.to_json()["dataset"]["n"] == n
