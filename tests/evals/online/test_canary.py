"""Canaries and shadows in a live app: who gets what, what is logged, and when a worse policy is stopped."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from dataclasses import dataclass
from pathlib import Path

import dspy
import numpy as np
import pytest

import escalade
from escalade.agents.climb import Decision, Policy, Try, View
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Budgeted, Constant, Threshold, load_policy
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput
from escalade.evals.online.canary import Canary
from escalade.evals.online.epsilon import Epsilon
from escalade.evals.online.log import DecisionLog
from escalade.evals.online.logged import Logged, Tried
from escalade.evals.online.shadow import PolicyShadow
from escalade.evals.online.trial import Rails, Trial
from escalade.evals.online.watching import Watched, log_of, watch
from escalade.evals.replay import replay
from escalade.registry.rollout import place
from tests.evals._tables import table

WORLD = World({"small": SimModel(0.4), "big": SimModel(0.95, "1", "4")}, seed=4)
RUNGS = [("Predict", "small"), ("Predict", "big")]
BY_USER = Canary(Constant(0), Constant(1), 0.5)


def app(policy: Policy) -> Escalate:
    """A program on a simulated small and big model."""
    return Escalate("question -> answer", rungs=RUNGS, policy=policy, gateway=Gateway(WORLD.as_models()))


def ask(program: Escalate, question: str, user: str = "") -> tuple[str, dspy.Prediction]:
    """(id of the run, answer)."""
    roles = escalade.Roles({"guest": ["*:call"]}) if user else None
    principal = escalade.Principal(user, roles=frozenset({"guest"})) if user else None
    with escalade.scope(principal=principal, access=roles) as run:
        return run.run_id, program(question=question)


QUESTIONS = [example.question for example in WORLD.task(60)]


def test_a_user_keeps_his_policy() -> None:
    """Who asks again gets the same policy, by the hash of rollouts; a larger share contains a smaller one's users."""
    log = DecisionLog()
    program = app(watch(BY_USER, log))
    for i, question in enumerate(QUESTIONS):
        ask(program, question, f"user{i % 12}")
    lines = log.lines()
    assert len(lines) == 60
    arms = {user: {line.arm for line in lines[user::12]} for user in range(12)}
    assert all(len(arm) == 1 for arm in arms.values())
    new = {user for user in range(12) if place("canary", "1", "default", f"user{user}") < 0.5}
    assert {user for user, arm in arms.items() if arm == {"new"}} == new
    assert 0 < len(new) < 12
    assert len({line.group for line in lines}) == 12
    assert {(line.arm, line.rung) for line in lines} == {("new", "Predict/big"), ("old", "Predict/small")}
    assert all(line.propensity == 0.5 and line.cost > 0 and not line.failed for line in lines)


def test_the_log_holds_no_texts(tmp_path: Path) -> None:
    """Neither question nor answer nor user is in the file; feedback by run finds its climb."""
    log = DecisionLog(tmp_path / "d.jsonl")
    program = app(watch(Epsilon(Threshold(0.8), 0.5), log, features=("prompt_chars", "text")))
    run, answer = ask(program, "What is the colour of Ana's secret?", "ana@example.org")
    log.feedback(0.5, run=run)
    text = (tmp_path / "d.jsonl").read_text()
    assert not any(word in text for word in ("secret", "ana@", str(answer.answer)))
    [line] = DecisionLog(tmp_path / "d.jsonl").lines()
    assert (line.quality, line.cost, line.rungs) == (0.5, int(answer.cost), answer.climb.path)
    assert line.features == {"prompt_chars": 35.0}


def test_live_and_replayed_alike() -> None:
    """A watched policy decides in a replay as it does live, and the replay writes nothing into the log."""
    log = DecisionLog()
    policy = Epsilon(Threshold(0.8), 0.5, seed=3)
    program = app(watch(policy, log))
    with escalade.scope():
        outcomes = escalade.record(program, WORLD.task(25), WORLD.metric)
        assert not len(log)
        replayed = replay(program.policy, outcomes)
        assert not len(log)
        for example in WORLD.task(25):
            program(question=example.question)
    assert [line.key for line in log.lines()] == list(outcomes.keys)
    assert [set(line.rungs) for line in log.lines()] == [set(np.flatnonzero(row)) for row in replayed.tried]
    simulated = log_of(policy, outcomes)
    assert [one.propensity for one in simulated] == pytest.approx([line.propensity for line in log.lines()])


