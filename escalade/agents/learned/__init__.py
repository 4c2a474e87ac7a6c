"""Policies that are fitted on recorded outcomes: what is learned decides live as it does in a replay.

    gain        Gain: is the strong rung worth it? From the question alone, before any attempt
    nearest     Nearest: the same, by what happened on the most similar questions
    answers     AnswerInView: the same, after the cheap rungs have answered
    cascade     CascadeRouting: any rung next, by what it is expected to add and what it costs
    bandit      Bandit: learns while it is used, and says how likely each choice was
    guarantee   Guaranteed: a threshold whose loss against the strong rung is bounded, with a stated confidence

Each is a frozen policy with `fit(outcomes, …)`, which takes any table that is like `table.Table`, and is saved as JSON.
Fitting needs numpy; deciding doesn't. A model is fitted on the very views and attempts that it will decide on. The
table from tiers to rungs isn't fitted: `escalade.agents.routing` has it.
"""
