"""What may be said from so many questions: intervals, tests, and how many questions it would take.

    units       rows of one question are one, questions of one group aren't independent
    clustered   means and paired differences with standard errors by group
    bootstrap   intervals of anything else: curves, ratios, membership of the frontier
    intervals   all of them for one comparison, as a table
    sequential  intervals that hold at every moment, however often one looks
    censored    outcomes that a cascade never asked for, and which policies can be judged without them

`evals.statistics` has what is common to all: quantiles, Wilson, McNemar, Holm, verdicts.
"""
