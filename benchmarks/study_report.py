"""The study's tables and picture, from the evaluations of its cells. Nothing is trained or played here."""

from collections.abc import Sequence
from pathlib import Path

from eval.plots import study_figure
from eval.results import Results, merge, read_results
from eval.stats import ArmDifference, Estimate, Summary, compare_arms, mean_interval, summarise
from llm_sra.rosters import SELF_PLAY

ARMS = ("ippo", "srpo")
TITLES = {"end": "At the end of training", "best": "Checkpoints chosen by the worst partner of the dev roster"}


def write_report(out: Path, arms: Sequence[str], sweep: Sequence[str]) -> str:
    """Write `study.md` and `study.png`.

    Args:
        out: The study's folder.
        arms: Names of the runs of both arms.
        sweep: Names of the evaluations of the sweep.

    Returns:
        The Markdown.
    """
    parts = ["# Study: the worksheet, both arms over seeds, and SRPO over τ and ε"]
    for which, title in TITLES.items():
        results = _results(out, [f"{name}@{which}" for name in arms])
        parts.append(f"## {title}\n\n{arm_tables(results)}")
        if which == "end":
            study_figure(results, {arm: _by_seed(results, arm) for arm in ARMS}, out / "study.png")
    if sweep:
        parts.append(f"## SRPO over τ and ε, seed 1\n\n{sweep_table(_results(out, sweep))}")
    text = "\n\n".join(parts) + "\n"
    (out / "study.md").write_text(text, encoding="utf-8")
    return text


def arm_tables(results: Results) -> str:
    """The headline with its intervals, then every seed of both arms."""
    runs = {arm: _by_seed(results, arm) for arm in ARMS}
    lines = []
    for decoding in results.decodings:
        for name, partners in (("mean over seats and strangers", None), ("self-play", [SELF_PLAY]), ("lazy", ["lazy"])):
            difference = compare_arms(results, runs["ippo"], runs["srpo"], decoding, partners)
            lines.append(_difference_row(name, difference))
    head = (
        "SRPO less IPPO, paired by seed and problem (95 % intervals: problems and seeds resampled; Student's t over "
        "seeds):\n\n| solve rate | decoding | difference | problems and seeds | seeds alone | each seed |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *lines]) + "\n\n" + seed_table(results)


def seed_table(results: Results) -> str:
    """Every run: self-play, strangers, the lazy partner, effort; seats apart by a slash."""
    rows = []
    for decoding in results.decodings:
        summaries = [s for s in summarise(results.records) if s.decoding == decoding]
        for run in results.runs:
            rows.append(_run_row(run, [s for s in summaries if s.run == run]))
        for arm in ARMS:
            worse = [
                min(s.partners["lazy"] for s in summaries if s.run == run) for run in _by_seed(results, arm).values()
            ]
            own = [s.self_play for s in summaries if s.arm == arm]
            rows.append(
                f"| **{arm}, mean** | {decoding} | {sum(own) / len(own):.2f} | | | "
                f"worse seat {_estimate(mean_interval(worse))} | | | |"
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


def _results(out: Path, names: Sequence[str]) -> Results:
    return merge([read_results(out / "eval" / name) for name in names])


def _by_seed(results: Results, arm: str) -> dict[int, str]:
    """Run of each seed: run names end in `<arm>-seed<number>`, perhaps with a checkpoint behind it."""
    found = {}
    for run in results.runs:
        name = run.rsplit("/", 1)[-1].split("@")[0]
        if name.startswith(f"{arm}-seed"):
            found[int(name.removeprefix(f"{arm}-seed"))] = run
    return found
