"""The study's tables and picture, from the evaluations of its cells. Nothing is trained or played here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.study_tuning import tuning_table
from eval.cross_play import cross_play_grids
from eval.grid import grid_markdown
from eval.groups import Group
from eval.oracle import compare_with_oracle, draw, oracle_table
from eval.plots import study_figure
from eval.stats import ArmDifference, Estimate, Summary, compare_arms, mean_interval, seed_interval, summarise
from eval.table import difference
from llm_sra.evaluation.results import Results, merge, read_results
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.runs import read_metrics
from llm_sra.trainer.speed import generated_tokens

ARMS = ("ippo", "srpo")
TITLES = {"end": "At the end of training", "best": "Checkpoints chosen by the worst partner of the dev roster"}


TUNING = (
    "Finished trials of `make study TUNE=1`, and what was tried by hand before. The score is the mean share solved "
    "with the development partners at the end of training, one seed."
)

# What of the test roster is like something that an arm met in training.
RESEMBLES = {
    "srpo": "lazy, sloppy, saboteur (what its adversary becomes)",
    "srpo_sampled": "lazy (rested), sloppy and saboteur (corrupted)",
    "adversary": "saboteur (what its adversary becomes)",
    "best_response": "lazy (resting half), sloppy and saboteur (corrupted half)",
    "fcp": "other-ippo (agents of other seeds)",
    "mep": "other-ippo (teams that were trained by themselves)",
}


@dataclass(frozen=True)
class Spent:
    """What a training cost: tokens that its policies generated, and seconds of its steps on a shared machine."""

    tokens: float
    seconds: float


def write_report(out: Path, arms: Sequence[str], baselines: Sequence[str] = (), sweep: bool = False) -> str:
    """Write `study.md` and `study.png`.

    Args:
        out: The study's folder; `eval/` holds a folder for each part of it.
        arms: Names of the runs of both arms.
        baselines: Names of the runs of the other arms.
        sweep: Whether SRPO was trained over τ and ε.

    Returns:
        The Markdown.
    """
    parts = ["# Study: the worksheet, both arms over seeds, and SRPO over τ and ε"]
    for which, title in TITLES.items():
        results = _results(out, [which])
        parts.append(f"## {title}\n\n{arm_tables(results)}")
        if which == "end":
            study_figure(results, {arm: by_seed(results, arm) for arm in ARMS}, out / "study.png")
    if baselines:
        results = _results(out, ["end", "baselines"])
        names = dict.fromkeys(name.rsplit("-seed", 1)[0] for name in (*arms, *baselines))
        parts.append(f"## All arms, at the end of training\n\n{arms_table(results, list(names), out)}")
    parts.append(f"## Tuning trials\n\n{TUNING}\n\n{tuning_table(out)}".rstrip())
    if sweep:
        parts.append(f"## SRPO over τ and ε, seed 1\n\n{sweep_table(_results(out, ['shared', 'sweep']))}")
    text = "\n\n".join(parts) + "\n"
    (out / "study.md").write_text(text, encoding="utf-8")
    return text


def write_games(out: Path, names: Sequence[str]) -> str:
    """Write `games.md`, the trained agents beside the exact equilibria, and `games.png`, those of the effort game."""
    compared = [compare_with_oracle(out / name) for name in names]
    draw(compared, out / "games.png")
    text = f"# Matrix games against theory\n\n{oracle_table(compared)}\n"
    (out / "games.md").write_text(text, encoding="utf-8")
    return text


def write_task(out: Path, task: str) -> str:
    """Write `study.md` of a task: what its trainings cost, how they compare, and what its agents did in self-play.

    Args:
        out: The task's folder of the study, with `eval/`.
        task: Its name.

    Returns:
        The Markdown.
    """
    results = read_results(out / "eval")
    [decoding] = results.decodings
    runs = {arm: by_seed(results, arm) for arm in dict.fromkeys(record.arm for record in results.records)}
    rows = []
    for arm in [arm for arm in runs if arm != "ippo"]:
        for name, partners in (("strangers", None), ("self-play", [SELF_PLAY])):
            difference = compare_arms(results, runs["ippo"], runs[arm], decoding, partners)
            rows.append(_difference_row(f"{arm} - ippo, {name}", difference))
    head = f"| {results.measure} | decoding | difference | problems and seeds | seeds alone | each seed |"
    groups = [Group(arm, arm, seeds) for arm, seeds in runs.items()]
    parts = [
        f"# Study: {task}",
        "\n".join([head, "|---" * 6 + "|", *rows]),
        grid_markdown(cross_play_grids(results, groups)[0]),
        _own_play(results, runs),
        _with_strangers(results, runs, decoding),
        _costs(runs, out),
    ]
    text = "\n\n".join(parts) + "\n"
    (out / "study.md").write_text(text, encoding="utf-8")
    return text


def _own_play(results: Results, runs: Mapping[str, Mapping[int, str]]) -> str:
    """What the agents did in self-play, each seed apart: efforts, returns and all that the task counts."""
    records = [r for r in results.records if r.partner == SELF_PLAY]
    rows = [f"| in self-play | {' | '.join(runs)} |", "|---" * (1 + len(runs)) + "|"]
    found: dict[str, dict[tuple[str, str], float]] = {}
    for r in records:
        numbers = {f"effort, {r.seat}": r.effort_own, f"own return, {r.seat}": r.own_return, **r.metrics}
        numbers = {name: value for name, value in numbers.items() if not name.startswith(("reply_chars/", "surprise/"))}
        for name, value in {results.measure: r.solve_rate, **numbers}.items():
            found.setdefault(name, {})[r.arm, r.run] = value
    for name, values in found.items():
        each = [_each([values.get((arm, run), float("nan")) for run in runs[arm].values()]) for arm in runs]
        rows.append(f"| {name} | {' | '.join(each)} |")
    return "\n".join(rows)


def _with_strangers(results: Results, runs: Mapping[str, Mapping[int, str]], decoding: str) -> str:
    """What the agents reached and were paid with each stranger and with all: means over seats, each seed apart.

    Last, by how much more than IPPO's they were paid, with Student's t interval over the seeds.
    """
    rows = [f"| with strangers | {' | '.join(runs)} |", "|---" * (1 + len(runs)) + "|"]
    paid: dict[str, list[float]] = {}
    for name, partners in (*((partner, [partner]) for partner in results.partners), ("all", results.partners)):
        met = {
            arm: [
                [results.record(run, seat, partner, decoding) for seat in results.seats for partner in partners]
                for run in seeds.values()
            ]
            for arm, seeds in runs.items()
        }
        paid = {arm: [fmean(r.own_return for r in records) for records in each] for arm, each in met.items()}
        reached = {arm: [fmean(r.solve_rate for r in records) for records in each] for arm, each in met.items()}
        for what, values in ((results.measure, reached), ("own return", paid)):
            rows.append(f"| {name}: {what} | {' | '.join(_each(values[arm]) for arm in runs)} |")
    if len(paid["ippo"]) > 1:
        more = ("-" if arm == "ippo" else difference(seed_interval(paid["ippo"], paid[arm])) for arm in runs)
        rows.append(f"| all: own return - ippo's | {' | '.join(more)} |")
    return "\n".join(rows)


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _costs(runs: Mapping[str, Mapping[int, str]], out: Path) -> str:
    """Seconds per step of each arm, and the shares of generate, score, train and sync in them."""
    rows = ["| arm | steps | s per step | generate | score | train | sync |", "|---" * 7 + "|"]
    for arm, seeds in runs.items():
        steps = [line for seed in seeds for line in read_metrics(out / f"{arm}-seed{seed}" / "metrics.jsonl")]
        steps = [line for line in steps if "time/train" in line]
        parts = [fmean(line[f"time/{part}"] for line in steps) for part in ("generate", "score", "train", "sync")]
        shares = " | ".join(f"{part / sum(parts):.0%}" for part in parts)
        rows.append(f"| {arm} | {len(steps) // len(seeds)} | {sum(parts):.1f} | {shares} |")
    return "\n".join(rows)


def arm_tables(results: Results) -> str:
    """The headline with its intervals, then every seed of both arms."""
    runs = {arm: by_seed(results, arm) for arm in ARMS}
    lines = []
    for decoding in results.decodings:
        for name, partners in (("mean over seats and strangers", None), ("self-play", [SELF_PLAY]), ("lazy", ["lazy"])):
            difference = compare_arms(results, runs["ippo"], runs["srpo"], decoding, partners)
            lines.append(_difference_row(name, difference))
    head = (
        "SRPO - IPPO, paired by seed and problem (95 % intervals: problems and seeds resampled; Student's t over "
        "seeds):\n\n| solve rate | decoding | difference | problems and seeds | seeds alone | each seed |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *lines]) + "\n\n" + seed_table(results)


def arms_table(results: Results, arms: Sequence[str], out: Path) -> str:
    """One row per arm: how it does with itself and with strangers, and how it differs from IPPO and from SRPO.

    Args:
        results: Results of all arms' runs.
        arms: Their names.
        out: The study's folder, for what the trainings cost.
    """
    tables = []
    for decoding in results.decodings:
        rows = [_arm_row(results, arm, decoding, out) for arm in arms]
        tables.append(f"{decoding}:\n\n" + "\n".join([_ARMS_HEAD, *rows]))
    alike = "\n".join(f"- {arm}: {what}" for arm, what in RESEMBLES.items() if arm in arms)
    return (
        "Means over seeds and both seats; `worst` is the mean over seats of the worst stranger, `spread` the best - "
        "the worst, `reliance` self-play - `lazy`. Differences of the mean over strangers are paired by seed and "
        "problem (95 %, both resampled). `fcp` comes after its pool's trainings, which are not counted.\n\n"
        + "\n\n".join(tables)
        + f"\n\nStrangers of the test roster that are like something that the arm met in training:\n\n{alike}"
    )


_ARMS_HEAD = (
    "| arm | seeds | self-play | strangers | worst | spread | reliance | effort | - ippo | - srpo | M tokens "
    "| s |\n" + "|---" * 12 + "|"
)


def _arm_row(results: Results, arm: str, decoding: str, out: Path) -> str:
    runs = by_seed(results, arm)
    found = summarise(results.records, results.idle)
    summaries = [s for s in found if s.decoding == decoding and s.run in runs.values()]

    def mean(numbers: Sequence[float | None]) -> str:
        known = [number for number in numbers if number is not None]
        return f"{fmean(known):.2f}" if known else "-"

    cost = [spent(out / f"{arm}-seed{seed}") for seed in runs]
    cells = [
        arm,
        str(len(runs)),
        mean([s.self_play for s in summaries]),
        mean([s.mean for s in summaries]),
        mean([s.worst for s in summaries]),
        mean([s.spread for s in summaries]),
        mean([s.reliance for s in summaries]),
        mean([s.effort for s in summaries]),
        *(_less(results, runs, by_seed(results, other), decoding) if other != arm else "" for other in ARMS),
        f"{fmean(c.tokens for c in cost) / 1e6:.2f}",
        f"{fmean(c.seconds for c in cost):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _less(results: Results, runs: Mapping[int, str], other: Mapping[int, str], decoding: str) -> str:
    """An arm's difference from another over the seeds that both have."""
    both = sorted(set(runs) & set(other))
    if not both:
        return "-"
    first, later = ({seed: each[seed] for seed in both} for each in (other, runs))
    return _estimate(compare_arms(results, first, later, decoding).problems_and_seeds, sign="+")


