"""The headline in words: the difference between settings with its interval, and which agent did the work."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from eval.cross_play import between_runs
from eval.groups import Group
from eval.report.gather import Gathered
from eval.stats import ArmDifference, CrossPlay, Estimate, StatsError, compare_arms, cross_play, summarise
from eval.table import NO_SPREAD, difference
from llm_sra.evaluation.results import ResultsError
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.runs import Run

REFERENCE, PROPOSED = "ippo", "srpo"
STRANGERS = "all partners"
RESTS = 0.2  # an agent rests that does less than this part of an even share of the work
LIVE = "beside its live partner"
SAMPLED = "with sampled partners, averse to the risk over them"
TRAINED = {
    "ippo": LIVE,
    "srpo": "with an adversary in its partner's seat that lowers the agent's return and pays for straying from the "
    "live partner",
    "adversary": "with an adversary in its partner's seat that may do anything",
    "fcp": "with partners from a fixed pool",
    "mep": "as a population of teams that are paid for differing",
    "untrained": "not at all: the starting model",
}
BESIDE = {
    "ippo": "its live partner",
    "srpo": "an adversary",
    "adversary": "an adversary",
    "fcp": "partners from a fixed pool",
    "mep": "its team's live partner",
    "sampled": "sampled partners",
}


@dataclass(frozen=True)
class Comparison:
    """The difference `later - first` of two groups, with some partners.

    Attributes:
        first: The group that is subtracted.
        later: The other group.
        what: Name of this set of partners.
        difference: Difference of the share, averaged over seats and partners.
        paired: Whether runs were paired by seed; else one run of each group was compared, whatever its seed.
        partners: How many they are.
        measure: What is compared, in words: `share of problems solved`.
    """

    first: Group
    later: Group
    what: str
    difference: ArmDifference
    paired: bool
    partners: int
    measure: str


@dataclass(frozen=True)
class Work:
    """Who worked in self-play, in one group.

    Attributes:
        label: Label of the group.
        least: Share of all effort made by the seat that worked least, as a mean over the group's runs, in [0, 1].
        runs: How many runs made any effort.
    """

    label: str
    least: float
    runs: int


def reference(groups: Sequence[Group]) -> Group:
    """The group that others are compared with: IPPO if it is there, else the first."""
    return next((group for group in groups if group.arm == REFERENCE), groups[0])


def main_pairs(gathered: Gathered) -> list[tuple[Group, Group]]:
    """The two groups of the headline, for each base model; none with one group alone."""
    pairs = []
    for known in compared(gathered):
        first = reference(known)
        later = [group for group in known if group is not first]
        pairs.append((first, next((group for group in later if group.arm == PROPOSED), later[0])))
    return pairs


def compared(gathered: Gathered) -> list[list[Group]]:
    """Groups that are compared with each other: those of one base model. If each has a model of its own, all."""
    known = gathered.known
    by_model = [[group for group in known if group.model == model] for model in dict.fromkeys(g.model for g in known)]
    several = [groups for groups in by_model if len(groups) > 1]
    return several or ([list(known)] if len(known) > 1 else [])


def compare(
    gathered: Gathered, first: Group, later: Group, decoding: str, partners: Sequence[str], what: str
) -> Comparison:
    """`later - first` over the seeds that both have. Without a common seed: of one run each, paired by problem.

    Raises:
        StatsError: If they have no seed in common and several runs, or played different problems.
        ResultsError: If they did not meet the same partners.
    """
    a, b = gathered.evaluated(first), gathered.evaluated(later)
    shared = sorted(set(a) & set(b))
    if not shared and len(a) == len(b) == 1:
        a, b, shared = {0: next(iter(a.values()))}, {0: next(iter(b.values()))}, [0]
        paired = False
    else:
        paired = True
    if not shared:
        raise StatsError(f"{first.label} and {later.label} have no seed in common, so they are not paired")
    ours, theirs = {seed: b[seed] for seed in shared}, {seed: a[seed] for seed in shared}
    results = gathered.results
    difference = compare_arms(results, theirs, ours, decoding, partners)
    return Comparison(first, later, what, difference, paired, len(partners), results.measure)


def comparisons(gathered: Gathered, decoding: str) -> tuple[list[Comparison], list[str]]:
    """Each group's difference from the reference, with the partners and in self-play; and why some are impossible."""
    made: list[Comparison] = []
    reasons: list[str] = []
    kinds = {STRANGERS: gathered.results.partners, SELF_PLAY: (SELF_PLAY,)}
    sets = compared(gathered)
    alone = [group for group in gathered.known if sets and all(group not in known for known in sets)]
    reasons += [f"{group.label} is the only setting on its model" for group in alone]
    pairs = [(reference(known), group) for known in sets for group in known if group is not reference(known)]
    for first, later in pairs:
        for what, partners in kinds.items():
            if partners:
                try:
                    made.append(compare(gathered, first, later, decoding, partners, what))
                except (StatsError, ResultsError) as error:
                    reasons.append(str(error))
    return made, list(dict.fromkeys(reasons))


def sentence(comparison: Comparison) -> str:
    """A difference in plain words, with its intervals; a claim only where none of them contains 0."""
    d = comparison.difference
    e = d.problems_and_seeds
    later, first = said(comparison.later.label), said(comparison.first.label)
    whom = "in self-play" if comparison.what == SELF_PLAY else f"with the roster's {partners_told(comparison.partners)}"
    points = abs(e.value) * 100
    if not d.is_clear:
        opening = f"No clear difference between {later} and {first} in the {comparison.measure} {whom}"
    else:
        than = f"{'above' if e.value > 0 else 'below'} {first}'s {whom}"
        opening = f"{later}'s {comparison.measure} is {points:.0f} percentage points {than}"
    text = f"{opening}: {difference(e)}, {d.decoding}"
    if d.over_seeds is None:
        return f"{text} (95 % interval over problems; one seed, so nothing is said about others)."
    text += f" (95 % interval over problems and seeds; over the {len(d.seeds)} seeds alone {_ends(d.over_seeds)})."
    return text if d.is_clear else text + _how_many(d)


