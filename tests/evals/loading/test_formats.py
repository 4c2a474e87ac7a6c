"""Files of others: what they become, in the formats that their projects write."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade.errors import DataError
from escalade.evals.loaders import load_outcomes, loader_of
from escalade.evals.loading import zipped
from escalade.evals.online.log import DecisionLog
from escalade.evals.online.logged import Logged, Tried
from escalade.evals.outcomes import STATUSES, UNKNOWN, Outcomes
from escalade.registry.prices import Price
from tests._house import ROOT

SHARED = ROOT.parent / "shared" / "data"
LOGS = Path(__file__).parent / "logs"
beside = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded answers aren't beside this checkout")


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_table(outcomes: Outcomes) -> dict[str, Any]:
    """By key, so that the order of the questions doesn't count."""
    at = sorted(range(outcomes.n), key=lambda i: (outcomes.keys[i], outcomes.quality[i].tolist()))
    columns = {name: getattr(outcomes, name)[at].tolist() for name in ("quality", "cost", "price", "ceiling", "status")}
    return columns | {"rungs": [rung.name for rung in outcomes.rungs], "keys": [outcomes.keys[i] for i in at]}


# --------------------------------------------------------------------------------------------------------- routerbench


def routerbench_rows() -> list[dict[str, Any]]:
    """Records as RouterBench's own converter writes them: a prompt is a list of messages, written as Python does."""
    return [
        {
            "sample_id": f"mmlu-law.val.{i}",
            "prompt": repr(["You are a lawyer.", f"Question {i}: {'yes' * i}?"]),
            "eval_name": "mmlu-law",
            "WizardLM/WizardLM-13B-V1.2": float(i % 2),
            "gpt-4-1106-preview": 1.0 if i else 0.25,
            "WizardLM/WizardLM-13B-V1.2|model_response": repr(["A"]),
            "gpt-4-1106-preview|model_response": repr(["A" if i % 2 else "B"]),
            "WizardLM/WizardLM-13B-V1.2|total_cost": 4.29e-05,
            "gpt-4-1106-preview|total_cost": 0.00123456789,
            "oracle_model_to_route_to": "gpt-4-1106-preview",
        }
        for i in range(6)
    ]


def routerbench(path: Path) -> Path:
    """The same records in the form that the name of the file says."""
    rows = routerbench_rows()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".jsonl":
        jsonl(path, rows)
    else:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return path


@pytest.mark.parametrize("form", ["rb.csv", "rb.parquet", "rb.json", "rb.jsonl"])
def test_routerbench(tmp_path: Path, form: str) -> None:
    """Scores, costs to the nano-dollar, categories and texts, from any of the forms, without naming the loader."""
    path = routerbench(tmp_path / form)
    assert loader_of(path) == "routerbench"
    outcomes = load_outcomes(path)
    assert [rung.name for rung in outcomes.rungs] == ["WizardLM/WizardLM-13B-V1.2", "gpt-4-1106-preview"]
    assert outcomes.quality[:2].tolist() == [[0, 0.25], [1, 1]]
    assert outcomes.cost[0].tolist() == [42_900, 1_234_568], "fractions of a nano-dollar round up"
    assert outcomes.category is not None
    assert set(outcomes.category) == {"mmlu-law"}
    assert outcomes.features["text"][0] == "You are a lawyer.\nQuestion 0: ?"
    assert (outcomes.answer[0, 0] == outcomes.answer[0, 1], outcomes.answer[1, 0] == outcomes.answer[1, 1]) == (0, 1)


def test_routerbench_pickle_is_not_read(tmp_path: Path) -> None:
    """The published pickles would run what they hold: the error says how to convert them."""
    (tmp_path / "routerbench_0shot.pkl").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DataError, match="pickle runs whatever it holds.*to_parquet"):
        load_outcomes(tmp_path / "routerbench_0shot.pkl")


# --------------------------------------------------------------------------------------------------------- routerarena


def arena(index: str, model: str, score: float, *, cost: float | None = None, **more: Any) -> dict[str, Any]:
    """A record of `cached_results/`."""
    graded = {"extracted_answer": "x", "ground_truth": "y", "score": score, "metric": "mcq_accuracy"}
    return {
        "global_index": index,
        "question": f"What of {index}?",
        "llm_selected": model,
        "generated_answer": "x",
        "token_usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
        "success": True,
        "provider": "google",
        "error": None,
        "evaluation_result": graded | ({} if cost is None else {"inference_cost": cost}),
        **more,
    }


