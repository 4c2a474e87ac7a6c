"""How sure an attempt is: the type that models write it in, and the sources that it may come from.

Confidence      a probability that a model wrote, read from whatever it wrote
Verbalised      the model says it, in a field of its own, in the same call
TypedDecision   the same, as one of DSPy's decision types
Logprob         how likely the provider says the answer's tokens were, in the same call
Samples         how many of k samples agree
Peers           how many other models or strategies agree
Verifier        what a chosen model says of the answer
Combined        several of them, weighed
Source          the protocol behind them, for one of your own
"""

from escalade.agents.confidence.agreement import Peers, Samples
from escalade.agents.confidence.combined import Combined
from escalade.agents.confidence.logprob import Logprob
from escalade.agents.confidence.said import WORDS, Confidence
from escalade.agents.confidence.source import Answered, Call, Given, Helper, Reading, Source, Weighing, register_source
from escalade.agents.confidence.stated import TypedDecision, Verbalised
from escalade.agents.confidence.verifier import Verifier

__all__ = [
    "WORDS",
    "Answered",
    "Call",
    "Combined",
    "Confidence",
    "Given",
    "Helper",
    "Logprob",
    "Peers",
    "Reading",
    "Samples",
    "Source",
    "TypedDecision",
    "Verbalised",
    "Verifier",
    "Weighing",
    "register_source",
]