def _ends(estimate: Estimate) -> str:
    return f"[{estimate.low:+.2f}, {estimate.high:+.2f}]" if estimate.has_width else NO_SPREAD


def _how_many(unclear: ArmDifference) -> str:
    """How many seeds would show a difference as large as the one that was seen, if it is there."""
    if unclear.seeds_needed is None or unclear.seeds_needed <= len(unclear.seeds):
        return ""
    return f" If it is as large as that, about {unclear.seeds_needed} seeds would show it."


def work(gathered: Gathered, decoding: str) -> list[Work]:
    """Who worked in each group; a group without effort in self-play is left out."""
    by_run: dict[str, list[float]] = {}
    for summary in summarise(gathered.results.records):
        if summary.decoding == decoding and summary.contribution_share is not None:
            by_run.setdefault(summary.run, []).append(summary.contribution_share)
    made = []
    for group in gathered.groups:
        least = [min(by_run[run]) for run in gathered.evaluated(group).values() if run in by_run]
        if least:
            made.append(Work(group.label, fmean(least), len(least)))
    return made


def work_sentence(works: Sequence[Work], seats: int) -> str:
    """Who did the work and who did not, in plain words.

    Args:
        works: One for each group that is named, at least one.
        seats: Number of seats of the task.
    """
    parts = [
        f"in {said(w.label)} the seat that worked least did {w.least:.0%} of the work"
        + f" ({w.runs} runs)" * (w.runs > 1)
        for w in works
    ]
    return f"Who worked, in self-play: {'; '.join(parts)}. An even share is {1 / seats:.0%}."


def rest_sentence(gathered: Gathered, pair: Sequence[Group], works: Sequence[Work]) -> str | None:
    """The story in one sentence: who rests in self-play, and what each setting solves beside a partner that rests.

    Args:
        gathered: The results.
        pair: The settings that are told of.
        works: Who worked in each of them.

    Returns:
        None if the task has no effort, or nobody met its partner that rests.
    """
    results = gathered.results
    least, idle = {one.label: one.least for one in works}, results.idle
    if idle not in results.partners or any(group.label not in least for group in pair):
        return None
    reaches = "reaches" if results.settings.get("headline") else "solves"
    told = []
    for group in pair:
        worse = fmean(
            min(results.rate([run], [seat], [idle], gathered.decoding) for seat in results.seats)
            for run in gathered.evaluated(group).values()
        )
        share = least[group.label]
        who = "one agent rests (" if share < RESTS / len(results.seats) else "no agent rests (the least busy does "
        told.append(
            f"with {said(group.label)} {who}{share:.0%} of the work), and beside a partner that rests the worse of "
            f"the agents {reaches} {worse:.2f}"
        )
    text, seeds = "; ".join(told), max(len(gathered.evaluated(group)) for group in pair)
    over = f", means over {seeds} seeds" if seeds > 1 else ""
    return f"{text[0].upper()}{text[1:]} ({results.measure}, {gathered.decoding}{over})."


def cross_play_sentence(gathered: Gathered, groups: Sequence[Group]) -> str | None:
    """What agents solve with those of their own training and with those of other seeds; None without cross-play."""
    told = []
    for group in groups:
        found = among_seeds(gathered, group)
        if found and found.cross_play is not None:
            told.append(
                f"{said(group.label)} {found.self_play:.2f} in self-play and {found.cross_play:.2f} with other seeds"
            )
    if not told:
        return None
    return f"Cross-play, the {gathered.results.measure} ({gathered.decoding}): {'; '.join(told)}."


def among_seeds(gathered: Gathered, group: Group) -> CrossPlay | None:
    """Self-play and cross-play of one setting's seeds; None if they did not all meet."""
    results, runs = gathered.results, list(gathered.evaluated(group).values())
    if any(results.between(a, s, b, gathered.decoding) is None for a in runs for b in runs for s in results.seats):
        return None
    return cross_play(between_runs(results, runs, gathered.decoding))


def arms_sentence(runs: Sequence[Run]) -> str:
    """With whom the agents of each arm were trained, in plain words."""
    told = dict.fromkeys(f"{run.config['arm'].upper()} {_trained(run)}" for run in runs)
    return f"How agents were trained: {'; '.join(told)}."


def partners_sentence(runs: Sequence[Run]) -> str:
    """Who sat beside the agents of each arm in training, in a few words."""
    told = dict.fromkeys(
        f"{run.config['arm'].upper()} beside {BESIDE[_kind(run)]}" for run in runs if _kind(run) in BESIDE
    )
    return f"{'; '.join(told)}."


def _kind(run: Run) -> str:
    """The arm, by what it comes to: an SRPO without aversion to risk is an IPPO, one over sampled partners another."""
    if run.config["arm"] == PROPOSED and run.config.get("partners"):
        return "sampled"
    if run.config["arm"] == PROPOSED and run.config.get("tau") == 0:
        return "ippo"
    return str(run.config["arm"])


def _trained(run: Run) -> str:
    kind = _kind(run)
    return SAMPLED if kind == "sampled" else TRAINED[kind]


def partners_told(many: int) -> str:
    """How many partners there are, in words."""
    return f"{many} partner{'s' * (many != 1)}"


def said(label: str) -> str:
    """A label for a sentence: the arm in capitals."""
    arm, space, rest = label.partition(" ")
    return f"{arm.upper()}{space}{rest}"