def test_routerarena_folder(tmp_path: Path) -> None:
    """One file per model: scores, costs as recorded, the data set as category; what failed has quality 0."""
    for model, cost in (("big", 3e-4), ("small", 1e-5)):
        rows = [arena(f"AIME_{i}", model, 1.0, cost=cost) for i in range(2)]
        failed = arena("ArcMMLU_7", model, 1.0, cost=0.0, success=False, error="timeout")
        jsonl(tmp_path / f"{model}.jsonl", [*rows, failed])
    assert loader_of(tmp_path) == "routerarena"
    outcomes = load_outcomes(tmp_path)
    assert [rung.name for rung in outcomes.rungs] == ["small", "big"]
    assert outcomes.quality.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert STATUSES[outcomes.status[2, 0]] == "failed"
    assert outcomes.cost[0].tolist() == [10_000, 300_000]
    assert outcomes.category == ("AIME", "AIME", "ArcMMLU")


def test_routerarena_runs_and_prices(tmp_path: Path) -> None:
    """Runs are epochs of a question; without recorded costs the project's own cost.json prices the tokens."""
    rows = [arena("AIME_1", model, 0.0, run_number=run) for run in (1, 2) for model in ("a", "b")]
    jsonl(tmp_path / "both.jsonl", rows)
    figures = {
        model: {"input_token_price_per_million": into, "output_token_price_per_million": 4}
        for model, into in (("a", 1), ("b", 2))
    }
    (tmp_path / "cost.json").write_text(json.dumps(figures), "utf-8")
    outcomes = load_outcomes(tmp_path / "both.jsonl")
    assert outcomes.keys == ("AIME_1", "AIME_1")
    assert outcomes.cost.tolist() == [[140_000, 240_000]] * 2
    assert outcomes.tariff["a"].source == "RouterArena's cost.json"


