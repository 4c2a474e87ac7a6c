"""Examples to ask: lists of `dspy.Example`s, files of them, and the data sets that DSPy brings along.

    load_examples(trainset)                                a list, checked
    load_examples("questions.jsonl", inputs=["question"])  JSON lines, CSV, TSV or Parquet: fields by name
    load_examples("dspy:gsm8k/test")                       gsm8k, hotpotqa, math/SUBSET: downloaded by DSPy; colors

A first line {"escalade": "examples/1", "inputs": ["question"]} of JSON lines says which fields are inputs, so that
nobody else has to. `save_examples` writes it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.loading.rows import JSON_LINES, read_records, read_rows

DATASETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "gsm8k": ("dspy.datasets.gsm8k", "GSM8K", ("question",)),
    "hotpotqa": ("dspy.datasets.hotpotqa", "HotPotQA", ("question",)),
    "math": ("dspy.datasets.math", "MATH", ("question",)),
    "colors": ("dspy.datasets.colors", "Colors", ("color",)),
}
"""Module and class of DSPy's own data sets, and the fields that are inputs."""

SPLITS = ("train", "dev", "test")
OF_DSPY = ("dspy_uuid", "dspy_split")
"""Fields that DSPy adds: the first is drawn anew at each load, neither belongs to the question."""

FORMAT = "examples/1"


def load_examples(
    data: str | Path | Sequence[Any], *, inputs: Sequence[str] | None = None, limit: int | None = None
) -> list[Any]:
    """`dspy.Example`s with their inputs marked, in the order of the data.

    `data`: as above. `inputs`: names of the fields that the program sees; None where the data says so itself. `limit`:
    the first so many. Raises DataError, UnknownName and BadInput.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"a limit of examples is 1 or more, not {limit}")
    if isinstance(data, str) and data.startswith("dspy:"):
        found = _of_dspy(data.removeprefix("dspy:"))
    elif isinstance(data, str | Path):
        found = _of_file(Path(data), inputs)
    else:
        found = list(data)
    return [_checked(one, i, inputs) for i, one in enumerate(found[:limit])]


def save_examples(examples: Sequence[Any], path: str | Path) -> Path:
    """Write JSON lines that `load_examples` reads again. Raises DataError for fields that aren't JSON."""
    path = Path(path)
    if not JSON_LINES & set(path.suffixes):
        raise DataError(f"{path}: examples are saved as JSON lines; call the file something.jsonl")
    inputs = sorted({name for one in examples for name in one.inputs()})
    lines: list[Mapping[str, Any]] = [{"escalade": FORMAT, "inputs": inputs}, *(fields(one) for one in examples)]
    try:
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    except TypeError as error:
        raise DataError(f"{path}: a field of an example is no JSON: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    return path


def fields(example: Any) -> dict[str, Any]:
    """The fields of an example, without what DSPy adds to them."""
    return {name: value for name, value in example.items() if name not in OF_DSPY}


def _checked(one: Any, i: int, inputs: Sequence[str] | None) -> Any:
    import dspy

    if not isinstance(one, dspy.Example):
        raise DataError(f"example {i + 1}: expected a dspy.Example, got {one!r}")
    if inputs is not None:
        if lacking := [name for name in inputs if name not in one]:
            raise DataError(f"example {i + 1} has no field {lacking[0]!r}; it has {', '.join(fields(one))}")
        one = one.with_inputs(*inputs)
    try:
        given = list(one.inputs())
    except ValueError:  # DSPy's way to say that none is marked
        given = []
    if not given:
        told = f"it has {', '.join(fields(one)) or 'no field'}; name the inputs, or mark them by with_inputs()"
        raise DataError(f"example {i + 1}: which fields are inputs isn't known; {told}")
    return one


def _of_file(path: Path, inputs: Sequence[str] | None) -> list[Any]:
    import dspy

    if not path.exists():
        raise DataError(f"no such file of examples: {path}")
    if {".json", *JSON_LINES} & set(path.suffixes):
        records = read_records(path)
    else:
        table = read_rows(path)
        records = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    marked: Sequence[str] | None = None
    if records and records[0].get("escalade") == FORMAT:
        marked, records = records[0].get("inputs"), records[1:]
    if not records:
        raise DataError(f"{path}: no examples in it")
    found = [dspy.Example(**{str(name): value for name, value in record.items()}) for record in records]
    return [one.with_inputs(*marked) for one in found] if marked and inputs is None else found


def _of_dspy(text: str) -> list[Any]:
    """NAME, NAME/SPLIT or NAME/SUBSET/SPLIT; without a split the test split, or what there is of dev."""
    name, *rest = text.split("/")
    if name not in DATASETS:
        raise UnknownName("data set of DSPy", name, list(DATASETS))
    split = rest.pop() if rest and rest[-1] in SPLITS else None
    if len(rest) > (name == "math") or (name == "math" and not rest):
        told = "math/SUBSET or math/SUBSET/SPLIT, like math/algebra/test" if name == "math" else f"{name}/SPLIT"
        raise BadInput(f"dspy:{text}: write dspy:{told}; splits are {', '.join(SPLITS)}")
    module, kind, inputs = DATASETS[name]
    try:
        dataset = getattr(importlib.import_module(module), kind)(*rest)
        if split is None:
            split = "test" if getattr(dataset, "_test", getattr(dataset, "test", None)) else "dev"
        found = list(getattr(dataset, split))
    except ModuleNotFoundError as error:
        raise DataError(f"dspy:{text}: DSPy needs the package {error.name!r} for it; install it") from None
    except AttributeError:
        raise DataError(f"dspy:{text}: this data set has no split {split!r}") from None
    except (OSError, ValueError) as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DataError(f"dspy:{text}: DSPy could not load it, which takes the network at first: {told}") from None
    import dspy

    return [dspy.Example(**fields(one)).with_inputs(*inputs) for one in found]
