"""Examples from lists, files and DSPy's own data sets."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.loading.examples import load_examples, save_examples

ROWS = [{"question": "2+2?", "answer": "4"}, {"question": "Why, then?", "answer": "so"}]


def test_lists_are_checked() -> None:
    """Examples with inputs are taken as they are; inputs may be named; what isn't an example is refused."""
    marked = [dspy.Example(**row).with_inputs("question") for row in ROWS]
    assert load_examples(marked) == marked
    plain = [dspy.Example(**row) for row in ROWS]
    assert [list(one.inputs()) for one in load_examples(plain, inputs=["question"])] == [["question"]] * 2
    with pytest.raises(DataError, match=r"which fields are inputs isn't known; it has question, answer"):
        load_examples(plain)
    with pytest.raises(DataError, match="no field 'prompt'"):
        load_examples(plain, inputs=["prompt"])
    with pytest.raises(DataError, match="example 1: expected a dspy.Example"):
        load_examples([{"question": "?"}])
    with pytest.raises(BadInput, match="1 or more"):
        load_examples(marked, limit=0)


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv", "e.parquet"])
def test_files(tmp_path: Path, name: str) -> None:
    """JSON lines, CSV and Parquet give the same examples."""
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(ROWS[0]))
            table.writeheader()
            table.writerows(ROWS)
    else:
        save_examples([dspy.Example(**row).with_inputs("question") for row in ROWS], path)
        assert load_examples(path)[0].inputs().toDict() == {"question": "2+2?"}, "the file says which are inputs"
    found = load_examples(path, inputs=["question"], limit=1)
    assert [one.toDict() for one in found] == ROWS[:1]


def test_files_that_are_none(tmp_path: Path) -> None:
    """Errors name file and line."""
    (tmp_path / "e.jsonl").write_text('{"a": 1}\n[1]\n', "utf-8")
    with pytest.raises(DataError, match=r"e\.jsonl: record 2: expected a JSON object, found list"):
        load_examples(tmp_path / "e.jsonl", inputs=["a"])
    with pytest.raises(DataError, match="no such file"):
        load_examples(tmp_path / "f.jsonl")
    with pytest.raises(DataError, match="saved as JSON lines"):
        save_examples([], tmp_path / "e.txt")


def test_data_set_that_dspy_ships() -> None:
    """DSPy's colors need no network: the same examples at each load, without the ids that DSPy draws."""
    once, again = load_examples("dspy:colors"), load_examples("dspy:colors/dev")
    assert once == again
    assert list(once[0].toDict()) == ["color"]
    assert load_examples("dspy:colors/train", limit=3) != once[:3]


def hub(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[dict[str, Any]]] | Exception) -> None:
    """In place of the package `datasets`, which would download: DSPy's own classes run on what it would have loaded."""

    def load_dataset(*_: str) -> dict[str, list[dict[str, Any]]]:
        if isinstance(rows, Exception):
            raise rows
        return rows

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_data_sets_that_dspy_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """GSM8K by DSPy's own class, on rows of the form that it downloads: its splits, its inputs."""
    rows = [{"question": f"q{i}?", "answer": f"so {i} + 1\n#### {i}"} for i in range(300)]
    hub(monkeypatch, {"train": rows, "test": rows[:7]})
    found = load_examples("dspy:gsm8k")
    assert len(found) == len(load_examples("dspy:gsm8k/test")) == 7
    assert list(found[0].inputs()) == ["question"]
    assert {one.answer for one in found} == set("0123456")
    assert len(load_examples("dspy:gsm8k/dev")) == 100


def test_data_sets_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names, splits and subsets, and no network: one line that says what to do."""
    with pytest.raises(UnknownName, match="gsm9k"):
        load_examples("dspy:gsm9k")
    with pytest.raises(BadInput, match="math/SUBSET"):
        load_examples("dspy:math")
    with pytest.raises(BadInput, match="gsm8k/SPLIT"):
        load_examples("dspy:gsm8k/algebra/test")
    with pytest.raises(DataError, match="no split 'test'"):
        load_examples("dspy:colors/test")
    hub(monkeypatch, ConnectionError("can't reach the hub\nat all"))
    with pytest.raises(DataError, match="takes the network at first: ConnectionError: can't reach the hub$"):
        load_examples("dspy:gsm8k")
