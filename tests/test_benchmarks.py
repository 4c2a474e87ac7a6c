"""The benchmarks can be found, run and read by a program."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.peers.table import show_behaviour

FIELDS = {"name", "value", "unit", "limit", "ok", "ratio", "note"}


def test_one_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m benchmarks imports --json` prints one JSON object; the exit code says whether all limits hold."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "imports", "--json", "--repeats", "1"])
    code = command.main()
    results = json.loads(capsys.readouterr().out)["results"]
    assert all(set(one) == FIELDS for one in results)
    assert code == (0 if all(one["ok"] for one in results) else 1)


def test_table_shows_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that raises is a missed limit with its reason, not a traceback."""

    class Broken:
        @staticmethod
        def run() -> None:
            raise RuntimeError("no figures today")

    results = command.measured(Broken, "broken", None)
    command.show(results)
    assert not results[0]["ok"]
    assert "no figures today" in capsys.readouterr().out


def test_what_is_not_installed_is_told_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets of an extra, or of an error, are text."""
    show_behaviour([["ours", "a node fails", "Failed[int]", "", "", ""]], {"burr": "burr"})
    said = capsys.readouterr().out
    assert "pip install 'escalade[peers]'" in said
    assert "Failed[int]" in said


def test_unknown_name_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It exits with 2 and lists what there is."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "imprts"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "unknown benchmark imprts (known: " in capsys.readouterr().err
