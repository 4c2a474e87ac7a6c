"""How we know: outcomes, replay, statistics and the report.

    outcomes, loaders   what each rung gave for each question, and where it comes from
    compare             policies against a baseline on paired data
    tuning, frontier    calibrators and thresholds fitted and judged; programs by quality and cost

Imports every room below.
"""
