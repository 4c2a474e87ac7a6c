"""`Confidence` reads what models write, in one call, and says nan where it can't."""

from __future__ import annotations

import copy
import json
import math
import pickle
from decimal import Decimal

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.confidence import WORDS, Confidence
from tests.agents.bare import bare_lm
from tests.agents.scripted import Scripted

SAID = [
    ("0.8", 0.8),
    (".8", 0.8),
    ("+0.8", 0.8),
    ("8e-1", 0.8),
    (" 0.8\n", 0.8),
    ("**0.8**", 0.8),
    ('"0.8"', 0.8),
    ("`0.8`", 0.8),
    ("~0.8", 0.8),
    ("0.8.", 0.8),
    ("[0.8]", 0.8),
    ("80%", 0.8),
    ("80 %", 0.8),
    ("80 percent", 0.8),
    ("80 per cent sure", 0.8),
    ("80", 0.8),
    ("8/10", 0.8),
    ("8 / 10", 0.8),
    ("8 out of 10", 0.8),
    ("4 of 5", 0.8),
    ("0.8/1.0", 0.8),
    ("high", 0.8),
    ("High", 0.8),
    ("high confidence", 0.8),
    ("My confidence is high.", 0.8),
    ("I'm confident.", 0.8),
    ("0.8 (fairly sure)", 0.8),
    ("0,8", 0.8),
    ("0,8 (sure)", 0.8),
    ("Confidence: 0.8", 0.8),
    ("high (0.9)", 0.9),
    ("very low", 0.1),
    ("not sure", 0.25),
    ("absolutely certain", 0.99),
    ("high, though only 3 of my 2 sources agree", 0.8),
    ("0", 0.0),
    ("0%", 0.0),
    ("1", 1.0),
    ("1.0", 1.0),
    ("100", 1.0),
    ("100%", 1.0),
]
UNKNOWN = [
    "",
    "  ",
    "N/A",
    "nan",
    "unknown",
    "no idea",
    "-0.5",
    "1.5",
    "7",  # of ten? percent?
    "10",
    "101",
    "120%",
    "11/10",
    "8/0",
    "8 of 0",
    "9" * 400,
    "1e999",
]


@pytest.mark.parametrize(("said", "value"), SAID)
def test_reads(said, value):
    """Everything that models write for a probability is read as that probability."""
    assert Confidence(said) == pytest.approx(value)
    assert Confidence(said).known


@pytest.mark.parametrize("said", UNKNOWN)
def test_unknown_is_nan(said):
    """What can't be read, or could mean two things, is nan: never a guess, never clipped, never an error."""
    assert math.isnan(Confidence(said))
    assert not Confidence(said).known


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (0.8, 0.8),
        (1, 1.0),
        (0, 0.0),
        (80, 0.8),
        (Decimal("0.8"), 0.8),
        ([0.8], 0.8),
        ((0, 8), 0.8),
        (Confidence(0.3), 0.3),
    ],
)
def test_reads_values(said, value):
    """Numbers of any kind; and what DSPy's repair makes of "[0.8]" and of the decimal comma."""
    assert Confidence(said) == pytest.approx(value)


@pytest.mark.parametrize(
    "said", [None, True, False, 5, -1, math.inf, -math.inf, math.nan, 10**400, [], [1, 2, 3], [0.1, 0.2], {}, object()]
)
def test_unknown_values(said):
    """Truth values, numbers that could mean two things, and anything else: nan."""
    assert not Confidence(said).known


@pytest.mark.parametrize("word", WORDS)
def test_words(word):
    """Each word of the scale is read, in a sentence too."""
    assert Confidence(word) == WORDS[word]
    assert Confidence(f"I am {word}") == WORDS[word]
    assert Confidence(f"{word.upper()}!") == WORDS[word]


@given(st.floats(0, 1))
def test_round_trip(p):
    """A probability survives being written as a number, as text, as a percentage and as a fraction."""
    assert Confidence(p) == p
    assert Confidence(str(p)) == pytest.approx(p)
    assert Confidence(f"{p * 100:.6f}%") == pytest.approx(p, abs=1e-7)
    assert Confidence(f"{p:.6f}/1") == pytest.approx(p, abs=1e-6)
    assert Confidence(f"{p:.3f}".replace(".", ",")) == pytest.approx(p, abs=1e-3)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.integers()), st.booleans(), st.binary()))
def test_never_raises_and_stays_in_range(said):
    """Whatever comes: a number from 0 to 1, or nan."""
    value = Confidence(said)
    assert math.isnan(value) or 0 <= value <= 1


@given(st.text(alphabet="0123456789.,%/ -+eE()outfhigh", max_size=12))
def test_hostile_numbers(said):
    """The same for texts that are nearly numbers."""
    value = Confidence(said)
    assert math.isnan(value) or 0 <= value <= 1


def test_is_a_float():
    """It computes, compares, copies and pickles like the float that it is, and stays a Confidence."""
    value = Confidence("80%")
    assert value + 0.1 == pytest.approx(0.9)
    assert value > 0.5
    assert repr(value) == "Confidence(0.8)"
    for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
        assert type(twin) is Confidence
        assert twin == value
    assert not pickle.loads(pickle.dumps(Confidence(""))).known


