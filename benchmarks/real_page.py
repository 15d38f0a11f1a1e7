"""The page of `make real`: tables, transcripts and perplexities, all from what was played. Nothing is trained here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.perplexity import BASE, TOKENS, of_adapters, read_text
from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.records import EvaluatedEpisode
from llm_sra.evaluation.results import read_episodes, read_results
from llm_sra.files import read_json_lines
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.runs import Run
from llm_sra.untrusted import one_line

LONGEST = 60  # characters of a reply that are quoted
RESTS = 0.5  # a seat that does less than this share of what the other one does
FACTS = (
    "max_steps", "problems_per_step", "num_generations", "tau", "entropy_coef", "learning_rate",
    "adversary_learning_rate", "temperature", "initial_adapter", "dtype",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What was trained and played on a task.

    Attributes:
        task: Its name.
        folder: Of its runs, with `eval/`.
        runs: Names of the run folders.
        tables: What came out, as Markdown: by `study_report.write_task`, or by the oracle.
    """

    task: str
    folder: Path
    runs: Sequence[str]
    tables: str


def write_page(page: Path, about: str, command: str, model: str, parts: Sequence[Part]) -> str:
    """Write the page.

    Args:
        page: The file.
        about: What the model is, in a line.
        command: What made all of it.
        model: The base model.
        parts: One for each task.

    Returns:
        The Markdown.
    """
    one = f": {parts[0].task}" if len(parts) == 1 else ""
    tasks = ", ".join(f"[{part.task}](tasks/{part.task}.md)" for part in parts)
    head = (
        f"# A real language model, trained here{one}\n\n"
        f"This page is written by `{command}` from what it trained and played; every table and quotation on it is "
        f"generated. What the agents do: {tasks}.\n\nThe model: {about}."
    )
    if any((part.folder / "eval").is_dir() for part in parts):
        head += (
            "\n\nStrangers are the scripted partners of the task's test roster and the model itself, untrained. "
            "Intervals are 95 %: a bootstrap over problems and seeds, and Student's t over seeds."
        )
    text = "\n\n".join([head, *(section(part, model) for part in parts)]) + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return text


def section(part: Part, model: str) -> str:
    """What came out on one task; without what was played, if nothing was."""
    pieces = [f"## {part.task}", settings(part), part.tables.strip()]
    if (part.folder / "eval").is_dir():
        decodings = " and ".join(read_results(part.folder / "eval").decodings)
        pieces += [f"Replies of the evaluation: {decodings}.", resting(part), quoted(part), changed(part)]
    return "\n\n".join([*(piece for piece in pieces if piece), reading(part, model)])


def settings(part: Part) -> str:
    """The settings of each arm, from the runs' own configurations."""
    arms: dict[str, Mapping[str, Any]] = {}
    for name in part.runs:
        arms.setdefault(name.rsplit("-seed", 1)[0], Run.open(part.folder / name).config)
    rows = [f"| setting | {' | '.join(arms)} |", "|---" * (1 + len(arms)) + "|"]
    rows += [f"| `{fact}` | {' | '.join(str(config.get(fact)) for config in arms.values())} |" for fact in FACTS]
    return "\n".join(rows)


def resting(part: Part) -> str:
    """In how many seeds of each arm a seat rests in self-play."""
    results = read_results(part.folder / "eval")
    own = [record for record in results.records if record.partner == SELF_PLAY]
    lines = []
    for arm in dict.fromkeys(record.arm for record in own):
        efforts = [
            [record.effort_own for record in own if record.run == run]
            for run in dict.fromkeys(record.run for record in own if record.arm == arm)
        ]
        idle = sum(min(each) < RESTS * max(each) for each in efforts)
        lines.append(f"- {arm}: in {idle} of {len(efforts)} seeds")
    return f"A seat does less than half of what the other one does, in self-play:\n\n{chr(10).join(lines)}"


