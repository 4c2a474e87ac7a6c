"""What is reckoned from a comparison, each figure in one place, with its formula and its source.

    confidence  what a rung's confidence is worth: AUROC, calibration errors, Brier score, risk and coverage
    plane       quality against cost: hulls, AIQ, area under the curve in dollars, IBC, gain and saving, distance
    arena       RouterArena's score and its three figures of optimality
    hindsight   the best that any policy could have had for the same money
    matched     against random mixes at equal cost and at equal quality, with intervals
    spending    latency, escalations, money spent, budgets kept, what failures cost
    policies    one row for each policy, and for each in each category
    scores      one row for each score that is swept: the family of its thresholds
    findings    all of that as tables and sentences; `columns` says what each column holds

`evals.curves` has PGR, APGR and CPT.
"""
