"""Loaders: what the columns of other people's files become."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import DataError, UnknownName
from escalade.evals._draft import _codes
from escalade.evals.loaders import load_outcomes, loader_of
from escalade.evals.outcomes import NO_ANSWER, UNKNOWN
from escalade.evals.prices import parse_price, prices_of, read_prices
from escalade.registry.prices import Price
from tests._house import ROOT

SHARED = ROOT.parent / "shared" / "data"
PAIR = "prompt,small/a,gpt-4-1106-preview,small/a_response,gpt-4-1106-preview_response\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def jsonl(path: Path, *rows: object) -> Path:
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


# ------------------------------------------------------------------------------------------------------------ routellm


def test_routellm_csv(tmp_path) -> None:
    """Verdicts become quality, lengths become tokens, the text itself is gone; prices come by the model's name."""
    path = written(tmp_path / "pair.csv", PAIR + '"What, then?",True,0,"abcd efgh",x\nWhy?,False,1,,"y\nz"\n')
    outcomes = load_outcomes(f"routellm:{path}", prices={"small/a": Price.of("1", "2")})
    assert outcomes.name == "pair"
    assert outcomes.quality.tolist() == [[1, 0], [0, 1]]
    assert outcomes.features["prompt_chars"].tolist() == [11, 4]
    assert outcomes.cost[0].tolist() == [3 * 1000 + 3 * 2000, 3 * 10_000 + 1 * 30_000]
    assert "What" not in repr(outcomes)


def test_routellm_without_responses(tmp_path) -> None:
    """Without answers the cost is unknown, never zero."""
    outcomes = load_outcomes(written(tmp_path / "pair.csv", "prompt,a,gpt-4-1106\nWhy?,1,0\n"))
    assert (outcomes.cost == UNKNOWN).all()
    told = "cost unknown: some or all lines have neither cost nor <model>_response"
    assert told in outcomes.notes


def test_routellm_folder(tmp_path) -> None:
    """Of a folder every CSV file is read, and its name is the category."""
    written(tmp_path / "algebra.csv", "prompt,a,b\nq1,1,0\nq2,1,1\n")
    written(tmp_path / "botany.csv", "prompt,a,b\nq3,0,0\n")
    outcomes = load_outcomes(tmp_path)
    assert outcomes.category == ("algebra", "algebra", "botany")
    assert outcomes.n == 3


def test_routellm_question_is_a_prompt(tmp_path) -> None:
    """A column "question" does for "prompt", guessed or named."""
    path = written(tmp_path / "pair.csv", "question,a,b\nq1,1,0\nq2,1,1\n")
    assert load_outcomes(path).keys == load_outcomes(f"routellm:{path}").keys
    assert loader_of(path) == "routellm"


def test_routellm_folder_with_other_files(tmp_path) -> None:
    """CSV files without prompts in a folder are left out, and named."""
    written(tmp_path / "algebra.csv", "prompt,a,b\nq1,1,0\nq2,1,1\n")
    written(tmp_path / "regraded.csv", "gold,weak\n1,0\n")
    outcomes = load_outcomes(tmp_path)
    assert outcomes.n == 2
    assert "CSV files without prompts are left out: regraded.csv" in outcomes.notes


def test_routellm_contaminated(tmp_path) -> None:
    """Prompts listed beside the file are left out with a note, and kept on demand."""
    path = written(tmp_path / "pair.csv", "prompt,a,b\nq1,1,0\nq2,1,1\n")
    jsonl(tmp_path / "contaminated_prompts.jsonl", {"eval_prompt": "q1", "train_prompt": "x"})
    dropped, kept = load_outcomes(path), load_outcomes(path, contaminated="keep")
    assert (dropped.n, kept.n) == (1, 2)
    assert "1 contaminated questions are left out" in dropped.notes