def quoted(part: Part) -> str:
    """What an IPPO agent and an SRPO agent said beside the partner that rests, side by side; empty if there are none.

    Of IPPO's agents it is the one that solved least beside it; of SRPO's, that of the same seed and seat. Both at the
    first problem of the evaluation.
    """
    results = read_results(part.folder / "eval")
    idle = results.idle
    rates = {
        (record.run, record.seat): record.solve_rate
        for record in results.records
        if record.partner == idle and record.arm == "ippo"
    }
    if not rates:
        return ""
    run, seat = min(rates, key=rates.__getitem__)
    other = run.replace("ippo-seed", "srpo-seed")
    wanted = {run: "IPPO", other: "SRPO"}
    found: dict[str, EvaluatedEpisode] = {}
    for episode in read_episodes(part.folder / "eval"):
        if episode.partner == idle and episode.seat == seat and episode.run in wanted:
            found.setdefault(episode.run, episode)
    if set(found) != set(wanted):
        return ""
    first, second = found[run].episode, found[other].episode
    rows = [f"| turn | who | beside {run} | beside {other} |", "|---|---|---|---|"]
    for number, (one, two) in enumerate(zip(first.turns, second.turns, strict=False), 1):
        who = "agent" if one.seat == seat else idle
        rows.append(f"| {number} | {who} | {_quote(one.text)} | {_quote(two.text)} |")
    ends = [f"{name}: {'solved' if found[key].episode.solved else 'not solved'}" for key, name in wanted.items()]
    return (
        f"Beside `{idle}`, which rests, on problem `{first.problem}`. The IPPO agent is the one that solved least "
        f"beside it ({rates[run, seat]:.2f} of the problems), `{seat}` of {run}; the SRPO agent has the same seat and "
        "seed. "
        f"{'; '.join(ends)}.\n\n" + "\n".join(rows)
    )


def changed(part: Part) -> str:
    """The first episode of the first and of the last step that each arm's first run logged."""
    pieces = []
    for arm in dict.fromkeys(name.rsplit("-seed", 1)[0] for name in part.runs):
        run = next(name for name in part.runs if name.startswith(f"{arm}-seed"))
        files = sorted((part.folder / run / "episodes").glob("*.jsonl"))
        if not files:
            continue
        shown = [(file, next(_logged(file), None)) for file in (files[0], files[-1])]
        lines = [f"- step {_step(file)}: {_said(episode)}" for file, episode in shown if episode is not None]
        pieces.append(f"{run}, in training:\n\n" + "\n".join(lines))
    return "\n\n".join(pieces)


def reading(part: Part, model: str) -> str:
    """Perplexity of each run's agents on a text that has nothing to do with the task; kept, so that it is read once."""
    kept = part.folder / "perplexity.json"
    known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    adapters = {
        f"{name}/{seat}": part.folder / name / "adapters" / policy
        for name in part.runs
        for seat, policy in Run.open(part.folder / name).heroes.items()
    }
    missing = {name: folder for name, folder in adapters.items() if name not in known}
    if missing or BASE not in known:
        for name, value in of_adapters(model, missing, read_text()):
            known[name] = value
            kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
    rows = ["| model | perplexity |", "|---|---|", f"| untrained | {known[BASE]:.3f} |"]
    for arm in dict.fromkeys(name.rsplit("-seed", 1)[0] for name in part.runs):
        values = [value for name, value in known.items() if name.startswith(f"{arm}-seed") and name in adapters]
        rows.append(
            f"| {arm}, mean of {len(values)} agents | {fmean(values):.3f} ({min(values):.3f} to {max(values):.3f}) |"
        )
    return (
        f"Perplexity on the first {TOKENS} tokens of `email/architecture.rst`, a page that comes with Python:\n\n"
        + "\n".join(rows)
    )


def _logged(file: Path) -> Iterator[EpisodeRecord]:
    for _, item in read_json_lines(file):
        yield EpisodeRecord.read(item or {})


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


def _said(episode: EpisodeRecord) -> str:
    turns = ", ".join(f"{episode.policies.get(turn.seat, turn.seat)} {_quote(turn.text)}" for turn in episode.turns)
    return f"`{episode.problem}`: {turns}; {'solved' if episode.solved else 'not solved'}"


def _quote(text: str) -> str:
    """A reply as code on one line, cut."""
    line = one_line(text).strip().replace("`", "'").replace("|", "\\|")
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    return f"`{line}`" if line else "(nothing)"
