"""Reduce recorded answers to GSM8K to the figures that ship with escalade: `escalade/evals/data/gsm8k_ladder.jsonl.gz`.

Kept so that every shipped figure can be derived again:

    python scripts/build_gsm8k_figures.py [../shared/data/gsm8k_ladder]

Input (see NOTICE): RouteLLM's GSM8K responses with verdicts, the same graded again, its list of contaminated prompts,
and the predictions of a 1.5B model at four token budgets. Output: one header line, then one line per question, without
a word of any question or answer. It prints how far two independent gradings agree, and fails if they stop agreeing.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT.parent / "shared" / "data" / "gsm8k_ladder"
TARGET = ROOT / "escalade" / "evals" / "data" / "gsm8k_ladder.jsonl.gz"

CHARS_PER_TOKEN = 4
"""An estimate: English text has about 4 characters a token; texts full of figures have fewer."""

STUDENT = "Qwen2.5-Math-1.5B, fine-tuned"
BIG = {  # rung -> (column of the source, column of the second grading, bound of its answer in tokens)
    "mixtral-8x7b": ("mistralai/Mixtral-8x7B-Instruct-v0.1", "weak_regraded", 512),
    "gpt-4-1106": ("gpt-4-1106-preview", "strong_regraded", 1024),
}
MAX_DISAGREEMENTS = 20
"""Of 2,638. What is left are answers that people grade differently: -15 for a loss of 15, 0.84 dollars for 84 cents."""

NUMBER = re.compile(r"(?<![\d.])-?\$?\d[\d,]*(?:\.\d+)?|(?<!\d)-?\$?\.\d+")
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])|\n+")


def numbers(text: str) -> list[Decimal]:
    """All numbers in a text: "-$1,234.50" is one of them."""
    return [Decimal(found.replace(",", "").replace("$", "")) for found in NUMBER.findall(text)]


def final_number(text: str) -> Decimal | None:
    """The answer that a worked solution ends with.

    1. What follows "####", the mark of the data set.
    2. Otherwise the result of the last computation ("= 64"), if the last sentence with a number in it names it: the
       last number of "she pays $64 for the 16 glasses" is not the answer.
    3. Otherwise the last number.
    """
    marked = numbers(text.rsplit("####", 1)[1]) if "####" in text else []
    if marked:
        return marked[0]
    sentences = [numbers(s) for s in SENTENCE_END.split(text) if numbers(s)]
    if not sentences:
        return None
    results = [numbers(part)[0] for part in re.findall(r"=\s*([^=\n]*)", text) if numbers(part)]
    for result in reversed(results):
        for said in (result, -result):
            if said in sentences[-1]:
                return said
    return sentences[-1][-1]


def as_number(text: str) -> Decimal | None:
    """The number that a short answer is, "10/3" included; None for what isn't one ("3:00 pm")."""
    try:
        top, _, bottom = text.replace(",", "").replace("$", "").partition("/")
        value = Decimal(top) / Decimal(bottom or 1)
    except (InvalidOperation, ZeroDivisionError):
        return None
    return round(value, 6)


def written(number: Decimal | None) -> str | None:
    """One way to write each number: 26.00 and 26 are the same answer."""
    return None if number is None else format(number.normalize(), "f")