def test_keys_depend_on_the_prompt_alone(tmp_path) -> None:
    """The same prompt has the same key in any file and order: folds and draws don't move."""
    one = load_outcomes(written(tmp_path / "one.csv", "prompt,a,b\nq1,1,0\nq2,1,1\n"))
    two = load_outcomes(written(tmp_path / "two.csv", "prompt,b,a\nq2,1,1\nq1,1,0\n"))
    assert one.keys == two.keys[::-1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded answers aren't beside this checkout")
def test_routellm_published_file() -> None:
    """RouteLLM's own file: 1,307 questions, 63.7 % and 85.8 %."""
    outcomes = load_outcomes(f"routellm:{SHARED}/gsm8k_ladder/gsm8k_responses.csv")
    assert outcomes.n == 1307
    assert outcomes.quality.mean(axis=0) == pytest.approx([0.637, 0.858], abs=5e-4)
    assert (outcomes.cost <= outcomes.ceiling).all()


# ---------------------------------------------------------------------------------------------------------------- long


LONG = "question_id,model,correct,pred,confidence,cost,latency,category\n"


def test_long_table(tmp_path) -> None:
    """A line per question and model; answers, confidence, cost in dollars, latency and category are optional."""
    text = (
        LONG
        + "1,big,1,B,0.9,0.002,1.5,x\n1,small,0,A,,0.001,0.5,x\n2,small,1,C,0.4,0.001,0.5,y\n2,big,1,c ,1,0.002,2,y\n"
    )
    outcomes = load_outcomes(written(tmp_path / "t.csv", text))
    assert [rung.name for rung in outcomes.rungs] == ["small", "big"]
    assert outcomes.keys == ("1", "2")
    assert outcomes.quality.tolist() == [[0, 1], [1, 1]]
    assert outcomes.answer.tolist() == [[0, 1], [0, 0]]
    assert outcomes.cost.tolist() == [[1_000_000, 2_000_000]] * 2
    assert outcomes.confidence[1].tolist() == [0.4, 1]
    assert np.isnan(outcomes.confidence[0, 0])
    assert outcomes.latency[:, 1].tolist() == [1.5, 2]
    assert outcomes.category == ("x", "y")
    assert "prompt_chars" not in outcomes.features


def test_long_group_and_category_are_of_the_question(tmp_path) -> None:
    """Any line may say them, and who names no group is one of his own; a contradiction is refused by line."""
    head = "question_id,model,correct,cost,group,category\n"
    text = head + "1,a,1,.1,,x\n1,b,1,.2,doc,\n2,a,0,.1,doc,\n2,b,1,.2,doc,\n3,a,0,.1,,x\n3,b,1,.2,,x\n"
    outcomes = load_outcomes(written(tmp_path / "t.csv", text))
    assert outcomes.group == ("doc", "doc", "3")
    assert outcomes.category == ("x", "", "x")
    for column, lines in (("group", "1,a,1,.1,doc,\n1,b,1,.2,other,\n"), ("category", "1,a,1,.1,,x\n1,b,1,.2,,y\n")):
        with pytest.raises(DataError, match=f"line 3: the {column} of question '1' is '\\w+' on an earlier line"):
            load_outcomes(written(tmp_path / "t.csv", head + lines))


def test_long_names_the_columns_that_nobody_reads(tmp_path) -> None:
    """In one note, so that a misspelt name is seen; without one there is no note."""
    text = "question_id,model,correct,cost,confidance,user\n1,a,1,.1,.5,me\n1,b,1,.2,.5,me\n"
    assert "columns that are not read: confidance, user" in load_outcomes(written(tmp_path / "t.csv", text)).notes
    text = "question_id,model,correct,cost,prompt,question\n1,a,1,.1,,\n1,b,1,.2,,\n"
    assert not any("not read" in note for note in load_outcomes(written(tmp_path / "t.csv", text)).notes)


def test_long_gzipped_tsv(tmp_path) -> None:
    """Tabs and gzip are fine, and lengths in characters become costs."""
    path = tmp_path / "t.tsv.gz"
    text = "question_id\tmodel\tcorrect\tout_chars\tprompt_chars\n1\tm\tTrue\t40\t8\n"
    path.write_bytes(gzip.compress(text.encode()))
    outcomes = load_outcomes(path, prices={"m": Price.of("1", "1")})
    assert outcomes.cost.tolist() == [[12_000]]
    assert outcomes.features["prompt_chars"].tolist() == [8]


def test_rungs_by_price_or_else_by_quality(tmp_path) -> None:
    """Cheapest first where every price is known; else weakest first, and a note says so."""
    path = written(tmp_path / "t.csv", "prompt,a,b,a_response,b_response\nq1,1,0,x,x\nq2,1,1,x,x\n")
    by_quality = load_outcomes(path)
    by_price = load_outcomes(path, prices={"a": Price.of("1", "1"), "b": Price.of("9", "9")})
    assert [rung.name for rung in by_quality.rungs] == ["b", "a"]
    assert any("ordered by mean quality" in note for note in by_quality.notes)
    assert [rung.name for rung in by_price.rungs] == ["a", "b"]


def test_long_says_which_lengths_are_missing(tmp_path) -> None:
    """An unknown cost names the columns that it would take."""
    told = "cost unknown: some or all lines have neither cost nor "
    path = written(tmp_path / "t.csv", "question_id,model,correct,out_chars\n1,a,1,5\n1,b,1,9\n")
    assert told + "prompt_chars (or input_tokens)" in load_outcomes(path).notes
    path = written(tmp_path / "t.csv", "question_id,model,correct\n1,a,1\n1,b,1\n")
    assert told + "prompt_chars (or input_tokens) nor output_tokens (or out_chars)" in load_outcomes(path).notes


def test_rungs_that_lack_outcomes_can_be_left_out(tmp_path) -> None:
    """Holes of a rung that isn't on the ladder don't matter; dropped questions come with a warning."""
    text = "question_id,model,correct\n" + "".join(f"{q},{m},1\n" for q in range(9) for m in "abc" if q or m != "b")
    path = written(tmp_path / "t.csv", text)
    assert load_outcomes(path, rungs=["a", "c"]).n == 9
    dropped = load_outcomes(path, missing="drop")
    assert dropped.n == 8
    assert "may not be missing by chance" in dropped.notes[0]


def test_errors_name_the_line_of_the_file(tmp_path) -> None:
    """Empty lines and cells of several lines count, plain or gzipped."""
    text = 'question_id,model,correct,pred\n\n1,a,1,"x\ny"\n2,a,perhaps,z\n'
    with pytest.raises(DataError, match=r"line 5: column 'correct' has 'perhaps'"):
        load_outcomes(written(tmp_path / "t.csv", text))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match="line 5"):
        load_outcomes(f"long:{path}")


