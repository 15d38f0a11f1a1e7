"""Numbers of an evaluation: intervals, comparisons between runs, arms and partners, and planning.

`arms` reads results; the other modules are pure functions of arrays. `intervals` and `resampling` say how sure a
number is; `aggregate`, `crossplay`, `diversity`, `partners`, `proximity` and `shares` compute numbers; `power` plans.
All intervals are two-sided.
"""

from eval.stats.aggregate import interquartile_mean, probability_of_improvement
from eval.stats.arms import (
    ArmDifference,
    RunDifference,
    Summary,
    compare_arms,
    compare_runs,
    summarise,
)
from eval.stats.crossplay import CrossPlay, cross_play
from eval.stats.diversity import effective_number, most_diverse, similarity
from eval.stats.intervals import LEVEL, Estimate, StatsError, mean_interval, seed_interval, wilson
from eval.stats.partners import (
    PartnerSpread,
    WorstPartner,
    partner_spread,
    worst_partner,
)
from eval.stats.power import discordance, power_paired, problems_paired, problems_unpaired, seeds_needed
from eval.stats.proximity import hopeless, proximity, proximity_mean
from eval.stats.resampling import (
    RESAMPLES,
    bootstrap,
    bootstrap_draws,
    hierarchical_bootstrap,
    paired_bootstrap,
    simultaneous_bootstrap,
    stratified_bootstrap,
)
from eval.stats.shares import contribution_shares, shapley

__all__ = [
    "LEVEL", "RESAMPLES", "ArmDifference", "CrossPlay", "Estimate", "PartnerSpread", "RunDifference", "StatsError",
    "Summary", "WorstPartner", "bootstrap", "bootstrap_draws", "compare_arms", "compare_runs", "contribution_shares",
    "cross_play", "discordance", "effective_number", "hierarchical_bootstrap", "hopeless", "interquartile_mean",
    "mean_interval", "most_diverse", "paired_bootstrap", "partner_spread", "power_paired", "probability_of_improvement",
    "problems_paired", "problems_unpaired", "proximity", "proximity_mean", "seed_interval", "seeds_needed", "shapley",
    "similarity", "simultaneous_bootstrap", "stratified_bootstrap", "summarise", "wilson", "worst_partner",
]  # fmt: skip