def tokens(chars: int) -> int:
    """Estimated."""
    return -(-chars // CHARS_PER_TOKEN)


def rows(path: Path) -> list[dict[str, str]]:
    """Of a CSV file, gzipped or not."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def big_answer(response: str, recorded: str, regraded: str) -> dict[str, Any]:
    """Figures of one answer of one of the two big models."""
    answer = written(final_number(response))
    return {
        "quality": int(recorded == "True"),
        "regraded": int(regraded == "True"),
        "answer": answer,
        "output_chars": len(response),
        "output_tokens": tokens(len(response)),
        **({} if answer is not None else {"status": "wrong_format"}),
    }


def student_answer(row: dict[str, str]) -> dict[str, Any]:
    """Figures of one answer of the 1.5B model. No answer at all: its tokens ran out, so it used all of them."""
    limit, chars = int(row["max_new_tokens"]), int(row["chars"])
    answer = written(as_number(row["answer"])) if row["answer"] else None
    status = "truncated" if not row["answer"] else "wrong_format" if answer is None else "ok"
    return {
        "quality": int(row["correct"]),
        "regraded": int(row["correct"]),
        "answer": answer,
        **({"confidence": float(row["verbal_conf"])} if row["verbal_conf"] else {}),
        "output_chars": chars,
        "output_tokens": limit if status == "truncated" else min(limit, tokens(chars)),
        **({} if status == "ok" else {"status": status}),
    }


class Checks:
    """Counts where our own reading of an answer and the label of the source differ."""

    def __init__(self) -> None:
        self.differ: dict[str, int] = {}

    def compare(self, rung: str, answer: str | None, gold: Decimal, label: int) -> None:
        right = answer is not None and abs(Decimal(answer) - gold) < Decimal("0.001")
        self.differ[rung] = self.differ.get(rung, 0) + (right != bool(label))


def build(source: Path) -> tuple[list[dict[str, Any]], Checks]:
    """All questions with their figures, in the order of the source."""
    responses, again = rows(source / "gsm8k_responses.csv"), rows(source / "gsm8k_regraded.csv")
    student = rows(source / "preds_student_full.csv.gz")
    listed = (source / "contaminated_prompts.jsonl").read_text("utf-8").splitlines()
    contaminated = {json.loads(line)["eval_prompt"] for line in listed}
    by_question: dict[str, list[dict[str, str]]] = {}
    for row in student:
        by_question.setdefault(row["uid"], []).append(row)
    asked = {small[0]["question"]: (uid, small) for uid, small in by_question.items()}
    checks, questions = Checks(), []
    for response, graded in zip(responses, again, strict=True):
        prompt, gold = response["prompt"], Decimal(graded["gold"])
        assert prompt == graded["prompt"], "the two files of RouteLLM are out of step"
        uid, small = asked[prompt]
        outcomes = {f"qwen-1.5b@{row['max_new_tokens']}": student_answer(row) for row in small}
        for rung, (column, label, _) in BIG.items():
            outcomes[rung] = big_answer(response[f"{column}_response"], response[column], graded[label])
        for rung, figures in outcomes.items():
            checks.compare(rung, figures["answer"], gold, figures["regraded"])
        questions.append(
            {
                "key": uid,
                "prompt_chars": len(prompt),
                "prompt_bytes": len(prompt.encode()),
                "input_tokens": tokens(len(prompt)),
                **({"contaminated": True} if prompt in contaminated else {}),
                "outcomes": outcomes,
            }
        )
    return questions, checks


def header(contaminated: int) -> dict[str, Any]:
    """What is known about the rungs, and what has to be said with every result."""
    students = [
        {"name": f"qwen-1.5b@{n}", "model": "qwen2.5-math-1.5b", "strategy": "Predict", "max_output_tokens": n}
        for n in (96, 160, 224, 320)
    ]
    big = [
        {"name": name, "model": model.split("/")[-1].lower(), "strategy": "Predict", "max_output_tokens": bound}
        for name, (model, _, bound) in BIG.items()
    ]
    notes = [
        f"qwen-1.5b@N is {STUDENT}, with at most N new tokens; its one set of labels stands for both gradings",
        "recorded labels misread decimals: of GPT-4's 189 answers recorded as wrong 115 are right (--labels regraded)",
        f"tokens are estimated as characters / {CHARS_PER_TOKEN}; a prompt is the question alone; latency is unknown",
        f"{contaminated} questions that RouteLLM lists as contaminated are in (--contaminated drop leaves them out)",
    ]
    return {"escalade": "outcomes/1", "name": "gsm8k-ladder", "rungs": [*students, *big], "notes": notes}


def main() -> None:
    """Build the file, and say how the gradings agree."""
    questions, checks = build(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
    lines = [header(sum("contaminated" in q for q in questions)), *questions]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    TARGET.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    for rung, differ in checks.differ.items():
        print(f"{rung:14} our reading of the answer and its regraded label differ on {differ:2} of {len(questions)}")
    assert sum(checks.differ[rung] for rung in BIG) <= MAX_DISAGREEMENTS
    assert not any(differ for rung, differ in checks.differ.items() if rung not in BIG)
    print(f"{TARGET.relative_to(ROOT)}: {len(questions)} questions, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