# --------------------------------------------------------------------------------------------------------------- jsonl


def test_jsonl_without_a_header(tmp_path) -> None:
    """Rungs are those that occur; what isn't known is left out."""
    rows = [{"key": str(i), "outcomes": {"a": {"quality": i % 2}, "b": {"quality": 1, "cost": "0.01"}}} for i in (0, 1)]
    outcomes = load_outcomes(jsonl(tmp_path / "d.jsonl", *rows))
    assert outcomes.quality.tolist() == [[0, 1], [1, 1]]
    assert outcomes.cost[:, 1].tolist() == [10_000_000] * 2


def test_jsonl_failed_attempt_counts(tmp_path) -> None:
    """A failed attempt needs no label: it has quality 0, and it isn't a hole."""
    row = {"key": "q", "outcomes": {"a": {"status": "failed"}, "b": {"quality": 1}}}
    assert load_outcomes(jsonl(tmp_path / "d.jsonl", row)).quality.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"key": "q", "outcomes": {"a": {"quality": 2}}}, "line 2: field outcomes.a.quality"),
        ({"key": "q", "outcomes": {"a": {"quality": 1, "confidence": "x"}}}, "line 2: field outcomes.a.confidence"),
        ({"key": "q", "outcomes": {"a": {"qualty": 1}}}, "line 2: field outcomes.a.qualty"),
        ({"outcomes": {"a": {"quality": 1}}}, "line 2: field key"),
        ({"key": "q", "outcomes": {"z": {"quality": 1}}}, "line 2: field outcomes: no rung 'z'"),
    ],
)
def test_jsonl_errors_name_line_and_field(tmp_path, row, told) -> None:
    """An error says on which line and in which field it is."""
    path = jsonl(tmp_path / "d.jsonl", {"escalade": "outcomes/1", "rungs": [{"name": "a"}]}, row)
    with pytest.raises(DataError) as error:
        load_outcomes(path)
    assert told in str(error.value)