def test_async_and_threads_write_every_climb(tmp_path: Path) -> None:
    """Tasks and threads share one watched policy: each climb is there once."""
    log = DecisionLog(tmp_path / "d.jsonl")
    program = app(watch(Epsilon(Threshold(0.8), 0.3), log))

    async def many() -> None:
        async with escalade.scope():
            await asyncio.gather(*(program.acall(question=question) for question in QUESTIONS[:20]))

    threads = [threading.Thread(target=ask, args=(program, question)) for question in QUESTIONS[20:40]]
    for thread in threads:
        thread.start()
    asyncio.run(many())
    for thread in threads:
        thread.join()
    assert len({line.key for line in DecisionLog(tmp_path / "d.jsonl").lines()}) == len(log) == 40


def test_saved_as_the_policy_itself(tmp_path: Path) -> None:
    """The log belongs to the app: saved, copied and pickled is the policy."""
    watched = watch(BY_USER, DecisionLog(tmp_path / "d.jsonl"))
    program = app(watched)
    program.save(tmp_path / "program.json")
    again = app(Constant(0))
    again.load(tmp_path / "program.json")
    assert again.policy == BY_USER
    assert isinstance(copy.deepcopy(program).policy, Watched)
    assert pickle.loads(pickle.dumps(watched)) == BY_USER


# ---------------------------------------------------------------------------------------------------------------- trial