def test_routerarena_predictions_lack_what_nobody_asked(tmp_path: Path) -> None:
    """A router's predictions have one model per question: the others are missing, never zero."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    rows = [
        {"global index": f"AIME_{i}", "prompt": "?", "prediction": "ab"[i % 2], "accuracy": 1.0, "cost": 0.01}
        | {"generated_result": {"generated_answer": "x", "success": True, "token_usage": usage}}
        for i in range(4)
    ]
    (tmp_path / "router.json").write_text(json.dumps(rows), "utf-8")
    assert loader_of(tmp_path / "router.json") == "routerarena"
    with pytest.raises(DataError, match="4 of 4 questions without an outcome on every rung"):
        load_outcomes(tmp_path / "router.json")


def test_routerarena_wrong_records(tmp_path: Path) -> None:
    """Errors name the record, and what is wrong with it."""
    rows = [arena("AIME_1", "a", 1.0), arena("AIME_1", "a", 0.0)]
    with pytest.raises(DataError, match=r"record 2: 'a' has another answer to 'AIME_1' at .*record 1"):
        load_outcomes(jsonl(tmp_path / "a.jsonl", rows))
    with pytest.raises(DataError, match="a score of 7; expected a number between 0 and 1"):
        load_outcomes(jsonl(tmp_path / "b.jsonl", [arena("AIME_1", "a", 7)]))


# ------------------------------------------------------------------------------------------------- llmrouter, mmlu_pro


@beside
def test_llmrouter_published_files() -> None:
    """500 questions, nine models, in the order of the prices that came with them; costs are unknown."""
    outcomes = load_outcomes(f"{SHARED}/llmrouter/dcrouter_test.csv.gz")
    assert loader_of(f"{SHARED}/llmrouter/dcrouter_test.csv.gz") == "llmrouter"
    assert (outcomes.n, outcomes.k) == (500, 9)
    assert outcomes.rungs[0].name == "gemma-2-9b-it", "at $0.10 the cheapest"
    assert outcomes.quality[:, 0].mean() == pytest.approx(0.45, abs=5e-4)
    assert (outcomes.cost == UNKNOWN).all()


@beside
def test_mmlu_pro_published_files() -> None:
    """Answers joined with questions: categories, texts, and prompts as long as question and options."""
    prices = {name: Price.of(each, each) for name, each in (("Meta-Llama-3-8B", "0.2"), ("Meta-Llama-3-70B", "0.9"))}
    outcomes = load_outcomes(f"{SHARED}/mmlu_pro", rungs=list(prices), prices=prices)
    first = outcomes.keys.index("11285")
    assert (outcomes.n, outcomes.k) == (12_032, 2)
    assert outcomes.category is not None
    assert outcomes.category[first] == "engineering"
    assert outcomes.features["prompt_chars"][first] == len(outcomes.features["text"][first]) + 11
    assert outcomes.quality.sum(axis=0).tolist() == [4_112, 6_258], "as counted in the file"


def test_mmlu_pro_question_that_is_not_there(tmp_path: Path) -> None:
    """An answer to an unknown question is an error that names it."""
    (tmp_path / "outcomes_long.csv").write_text("question_id,model,pred,correct,out_chars\n7,a,A,1,3\n", "utf-8")
    (tmp_path / "questions.csv").write_text("question_id,category,question,options_chars\n1,law,Why?,3\n", "utf-8")
    with pytest.raises(DataError, match="no question '7'"):
        load_outcomes(tmp_path)


# ------------------------------------------------------------------------------------------------------------- inspect


def test_inspect_logs_of_inspect_itself() -> None:
    """Logs that inspect_ai 0.3.285 wrote, packed with zstandard: two models, three questions, two epochs."""
    assert loader_of(LOGS) == "inspect"
    outcomes = load_outcomes(LOGS, prices={"mockllm/small": Price.of("1", "1"), "mockllm/large": Price.of("10", "10")})
    assert outcomes.keys == tuple(f"sums/{i}" for i in (1, 1, 2, 2, 3, 3))
    assert outcomes.quality.sum(axis=0).tolist() == [4, 6]
    assert outcomes.cost[0].tolist() == [13_000, 150_000]
    assert outcomes.category == ("easy",) * 4 + ("hard",) * 2
    assert outcomes.features["text"][0] == "1+1?"
    assert not np.isnan(outcomes.latency).any()


def sample(number: int, epoch: int = 1, *, value: Any = "C", stop: str = "stop", **more: Any) -> dict[str, Any]:
    """A sample of a log, version 2."""
    usage = {"m": {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14, "input_tokens_cache_read": 5}}
    return {
        "id": number,
        "epoch": epoch,
        "input": [
            {"role": "system", "content": "Reason."},
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
        ],
        "target": "x",
        "output": {"model": "m", "choices": [{"message": {}, "stop_reason": stop}]},
        "scores": {"match": {"value": value, "answer": "x"}, "f1": {"value": 0.3}},
        "metadata": {},
        "model_usage": usage,
        "total_time": 2.0,
        "working_time": 1.0,
    } | more


def log(path: Path, model: str, samples: list[dict[str, Any]], *, task: str = "quiz") -> Path:
    """A log of one model, as `.json` or `.eval`."""
    spec = {"task": task, "model": model, "scorers": [{"name": "match"}, {"name": "f1"}]}
    head = {"version": 2, "status": "success", "eval": spec}
    if path.suffix == ".json":
        path.write_text(json.dumps(head | {"samples": samples}), "utf-8")
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", json.dumps(head))
        for one in samples:
            file.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
    return path


@pytest.mark.parametrize("form", ["json", "eval"])
def test_inspect_scores_and_errors(tmp_path: Path, form: str) -> None:
    """C, P, I, N are 1, .5, 0, 0; an error is a failed attempt; cut off is truncated where it was wrong."""
    samples = [
        sample(1),
        sample(2, value="P"),
        sample(3, value="I"),
        sample(4, value="N", stop="content_filter"),
        sample(5, value=0, stop="max_tokens"),
        sample(6, value=True, stop="max_tokens"),
        sample(7, error={"message": "boom"}, scores={}, model_usage={}),
    ]
    outcomes = load_outcomes(log(tmp_path / f"a.{form}", "m", samples), prices={"m": Price.of("1", "2")})
    assert outcomes.quality[:, 0].tolist() == [1, 0.5, 0, 0, 0, 1, 0]
    statuses = [STATUSES[code] for code in outcomes.status[:, 0].tolist()]
    assert statuses == ["ok", "ok", "ok", "refused", "truncated", "ok", "failed"]
    assert outcomes.cost[:, 0].tolist() == [15_000 + 8_000] * 6 + [0], "tokens of the cache are tokens"
    assert outcomes.latency[0, 0] == 1.0
    assert "graded by the scorer match; the logs have f1, too" in outcomes.notes
    assert outcomes.features["text"][0] == "?"


def test_inspect_logs_that_do_not_fit(tmp_path: Path) -> None:
    """Two logs of one model, a sample that is missing, a score of several figures, a file that is no log."""
    log(tmp_path / "a.eval", "m", [sample(1), sample(2)])
    log(tmp_path / "b.eval", "n", [sample(1)])
    with pytest.raises(DataError, match="1 of 2 questions without an outcome"):
        load_outcomes(tmp_path)
    log(tmp_path / "c.json", "m", [sample(1), sample(2)])
    with pytest.raises(DataError, match="both of 'm' on task 'quiz'; leave one of them out"):
        load_outcomes(tmp_path)
    with pytest.raises(DataError, match="expected one figure between 0 and 1"):
        load_outcomes(log(tmp_path / "d.json", "m", [sample(1, value={"a": 1})]))
    (tmp_path / "e.eval").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a zip file"):
        load_outcomes(tmp_path / "e.eval")


def test_a_member_larger_than_any_log_is_not_unpacked(tmp_path, monkeypatch):
    """A small file may hold gigabytes of zeros; the size that it says is looked at first."""
    monkeypatch.setattr(zipped, "MOST", 10 * 2**20)
    log(tmp_path / "a.eval", "m", [sample(1)])
    with zipfile.ZipFile(tmp_path / "a.eval", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("samples/9_epoch_1.json", bytes(11 * 2**20))
    assert (tmp_path / "a.eval").stat().st_size < 2**20
    with pytest.raises(DataError, match=r"samples/9_epoch_1.json: it unpacks to 11 MiB; at most 10 are read"):
        load_outcomes(tmp_path / "a.eval")


def test_a_log_of_decisions_is_no_outcomes(tmp_path):
    """The error says what it is, and what judges policies on it."""
    path = tmp_path / "decisions.jsonl"
    DecisionLog(path).write(Logged("1", "q", "p", ("a", "b"), (Tried(0),), 0))
    with pytest.raises(DataError, match="a log of decisions.*estimate"):
        load_outcomes(path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the extra is told its name, for Parquet and for logs packed with zstandard."""
    path = routerbench(tmp_path / "rb.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install \"escalade\[parquet\]\""):
        load_outcomes(path)
    if sys.version_info < (3, 14):
        with pytest.raises(DataError, match=r"escalade\[parquet\]"):
            load_outcomes(LOGS)


