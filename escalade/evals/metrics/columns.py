"""The columns of the metrics' tables: what each holds, with its formula and its source, in one sentence."""

from __future__ import annotations

from escalade.evals.metrics import confidence
from escalade.evals.tables import Column

POLICIES = (
    Column("name", "policy", "text", "The policy."),
    Column(
        "quality",
        "quality",
        "share",
        "Mean quality of its answers, a failed or missing one counting 0; 95 % interval by Wilson, or Student's t.",
        "quality_low",
        "quality_high",
    ),
    Column("usd", "$/1k", "usd", "List price of all its attempts, in dollars per 1,000 questions."),
    Column(
        "usd_spent",
        "$/1k spent",
        "usd",
        "What these attempts really took when they were recorded, nothing for those that a cache answered; $/1,000.",
    ),
    Column("p50", "p50", "seconds", "Median seconds to the answer, its attempts one after the other."),
    Column("p95", "p95", "seconds", "95th percentile of the seconds to the answer, its attempts one after the other."),
    Column("escalated", "escalated", "share", "Share of questions on which it tried a second rung."),
    Column("strong", "strongest", "share", "Share of questions on which it tried the strongest rung."),
    Column(
        "random",
        "random",
        "share",
        "Quality of a random mix at this cost: of the cheap (for less, the cheapest) and the strongest rung.",
    ),
    Column(
        "over_random",
        "over random",
        "points",
        "Quality less that of the random mix at the same cost, paired by question, with its 95 % interval.",
        "over_random_low",
        "over_random_high",
    ),
    Column(
        "over_hull",
        "at equal cost",
        "points",
        "Quality less that of the best random mix of any rungs which costs no more (the non-decreasing convex hull of "
        "the constants, RouterBench's zero router, arXiv 2403.12031); 95 % bootstrap interval.",
        "over_hull_low",
        "over_hull_high",
    ),
    Column(
        "cost_over_hull",
        "at equal quality",
        "ratio",
        "Cost over that of the cheapest random mix of any rungs which is as good (the same hull); 95 % bootstrap "
        "interval; unknown where none is as good.",
        "cost_over_hull_low",
        "cost_over_hull_high",
    ),
    Column(
        "oracle",
        "oracle at its cost",
        "share",
        "The most quality that hindsight could have had for its cost: the linear relaxation of a multiple-choice "
        "knapsack, which no policy of that cost passes.",
    ),
    Column(
        "ibc",
        "IBC",
        "figure",
        "Incremental benefit per cost, (P - P_small) / (C - C_small) for the cheap rung, in quality for each dollar "
        "more per 1,000 questions (AutoMix, arXiv 2310.12963).",
    ),
    Column(
        "delta_ibc",
        "Delta IBC",
        "figure",
        "IBC relative to that of always the strongest rung, less 1; above 0 a dollar buys more than on the line from "
        "the cheap to the strongest rung (AutoMix gives it in percent).",
    ),
    Column(
        "perf_gain",
        "PerfGain",
        "figure",
        "Quality relative to the best single rung's, less 1 (after LLMRouterBench, arXiv 2601.07206, of this setting).",
    ),
    Column(
        "cost_save",
        "CostSave",
        "figure",
        "Share of the best single rung's cost that is saved, only where the policy is at least as good (after "
        "LLMRouterBench, arXiv 2601.07206, of this setting).",
    ),
    Column(
        "pareto_distance",
        "ParetoDist",
        "figure",
        "Euclidean distance to the nearest policy on the frontier, cost and quality scaled to 0..1 by the policies "
        "compared (after LLMRouterBench; its scaling may differ).",
    ),
    Column(
        "arena",
        "arena",
        "figure",
        "RouterArena's score (1 + b) A C / (b A + C), b = 0.1, C = log2(200 / c) / log2(200 / 0.0044) for c dollars "
        "per 1,000 questions (arXiv 2510.00202).",
    ),
    Column(
        "optimal_selected",
        "Opt.Sel",
        "share",
        "Of the questions that some rung answers right, the share answered right by the cheapest such rung "
        "(RouterArena).",
    ),
    Column(
        "optimal_cost",
        "Opt.Cost",
        "share",
        "On the questions it answers right: what the cheapest right rungs cost, over what it paid (RouterArena).",
    ),
    Column(
        "optimal_accuracy",
        "Opt.Acc",
        "share",
        "Quality on the questions that some rung answers right (RouterArena).",
    ),
    Column(
        "usd_penalised",
        "$/1k with penalty",
        "usd",
        "List price and a penalty for each wrong or failed answer; the note under the table says how much.",
    ),
    Column(
        "retried_quality",
        "retried",
        "share",
        "Quality if each wrong or failed answer were noticed and asked again of the strongest rung.",
    ),
    Column("usd_retried", "$/1k retried", "usd", "List price with these second calls, noticing being free."),
)