def simulate(
    log: DecisionLog,
    n: int,
    *,
    quality: tuple[float, float],
    cost: tuple[int, int] = (10, 10),
    errors: float = 0.0,
    seed: int = 0,
) -> None:
    """N climbs, half of each arm; (old, new) quality and cost, and the share of errors of the new one."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        new = bool(rng.random() < 0.5)
        failed = new and rng.random() < errors
        paid = round(cost[new] * rng.lognormal(0, 0.3) * 1_000)
        tried = Tried(0, 0.5, cost=paid, status="failed" if failed else "ok")
        right = 0.0 if failed else float(rng.random() < quality[new])
        arm = "new" if new else "old"
        log.write(Logged(f"{seed}.{i}", f"q{i}", "canary", ("a",), (tried,), 0, arm=arm, version="1", quality=right))


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"quality": (0.9, 0.6)}, "the new policy is worse: quality"),
        ({"quality": (0.9, 0.9), "errors": 0.2}, "the new policy"),
        ({"quality": (0.9, 0.9), "cost": (10, 20)}, "the new policy is dearer: $0.00002 a question against $0.00001"),
    ],
)
def test_a_worse_policy_is_stopped(tmp_path: Path, worse: dict[str, tuple[float, float]], said: str) -> None:
    """Worse in quality, errors or cost: nobody gets it any more, the reason has figures, and a restart knows it."""
    log = DecisionLog(tmp_path / "d.jsonl")
    policy = watch(BY_USER, log)
    assert policy.trial is not None
    simulate(log, 700, **worse)  # type: ignore[arg-type]
    assert policy.trial.status == "stopped"
    assert said.split(":", maxsplit=1)[0] in policy.trial.reason
    now = View("q", {}, (), (), ())
    assert {policy.policy.arm(View(f"q{i}", now.features, (), (), ())) for i in range(20)} == {"old"}  # type: ignore[attr-defined]
    again = watch(BY_USER, DecisionLog(tmp_path / "d.jsonl"))
    assert again.trial is not None
    assert again.trial.reason == policy.trial.reason
    assert load_policy(json.loads(json.dumps(policy.dump()))) == again.policy


def test_who_is_no_worse_is_seldom_stopped() -> None:
    """Sixty canaries that are as good, looked at after each of 300 climbs: at most one in twenty is stopped."""
    stopped = 0
    for seed in range(60):
        log = DecisionLog()
        trial = Trial(BY_USER, log)
        simulate(log, 300, quality=(0.8, 0.8), seed=seed)
        stopped += trial.status == "stopped"
    assert stopped <= 3


def test_other_versions_do_not_count() -> None:
    """Climbs of another version, of another policy, or without an arm tell nothing of this one."""
    log = DecisionLog()
    trial = Trial(Canary(Constant(0), Constant(1), 0.5, version="2"), log)
    simulate(log, 100, quality=(1.0, 0.0))
    assert [arm.climbs for arm in trial.arms.values()] == [0, 0]
    with pytest.raises(BadInput, match="dearer >= 1"):
        Rails(dearer=0.5)


@dataclass(frozen=True)
class Broken:
    """Raises on everything."""

    name: str = "broken"

    def decide(self, view: View) -> Decision:
        raise ZeroDivisionError("a mistake")


def test_a_new_policy_that_raises_is_stopped_live() -> None:
    """Its errors reach whoever asks, are logged as failures, and after some tens of them nobody gets it any more."""
    log = DecisionLog()
    policy = watch(Canary(Constant(0), Broken(), 0.5), log)
    program = app(policy)
    raised = 0
    for i in range(150):
        try:
            ask(program, f"question {i}?")
        except ZeroDivisionError:
            raised += 1
    assert policy.trial is not None
    assert "fails more often: 100.0% against 0.0%" in policy.trial.reason
    assert sum(line.failed for line in log.lines()) == raised == policy.trial.arms["new"].failures < 40


def test_a_log_that_cannot_be_written_disturbs_nobody(tmp_path: Path, caplog) -> None:
    """The answer comes, and a warning says what was lost."""
    log = DecisionLog(tmp_path / "d.jsonl")
    program = app(watch(Constant(0), log))
    (tmp_path / "d.jsonl").mkdir()
    assert ask(program, QUESTIONS[0])[1].climb.path == (0,)
    assert "a climb of constant was not logged: IsADirectoryError" in caplog.text


# --------------------------------------------------------------------------------------------------------------- shadow


def test_a_shadow_says_what_it_would_have_done() -> None:
    """Nothing is called for it and no answer changes; inside of what was seen its cost and quality are known."""
    log, shadow = DecisionLog(), PolicyShadow(Threshold(0.5))
    program, plain = app(watch(Threshold(0.8), log, shadow=shadow)), app(Threshold(0.8))
    served = [ask(program, question) for question in QUESTIONS]
    alone = [ask(plain, question)[1] for question in QUESTIONS]
    assert [str(one.answer) for _, one in served] == [str(one.answer) for one in alone]
    assert [one.climb.cost for _, one in served] == [one.climb.cost for one in alone]
    for run, _ in served:
        log.feedback(1.0, run=run)
    report = shadow.report()
    outcomes_of = {one.key: one for one in shadow.climbs()}
    assert report.n == report.inside == len(outcomes_of) == 60
    for line, (_, answer) in zip(log.lines(), served, strict=True):
        one, first = outcomes_of[line.key], answer.climb.attempts[0]
        stays = first.ok and first.confidence >= 0.5
        assert one.path == ((0,) if stays else answer.climb.path)
        assert one.cost == (first.cost if stays else answer.climb.cost)
        assert one.same == (one.path == answer.climb.path)
        assert (one.quality == 1.0) == one.same
    assert report.cost < report.served_cost
    assert report.told == report.same < 60


def test_a_shadow_outside_of_what_was_seen_or_broken_changes_nothing() -> None:
    """A rung that wasn't tried isn't known; an exception of the shadow is counted, and reaches nobody."""
    for policy, inside, errors in ((Constant(1), 0, 0), (Broken(), 0, 5), (Budgeted(Constant(0), "1"), 5, 0)):
        shadow = PolicyShadow(policy)
        program = app(watch(Constant(0), DecisionLog(), shadow=shadow))
        for question in QUESTIONS[:5]:
            assert ask(program, question)[1].climb.path == (0,)
        report = shadow.report()
        assert (report.n, report.inside, report.errors, report.quality) == (5, inside, errors, None)


def test_a_canary_in_a_comparison() -> None:
    """In a replay each question is a user of its own: a share of them gets the new policy."""
    outcomes = table(quality=[[0.0, 1.0]] * 400)
    canary = Canary(Constant(0), Constant(1), 0.3)
    found = replay(canary, outcomes)
    assert found.quality.mean() == pytest.approx(0.3, abs=0.08)
    assert isinstance(canary.decide(outcomes.view(0)), Try)