# ------------------------------------------------------------------------------------------------------ what all share


def test_long_table_in_parquet(tmp_path: Path) -> None:
    """The long format as Parquet is the long format."""
    rows = [{"question_id": q, "model": m, "correct": q != "2", "cost": 0.5, "pred": None} for q in "123" for m in "ab"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "long.parquet")
    outcomes = load_outcomes(tmp_path / "long.parquet")
    assert outcomes.quality.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert outcomes.cost[0, 0] == 500_000_000
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"broken\.parquet"):
        load_outcomes(tmp_path / "broken.parquet")


def test_questions_without_answers() -> None:
    """DSPy's data sets are questions: they have no outcomes, and the error says what to do with them."""
    with pytest.raises(DataError, match="questions without answers"):
        load_outcomes("dspy:gsm8k")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.sampled_from(["long", "arena", "inspect", "routerbench"]))
def test_order_of_lines_does_not_matter(tmp_path: Path, shuffle: random.Random, form: str) -> None:
    """The same lines in any order are the same outcomes, with the rungs in the same order."""
    models = ("a", "b", "c")
    if form == "long":
        lines = [f"{q},{m},{(q * 7 + ord(m)) % 2},0.001\n" for q in range(5) for m in models]
        path, rows = tmp_path / "x.csv", lines
    elif form == "arena":
        path, rows = (
            tmp_path / "x.jsonl",
            [arena(f"Q_{q}", m, q % 2, cost=ord(m) / 1e6) for q in range(5) for m in models],
        )
    elif form == "inspect":
        path, rows = tmp_path / "x.json", [sample(q, value="CI"[q % 2]) for q in range(5)]
    else:
        path, rows = tmp_path / "y.jsonl", routerbench_rows()

    def loaded(order: list[Any]) -> dict[str, Any]:
        if form == "long":
            path.write_text("question_id,model,correct,cost\n" + "".join(order), "utf-8")
        elif form == "inspect":
            log(path, "m", order)
        else:
            jsonl(path, order)
        return as_table(load_outcomes(path))

    mixed = rows.copy()
    shuffle.shuffle(mixed)
    assert loaded(mixed) == loaded(rows)