def spent(run: Path) -> Spent:
    """What a training cost, from its log."""
    tokens = seconds = 0.0
    for line in read_metrics(run / "metrics.jsonl"):
        seconds += sum(value for name, value in line.items() if name.startswith("time/"))
        tokens += generated_tokens(line)
    return Spent(tokens, seconds)


def seed_table(results: Results) -> str:
    """Every run: self-play, strangers, the lazy partner, effort; seats apart by a slash."""
    rows = []
    for decoding in results.decodings:
        summaries = [s for s in summarise(results.records) if s.decoding == decoding]
        for run in results.runs:
            rows.append(_run_row(run, [s for s in summaries if s.run == run]))
        for arm in ARMS:
            worse = [
                min(s.partners["lazy"] for s in summaries if s.run == run) for run in by_seed(results, arm).values()
            ]
            own = [s.self_play for s in summaries if s.arm == arm]
            rows.append(
                f"| **{arm}, mean** | {decoding} | {sum(own) / len(own):.2f} | | | "
                f"worse seat {_estimate(mean_interval(worse).within(0, 1))} | | | |"
            )
    return "\n".join([_HEAD, *rows])


def sweep_table(results: Results) -> str:
    """One row per run of the sweep, sampled decoding."""
    summaries = [s for s in summarise(results.records) if s.decoding == "sampled"]
    return "\n".join([_HEAD, *(_run_row(run, [s for s in summaries if s.run == run]) for run in results.runs)])