CURVES = (
    Column("name", "score of", "text", "The policy whose score is swept."),
    Column("weak", "weak", "text", "The answer below the threshold."),
    Column("strong", "strong", "text", "The answer above it."),
    Column(
        "apgr",
        "APGR",
        "figure",
        "Mean share of the gap between weak and strong that is recovered, over all shares of strong calls "
        "(RouteLLM, arXiv 2406.18665, on the exact curve); 0.5 for a random score.",
    ),
    *(
        Column(f"cpt{x}", f"CPT{x}", "share", f"Least share of strong calls that recovers {x} % of the gap (RouteLLM).")
        for x in (50, 80, 95)
    ),
    Column(
        "aiq",
        "AIQ",
        "figure",
        "Mean quality on the non-decreasing convex hull of the family and the constants, from the cheap rung's cost to "
        "the strongest rung's, in dollars (RouterBench, arXiv 2403.12031, over the same range for all).",
    ),
    Column(
        "auc",
        "AUC in dollars",
        "figure",
        "Mean quality of the curve itself over the same range of dollars, constants leading to its ends.",
    ),
    Column(
        "at_cost",
        "at baseline's cost",
        "points",
        "Quality of the curve at the baseline's cost, less the baseline's; 95 % bootstrap interval.",
        "at_cost_low",
        "at_cost_high",
    ),
    Column(
        "at_quality",
        "at baseline's quality",
        "ratio",
        "First cost at which the curve has the baseline's quality, over the baseline's; 95 % bootstrap interval.",
        "at_quality_low",
        "at_quality_high",
    ),
)

CONFIDENCE = (
    Column("rung", "rung", "text", "The rung."),
    Column("n", "answers", "count", "Its good attempts that have a confidence."),
    Column(
        "without", "without", "count", "Attempts that failed or have no confidence; they are in none of the figures."
    ),
    Column("mean", "confidence", "share", "Mean confidence."),
    Column("quality", "quality", "share", "Mean quality of these answers; the confidence should be no higher."),
    Column(
        "auroc",
        "AUROC",
        "figure",
        "Chance that a right answer is surer than a wrong one, ties counting half (Hanley & McNeil 1982); 0.5 is none.",
    ),
    Column(
        "ece",
        "ECE",
        "figure",
        f"Expected calibration error over {confidence.BINS} bins of equal width (Naeini et al. 2015); biased upwards "
        "in small samples.",
    ),
    Column(
        "ece_mass",
        "ECE, equal mass",
        "figure",
        f"The same over {confidence.BINS} bins of equal mass, equal confidences together (Nguyen & O'Connor 2015).",
    ),
    Column(
        "brier",
        "Brier",
        "figure",
        "Mean squared difference of confidence and quality (Brier 1950) = reliability - resolution + uncertainty.",
    ),
    Column("reliability", "reliability", "figure", "Of the Brier score: what miscalibration costs (Murphy 1973)."),
    Column("resolution", "resolution", "figure", "Of the Brier score: what telling answers apart gains (Murphy 1973)."),
    Column("uncertainty", "uncertainty", "figure", "Of the Brier score: the variance of the quality (Murphy 1973)."),
    Column(
        "aurc",
        "AURC",
        "figure",
        "Mean risk over all coverages, the surest answers first (Geifman & El-Yaniv 2017, arXiv 1705.08500).",
    ),
    Column(
        "excess_aurc",
        "excess AURC",
        "figure",
        "What of it is more than in the best order, exact for these answers (after Geifman et al. 2019, arXiv "
        "1805.08206).",
    ),
)

RELIABILITY = (
    Column("rung", "rung", "text", "The rung."),
    Column("low", "from", "figure", "Least confidence in the bin."),
    Column("high", "to", "figure", "Greatest confidence in the bin."),
    Column("n", "answers", "count", "Answers in the bin; bins have equal mass, equal confidences stay together."),
    Column("confidence", "confidence", "share", "Mean confidence in the bin."),
    Column(
        "quality",
        "quality",
        "share",
        "Mean quality in the bin; 95 % interval by Wilson, or Student's t where quality isn't 0 or 1.",
        "quality_low",
        "quality_high",
    ),
)

BUDGETS = (
    Column("name", "policy", "text", "A policy with a budget."),
    Column("per_request", "per request", "usd", "Its budget for one question, in dollars."),
    Column("per_run", "per run", "usd", "Its budget for all questions together, in dollars."),
    Column("violations", "violations", "count", "Questions that cost more than their budget, and 1 if the run did."),
    Column("questions", "questions over", "count", "Questions that cost more than the budget for one."),
    Column("unanswered", "no money", "count", "Questions for which no rung fitted any more."),
    Column("overshoot", "overshoot", "usd", "By how much these questions were over, together, in dollars."),
    Column("worst", "worst", "usd", "By how much the worst of them was over, in dollars."),
    Column("worst_share", "worst, relative", "share", "The same, relative to the budget for one question."),
    Column("run_overshoot", "run over", "usd", "By how much the run cost more than its budget, in dollars."),
    Column("used", "used", "share", "What the run cost, relative to its budget."),
)

CATEGORIES = (
    Column("category", "category", "text", "The category of the question."),
    Column("policy", "policy", "text", "The policy."),
    Column("n", "questions", "count", "Questions of this category."),
    Column(
        "quality",
        "quality",
        "share",
        "Mean quality on them, with its 95 % interval by itself: of many categories some look odd by chance.",
        "quality_low",
        "quality_high",
    ),
    Column(
        "diff",
        "vs baseline",
        "points",
        "Mean paired difference to the baseline on them, with its 95 % interval by itself.",
        "diff_low",
        "diff_high",
    ),
    Column("usd", "$/1k", "usd", "List price in dollars per 1,000 questions of this category."),
)