class Answer(pydantic.BaseModel):
    """A model with a confidence in it."""

    text: str
    confidence: Confidence


def test_in_a_model():
    """In pydantic models it reads the same, and is written as a number, nan as null: JSON has no nan."""
    assert Answer(text="x", confidence="80%").confidence == 0.8
    assert Answer.model_validate_json('{"text": "x", "confidence": "high"}').confidence == 0.8
    assert json.loads(Answer(text="x", confidence=0.5).model_dump_json()) == {"text": "x", "confidence": 0.5}
    assert json.loads(Answer(text="x", confidence="").model_dump_json()) == {"text": "x", "confidence": None}
    assert type(Answer(text="x", confidence=0.5).model_dump()["confidence"]) is Confidence


def test_schema_is_strict():
    """Structured outputs are held to a number from 0 to 1, and to nothing looser."""
    schema = pydantic.TypeAdapter(Confidence).json_schema()
    assert schema == {"type": "number", "minimum": 0, "maximum": 1, "description": "Probability from 0 to 1."}


class Asked(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    confidence: Confidence = dspy.OutputField(desc="how likely the answer is right")


BY_TEXT = dspy.Signature("question -> answer, confidence: Confidence", custom_types={"Confidence": Confidence})
CHAT = "[[ ## answer ## ]]\nx\n\n[[ ## confidence ## ]]\n{}\n\n[[ ## completed ## ]]"
XML = "<answer>\nx\n</answer>\n\n<confidence>\n{}\n</confidence>"
ADAPTERS = [
    (dspy.ChatAdapter, CHAT.format),
    (dspy.JSONAdapter, lambda said: json.dumps({"answer": "x", "confidence": said})),
    (dspy.XMLAdapter, XML.format),
]


@pytest.mark.parametrize("said", ["0.8", "80%", "8/10", "high", "0.8 (fairly sure)", "0,8", ".8", "**80%**"])
@pytest.mark.parametrize(("adapter", "write"), ADAPTERS, ids=["chat", "json", "xml"])
@pytest.mark.parametrize("signature", [Asked, BY_TEXT], ids=["class", "text"])
def test_in_a_signature(signature, adapter, write, said):
    """Through every adapter, in class and text signatures: read in the one call that was paid."""
    transport = Scripted([write(said)])
    with dspy.context(lm=bare_lm(transport, "m"), adapter=adapter()):
        prediction = dspy.Predict(signature)(question="q")
    assert prediction.confidence == pytest.approx(0.8)
    assert type(prediction.confidence) is Confidence
    assert len(transport.requests) == 1


@pytest.mark.parametrize("said", ["", "N/A", "no idea", "7"])
@pytest.mark.parametrize(("adapter", "write"), ADAPTERS, ids=["chat", "json", "xml"])
def test_unknown_in_a_signature(adapter, write, said):
    """What can't be read costs no second call either: it is nan, and the answer is kept."""
    transport = Scripted([write(said)])
    with dspy.context(lm=bare_lm(transport, "m"), adapter=adapter()):
        prediction = dspy.Predict(Asked)(question="q")
    assert not prediction.confidence.known
    assert prediction.answer == "x"
    assert len(transport.requests) == 1


@pytest.mark.parametrize("said", [0.8, 80, 1])
def test_numbers_in_json(said):
    """JSON numbers are read as they are."""
    transport = Scripted([json.dumps({"answer": "x", "confidence": said})])
    with dspy.context(lm=bare_lm(transport, "m"), adapter=dspy.JSONAdapter()):
        prediction = dspy.Predict(Asked)(question="q")
    assert prediction.confidence == Confidence(said)


def test_in_demonstrations():
    """A demonstration with an unknown confidence renders, and so does one with a known one."""
    program = dspy.Predict(Asked)
    program.demos = [
        dspy.Example(question="a", answer="b", confidence=Confidence("80%")),
        dspy.Example(question="c", answer="d", confidence=Confidence("")),
    ]
    transport = Scripted([CHAT.format("high")])
    with dspy.context(lm=bare_lm(transport, "m"), adapter=dspy.ChatAdapter()):
        assert program(question="q").confidence == 0.8
    shown = [m.text for m in transport.requests[0].messages if m.role == "assistant"]
    assert "0.8" in shown[0]
    assert "nan" not in shown[1].lower()


def test_a_program_with_it_saves_and_loads(tmp_path):
    """A program with confidences in its demonstrations, known or not, is saved as JSON and loaded."""
    program = dspy.Predict(Asked)
    program.demos = [dspy.Example(question="a", answer="b", confidence=Confidence(said)) for said in ("80%", "")]
    program.save(tmp_path / "program.json")
    again = dspy.Predict(Asked)
    again.load(tmp_path / "program.json")
    assert Confidence(again.demos[0]["confidence"]) == 0.8
    assert not Confidence(again.demos[1]["confidence"]).known
