"""How we know: outcomes, replay, statistics and the report. Imports every room below.

What is known of the questions

    outcomes, prices    what each rung gave on each question, in columns; what that costs
    loaders, loading/   outcomes and examples from files, ours and others'; splits, duplicates and leaks
    record, studies/    asked live: one table, or a study with a directory that is resumed, confirmed, spread on workers

What a policy comes to

    replay, folds       a policy on recorded outcomes; what is fitted, on other folds than it is judged on
    lineup, baselines   the policies that have names; `learned` those that are fitted; `yardsticks` what comes along
    compare, evidence   policies against a baseline, paired; what each did on every question, which all else is made of
    curves, frontier    a threshold over all its values (APGR, CPT); programs by quality and cost
    tuning, calibrating, graph_tuning   thresholds, calibrators and the knobs of a pipeline, fitted and judged

What may be said of it

    statistics, inference/   intervals, tests, verdicts, the bootstrap, sequential intervals
    metrics/                 every further figure of a policy, a score or a rung
    checking/                self-checks, graders, judges, the gap to the oracle
    robustness/              typos, other data, another rung, other prices, a model that was swapped
    online/                  a policy in an application: logs, exploration, shadow, canary, estimates

How it is shown

    tables, check, findings  what the rooms found, made once: a room adds its builder to `findings.BUILDERS`
    report, reporting/       terminal, page, Markdown, JSON, CSV, Parquet, conditions for CI
"""
