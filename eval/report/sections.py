"""What a report says, in order: sections of sentences, tables and pictures. `page` and `markdown` write them.

A section without data is left out; one line says what it needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.contributions import contribution_grids
from eval.cross_play import seeds_grid
from eval.grid import Grid
from eval.groups import PLACE, Group, differing, shown_value
from eval.kinds import kinds_grid
from eval.proximity import MEAN, Column, known, mean_nearness, proximity_grid
from eval.report import figures
from eval.report.budget import budget_grids
from eval.report.curves import training_pictures
from eval.report.figures import Picture
from eval.report.gather import Gathered
from eval.report.headline import (
    STRANGERS,
    Comparison,
    arms_sentence,
    compare,
    comparisons,
    cross_play_sentence,
    main_pairs,
    partners_sentence,
    rest_sentence,
    sentence,
    work,
    work_sentence,
)
from eval.report.robustness import distances, distances_grid, perturbed_grid, series
from eval.single import single_grids
from eval.stats import ArmDifference, StatsError, summarise
from eval.table import NOTHING, difference, name_of, with_interval
from llm_sra.evaluation.results import ResultsError, labels
from llm_sra.evaluation.single.shown import TITLE
from llm_sra.evaluation.single.shown import sentence as single_sentence
from llm_sra.partners.rosters import SELF_PLAY

HEADLINE = "What came out"


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: Name that links use.
        title: Its heading.
        lead: What is read first, above the pictures.
        sentences: Paragraphs; above the pictures where there is no lead.
        pictures: Pictures.
        tables: Tables below the pictures.
        missing: What it needs, if it has no data; then all else is empty.
        folded: Whether the page folds its tables until a reader opens them.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    lead: str | None = None
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Grid, ...] = ()
    missing: str | None = None
    folded: bool = False


def sections(gathered: Gathered) -> tuple[Section, ...]:
    """All sections, those without data included."""
    builders: Sequence[Callable[[Gathered], Section]] = (
        headline_section, _partners, _proximity, _cross_play, _training, _robustness, _compared, _contributions,
        _single,
        _everything,
    )  # fmt: skip
    return tuple(build(gathered) for build in builders)


def headline_section(gathered: Gathered) -> Section:
    """Who rests and what follows, in a sentence and a picture; then the differences between settings."""
    works = work(gathered, gathered.decoding)
    seats = len(gathered.results.seats)
    pairs = main_pairs(gathered)
    if not pairs:
        alone = _alone(gathered)
        alone += [work_sentence(works, seats)] if works else []
        return _led(alone, gathered, [_effort(gathered)])
    found: list[Comparison] = []
    reasons: list[str] = []
    for decoding in sorted(gathered.results.decodings, key=lambda name: name != gathered.decoding):
        made, why = comparisons(gathered, decoding)
        found += made
        reasons += [reason for reason in why if reason not in reasons]
    tables = [_differences(found, gathered.results.measure)] if found else []
    crossed = cross_play_sentence(gathered, [group for pair in pairs for group in pair])
    if crossed:
        tables.append(seeds_grid(gathered.results, gathered.known, gathered.decoding))
    of_pairs = [c for c in found if (c.first, c.later) in pairs and c.difference.decoding == gathered.decoding]
    named = [w for w in works if any(w.label == group.label for pair in pairs for group in pair)]
    stories = [rest_sentence(gathered, pair, named) for pair in pairs]
    said = [text for text in (*stories, *map(sentence, of_pairs), crossed) if text]
    if named and None in stories:
        said.append(work_sentence(named, seats))
    said.append(arms_sentence([run for run in gathered.runs if run.name in gathered.results.runs]))
    said += [f"Not compared: {reason}." for reason in reasons]
    return _led(said, gathered, [*tables, _effort(gathered)])


def _led(said: Sequence[str], gathered: Gathered, tables: Sequence[Grid]) -> Section:
    """The section whose first sentence and picture tell the story."""
    lead, *rest = said
    return Section("headline", HEADLINE, tuple(rest), lead, _overview(gathered), tuple(tables))


def _overview(gathered: Gathered) -> tuple[Picture, ...]:
    """What was solved with each partner: of single runs with their effort in training, of settings over their seeds."""
    shown = figures.overview(gathered)
    return () if shown is None else (shown,)


def _alone(gathered: Gathered) -> list[str]:
    """What a single setting solves."""
    said = []
    for s in summarise(gathered.results.records):
        if s.decoding == gathered.decoding:
            strangers = (
                "" if s.mean is None else f"; with partners {s.mean:.2f} on average, {s.worst:.2f} with the worst"
            )
            who = f"{name_of(gathered.results, s.run)} in seat {s.seat}"
            said.append(f"{who}: {gathered.results.measure} {s.self_play:.2f} in self-play{strangers} ({s.decoding}).")
    return [*said, "With a second setting, the report also shows the difference and its interval."]


def _differences(found: Sequence[Comparison], measure: str) -> Grid:
    several = any(c.difference.over_seeds is not None for c in found)
    rows = tuple(
        (
            f"{c.later.label} - {c.first.label}",
            c.what,
            c.difference.decoding,
            *_intervals(c.difference, several),
            *([", ".join(f"{value:+.2f}" for value in c.difference.per_seed) if c.paired else NOTHING] * several),
        )
        for c in found
    )
    return Grid(
        f"{measure.capitalize()}: differences between settings, with 95 % intervals",
        ("settings", "with", "decoding", *_ways(several), *["each seed"] * several),
        (rows,),
        (f"{STRANGERS}: mean over seats and the roster's partners. Paired by seed and problem.",),
    )


def _ways(several: bool) -> tuple[str, ...]:
    """How intervals were made; over seeds if there are several."""
    return ("problems and seeds resampled", "Student's t over seeds") if several else ("problems resampled",)


def _intervals(found: ArmDifference, several: bool) -> tuple[str, ...]:
    """A difference for each of `_ways`."""
    return (difference(found.problems_and_seeds), *[difference(found.over_seeds)] * several)


def _effort(gathered: Gathered) -> Grid:
    seats = gathered.results.seats
    rows = []
    for run in gathered.results.runs:
        own = {
            s.seat: s for s in summarise(gathered.results.records) if s.run == run and s.decoding == gathered.decoding
        }
        share = min((s.contribution_share for s in own.values() if s.contribution_share is not None), default=None)
        efforts = [f"{own[seat].effort:.2f}" for seat in seats]
        rows.append((name_of(gathered.results, run), *efforts, NOTHING if share is None else f"{share:.2f}"))
    return Grid(
        f"Effort in self-play, {gathered.decoding}",
        ("run", *seats, "share of the seat that worked least"),
        (tuple(rows),),
        (f"Effort is in the task's unit, per episode; an even share is {1 / len(seats):.2f}.",),
    )


def _compared(gathered: Gathered) -> Section:
    runs, results = gathered.runs, gathered.results
    told = ("task", "model_name_or_path", "max_steps")
    keys = [key for key in told if len({str(run.config.get(key)) for run in runs}) == 1]
    same = [(key, shown_value(runs[0], key)) for key in keys if key in runs[0].config]
    problems = sorted({record.n for record in results.records})
    same += [(f"evaluation: {key}", str(value)) for key, value in results.settings.items()]
    same += [
        ("evaluation: problems with each partner", " or ".join(map(str, problems))),
        ("evaluation: partners", ", ".join(results.partners) or NOTHING),
    ]
    tables = [Grid("The same for all", ("what", "value"), (tuple(same),))]
    tables += budget_grids(gathered)
    said = [f"{_count(len(runs), 'run')} in {_count(len(gathered.groups), 'setting')}: {_listed(gathered)}."]
    if changed := differing(runs):
        tables.append(_config(gathered, changed))
    elif len(runs) > 1:
        said.append("Their configurations do not differ.")
    said += [f"Not played: {name}: {reason}" for name, reason in results.missing.items()]
    if gathered.unevaluated:
        said.append(f"In no evaluation, so only their training is shown: {', '.join(gathered.unevaluated)}.")
    return Section("compared", "What was compared", tuple(said), tables=tuple(tables), folded=True)


def _listed(gathered: Gathered) -> str:
    return ", ".join(f"{group.label} ({_count(len(group.runs), 'seed')})" for group in gathered.groups)


def _config(gathered: Gathered, keys: Sequence[str]) -> Grid:
    """Only the keys that differ; whichever there are more of, keys or groups, are the rows."""
    runs = gathered.runs
    names = _short(gathered)
    table = [[shown_value(run, key) for key in keys] for run in runs]
    note = f"Left out, because they only say where a run is stored: {', '.join(sorted(PLACE))}."
    if len(keys) <= len(runs):
        header, rows = ("run", *keys), tuple((names[r.name], *row) for r, row in zip(runs, table, strict=True))
    else:
        header = ("setting", *(names[run.name] for run in runs))
        rows = tuple((key, *column) for key, column in zip(keys, zip(*table, strict=True), strict=True))
    return Grid("Differences between the runs' configurations", header, (rows,), (note,))


def _short(gathered: Gathered) -> dict[str, str]:
    return labels([run.name for run in gathered.runs])


def _cross_play(gathered: Gathered) -> Section:
    heat = figures.heat_map(gathered, gathered.decoding)
    return Section("matrix", "Every agent with every partner", (heat.caption,), pictures=(heat,))


def _contributions(gathered: Gathered) -> Section:
    title = "Who contributes"
    found = contribution_grids(gathered.results)
    if not found:
        return Section("contributions", title, missing="an evaluation with --contributions")
    return Section("contributions", title, tables=tuple(found), folded=True)


def _partners(gathered: Gathered) -> Section:
    results, decoding = gathered.results, gathered.decoding
    if not results.partners:
        return Section("partners", "Partners, ranked", missing="evaluate with a roster that names partners")
    mean = {name: results.rate(results.runs, results.seats, [name], decoding) for name in results.partners}
    ranked = sorted(results.partners, key=lambda name: mean[name])
    settings, there = gathered.known, known(results, decoding)
    pairs = main_pairs(gathered)
    several = any(len(set(gathered.evaluated(first)) & set(gathered.evaluated(later))) > 1 for first, later in pairs)
    apart = [f"{later.label} - {first.label}, {way}" for first, later in pairs for way in _ways(several)]
    header = ["partner", *(group.label for group in settings), *apart]
    rows = []
    for partner in ranked:
        rates = [gathered.rate(group, partner) for group in settings]
        differences = [cell for pair in pairs for cell in _with_partner(gathered, pair, partner, several)]
        name = there.mark(partner) if there and partner in there.partners else partner
        rows.append((name, *(f"{rate:.2f}" for rate in rates), *differences))
    notes = ["Mean over runs and seats; the hardest partner first."]
    if there and there.hopeless.any():
        notes.append("hopeless: even a best response earns next to nothing with it.")
    if pairs:
        notes.append(f"Each interval covers its own partner alone: of {len(ranked)}, one may miss by chance.")
    table = Grid(
        f"{results.measure.capitalize()} with each partner, {decoding}", tuple(header), (tuple(rows),), tuple(notes)
    )
    kinds = kinds_grid(results, decoding, _columns(gathered))
    tables = (table, kinds) if kinds else (table,)
    picture = figures.ranking(gathered, decoding, ranked)
    return Section("partners", "Partners, ranked", tables=tables, pictures=(picture,))


def _columns(gathered: Gathered) -> list[Column]:
    return [Column(group.label, tuple(gathered.evaluated(group).values())) for group in gathered.known]


def _proximity(gathered: Gathered) -> Section:
    results, decoding = gathered.results, gathered.decoding
    title = "How near to a best response"
    columns = _columns(gathered)
    table, there = proximity_grid(results, decoding, columns, shares=True), known(results, decoding)
    if table is None or there is None:
        asked = "best responses to the partners: llm-sra best-response --roster ROSTER, then the evaluation again"
        return Section("proximity", title, missing=asked)
    told = []
    for column in columns:
        found = mean_nearness(results, decoding, column.runs, there, hopeful=True)
        if found is not None:
            told.append(f"{column.label} {with_interval(found.value, found)}")
    said = [f"Of what a best response to each partner earns, agents earn ({MEAN}, {decoding}): {'; '.join(told)}."]
    marked = [there.mark(partner) for partner in there.partners if there.mark(partner) != partner]
    said += [f"Next to nothing can be earned with: {', '.join(marked)}."] * bool(marked)
    return Section("proximity", title, tuple(said[not told :]), tables=(table,))


def _with_partner(gathered: Gathered, pair: tuple[Group, Group], partner: str, several: bool) -> tuple[str, ...]:
    try:
        made = compare(gathered, *pair, gathered.decoding, [partner], partner)
    except (StatsError, ResultsError):
        return tuple(NOTHING for _ in _ways(several))  # the headline says why
    return _intervals(made.difference, several)


def _training(gathered: Gathered) -> Section:
    pictures = training_pictures(gathered)
    title = "Training"
    if not pictures:
        return Section("training", title, missing="metrics.jsonl in the run folders, as a training writes it")
    said = [
        "Thin: each run; thick: the mean over a setting's runs, smoothed.",
        f"Each agent with its partner of the training, so returns and effort of different arms do not compare: "
        f"{partners_sentence(gathered.runs)}",
        "Where one seat rests in some runs and the other in others, only the thin lines show it.",
    ]
    return Section("training", title, tuple(said), pictures=tuple(pictures))


def _robustness(gathered: Gathered) -> Section:
    title = "Robustness"
    far = distances(gathered.results)
    found = [] if gathered.roster is None else series(gathered.roster, gathered.results.partners, gathered.decoding)
    if not far and not found:
        asked = "--roster ROSTER, the one of the evaluation, if one partner is perturbed there with several "
        asked += "probabilities or at several temperatures; or an evaluation with --divergence"
        return Section("robustness", title, missing=asked)
    pictures = [figures.robustness(gathered, i, curve, gathered.decoding) for i, curve in enumerate(found)]
    tables = [perturbed_grid(gathered, found)] if found else []
    if far:
        pictures.append(figures.distance(gathered, far))
        tables.append(distances_grid(gathered, far))
    return Section("robustness", title, tables=tuple(tables), pictures=tuple(pictures))


def _single(gathered: Gathered) -> Section:
    """Tasks of lm-eval on the agents alone, and on their base."""
    if not gathered.singles:
        return Section("single", TITLE, missing="an evaluation with --single TASK, a task of lm-eval")
    said = tuple(single_sentence(single) for single in gathered.singles)
    return Section("single", TITLE, said, tables=tuple(g for single in gathered.singles for g in single_grids(single)))


def _everything(gathered: Gathered) -> Section:
    results = gathered.results
    rows = tuple(
        (
            name_of(results, r.run), r.seat, r.partner, r.decoding, str(r.n), f"{r.solve_rate:.2f}",
            f"[{r.solve_rate_ci95[0]:.2f}, {r.solve_rate_ci95[1]:.2f}]", f"{r.team_reward:.2f}", f"{r.own_return:.2f}",
            f"{r.effort_own:.2f}", f"{r.effort_partner:.2f}",
        )
        for r in results.records
    )  # fmt: skip
    header = ("run", "seat", "partner", "decoding", "problems", "share", f"95 % interval ({results.interval_name})",
              "team reward", "own return", "own effort", "partner's effort")  # fmt: skip
    own = (SELF_PLAY in {r.partner for r in results.records}) * f" {SELF_PLAY}: the run's own partner."
    grid = Grid(
        "Every agent with every partner", header, (rows,), (f"Means per episode; share: {results.measure}.{own}",)
    )
    return Section("everything", "Everything", tables=(grid,), folded=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