_HEAD = (
    "| run | decoding | self-play | mean of strangers | worst | lazy | late | saboteur | effort in self-play |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def _run_row(run: str, seats: Sequence[Summary]) -> str:
    def both(numbers: Sequence[float | None]) -> str:
        return " / ".join("-" if number is None else f"{number:.2f}" for number in numbers)

    cells = [
        run.rsplit("/", 1)[-1],
        seats[0].decoding,
        f"{seats[0].self_play:.2f}",
        both([s.mean for s in seats]),
        both([s.worst for s in seats]),
        *(both([s.partners.get(name) for s in seats]) for name in ("lazy", "late", "saboteur")),
        both([s.effort for s in seats]),
    ]
    return "| " + " | ".join(cells) + " |"


def _difference_row(name: str, difference: ArmDifference) -> str:
    each = ", ".join(f"{value:+.2f}" for value in difference.per_seed)
    both = difference.problems_and_seeds
    seeds = _estimate(difference.over_seeds, sign="+") if difference.over_seeds else "-"
    return f"| {name} | {difference.decoding} | {both.value:+.2f} | {_estimate(both, sign='+')} | {seeds} | {each} |"


def _estimate(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.2f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def _results(out: Path, parts: Sequence[str]) -> Results:
    return merge([read_results(out / "eval" / part) for part in parts])


def by_seed(results: Results, arm: str) -> dict[int, str]:
    """Run of each seed: run names end in `<arm>-seed<number>`, perhaps with a checkpoint behind it."""
    found = {}
    for run in results.runs:
        name = run.rsplit("/", 1)[-1].split("@")[0]
        if name.startswith(f"{arm}-seed"):
            found[int(name.removeprefix(f"{arm}-seed"))] = run
    return found