def test_jsonl_broken_line(tmp_path) -> None:
    """A line that isn't JSON is named; a key that comes twice too."""
    with pytest.raises(DataError, match="line 1"):
        load_outcomes(written(tmp_path / "d.jsonl", "{nope\n"))
    row = {"key": "q", "outcomes": {"a": {"quality": 1}}}
    with pytest.raises(DataError, match="'q' was on line 1"):
        load_outcomes(jsonl(tmp_path / "e.jsonl", row, row))


@given(
    st.lists(
        st.lists(
            st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["1", "1.0", "B", "b "])), min_size=3, max_size=3
        )
    )
)
def test_codes_say_same_or_different(rows) -> None:
    """Within a question two answers have one code if and only if they are the same answer; none is NO_ANSWER."""

    def canonical(answer) -> str:
        return {"1.0": "1", "b ": "b", "B": "b"}.get(str(answer), str(answer))

    table = np.array(rows, dtype=object).reshape(len(rows), 3)
    for row, codes in zip(rows, _codes(table).tolist(), strict=True):
        assert [c == NO_ANSWER for c in codes] == [a is None for a in row]
        for a, code_a in zip(row, codes, strict=True):
            for b, code_b in zip(row, codes, strict=True):
                if a is not None and b is not None:
                    assert (code_a == code_b) == (canonical(a) == canonical(b))


# -------------------------------------------------------------------------------------------------------------- prices


def test_prices_are_found_by_parts_of_a_name() -> None:
    """Provider prefixes, dates behind and token budgets don't hide a list price; a stranger's price stays unknown."""
    from escalade.agents.climb import Rung

    names = ["openai/gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1", "qwen-1.5b@96", "nobody-knows-me"]
    *known, unknown = prices_of([Rung(name) for name in names])
    assert [listed and listed.price for listed in known] == [
        Price.of("10", "30"),
        Price.of("0.60", "0.60"),
        Price.of("0.10", "0.10"),
    ]
    assert unknown is None


def test_own_prices_go_first() -> None:
    """One's own price holds for a rung, or for all budgets of a model; a name that fits none is refused."""
    from escalade.agents.climb import Rung

    rungs = [Rung("qwen-1.5b@96", None, "q"), Rung("qwen-1.5b@160", None, "q"), Rung("gpt-4-1106")]
    own = dict([parse_price("qwen-1.5b=1/2"), parse_price("gpt-4-1106=5")])
    found = [listed.price for listed in prices_of(rungs, own) if listed]
    assert found == [Price.of("1", "2"), Price.of("1", "2"), Price.of("5", "5")]
    with pytest.raises(UnknownName, match="rung to price 'gpt'"):
        prices_of(rungs, {"gpt": Price.of("1", "1")})


def test_price_files(tmp_path) -> None:
    """JSON and TOML, exact to the nano-dollar, and more names than are needed are fine."""
    one = read_prices(written(tmp_path / "p.json", '{"a": "1/2", "b": {"input": 0.1, "output": 0.3}}'))
    two = read_prices(written(tmp_path / "p.toml", 'a = "1/2"\n[b]\ninput = "0.1"\noutput = "0.3"\n'))
    for table in (one, two):
        assert table.get("a") == Price.of("1", "2")
        assert table.get("b") == Price.of("0.1", "0.3")
