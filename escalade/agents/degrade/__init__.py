"""Answering worse instead of failing, in five levels.

    1  cache      an answer of before that is fresh, without a call
    2  primary    the program, on the models that it asks for
    3  fallback   another model of the gateway answered, or another program
    4  stale, similar, static    an old answer, that to nearly the same question, or one that somebody wrote
    5  apology    no answer: a prediction that says so, and when to try again

faults      which failures may be degraded, and which never are
answers     answers that are kept for later, by tenant
replies     answers that somebody wrote, by pattern, in a file
resilient   `Resilient`, the module around any module
resolved    `Resolved`, the prediction that it gives
"""

from __future__ import annotations

from escalade.agents.degrade.answers import Answers
from escalade.agents.degrade.replies import Replies, Reply
from escalade.agents.degrade.resilient import Resilient
from escalade.agents.degrade.resolved import Resolved

__all__ = ["Answers", "Replies", "Reply", "Resilient", "Resolved"]
