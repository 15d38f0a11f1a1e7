"""Generated strangers: agents trained with a hidden preference each, of whom those are chosen that differ most.

A candidate is a training whose agents earn, beside the task's rewards, a weight times a metric of their own. Two are
alike if their best responses do the same; the roster has those whose determinant of similarities is largest. What was
trained or played is kept, and the same command goes on with the rest.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import yaml
from rich.console import Console

from eval.proximity import Known
from eval.stats import effective_number, most_diverse, similarity
from llm_sra.errors import unknown
from llm_sra.evaluation.best_responses import ENDING, BestResponses, write_best_responses
from llm_sra.evaluation.results import read_episodes
from llm_sra.files import to_json, write_whole, writing
from llm_sra.partners.rosters import SELF_PLAY, Entry, as_item
from llm_sra.partners.strangers import strangers
from llm_sra.registry import load_task
from llm_sra.task import Task
from llm_sra.trainer.preferences import own_metric, own_metrics
from recipes.comparing.cells import Cell, ComparisonError, check_cells, options_of, remove_runs
from recipes.comparing.responding import EVAL, Wanted, best_responses, cell_name, write_recipe
from recipes.comparing.training import Trainings

ROSTER, RECORD = "strangers.yaml", "strangers.json"
CANDIDATES, RESPONSES = "candidates", "best_responses"
SETTING = "candidate"


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        metrics: Of which of its own metrics a candidate wants more or less; none: of each that the task has.
        weights: What a unit of it earns, in units of the reward. There is a candidate for each metric and weight.
        k: How many are chosen.
        wanted: How candidates and best responses are trained, and how these play. Its folder is that of everything; its
            roster is made here.
    """

    metrics: Sequence[str]
    weights: Sequence[float]
    k: int
    wanted: Wanted


@dataclass(frozen=True)
class Candidate:
    """An agent with a hidden preference, and what was found.

    Attributes:
        name: Of its run folder, and of the partner.
        metric: What it wants more or less of.
        weight: What a unit of it earns, in units of the reward.
        earned: By `DECODING/SEAT`, the mean return of its best response.
        does: By `DECODING/SEAT/METRIC`, what its best response does on average; empty if it could not play.
        hopeless: Whether even a best response earns next to nothing with it, in every seat.
        chosen: Whether it is in the roster.
    """

    name: str
    metric: str
    weight: float
    earned: Mapping[str, float] = field(default_factory=dict)
    does: Mapping[str, float] = field(default_factory=dict)
    hopeless: bool = False
    chosen: bool = False


@dataclass(frozen=True)
class Generated:
    """What was made.

    Attributes:
        candidates: All, in the order of metrics and weights.
        different: As how many different ones those chosen count, from 1 to their number.
    """

    candidates: tuple[Candidate, ...]
    different: float

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """Those of the roster."""
        return tuple(one for one in self.candidates if one.chosen)


def generate(asked: Asked, console: Console) -> Generated:
    """Train and play what is missing, choose, and write the roster with what is known of it.

    Raises:
        ComparisonError: If the folder holds something else, or there are too few candidates.
        ConfigError: If the recipe or a flag cannot be used.
        TrainingError: If a training failed. The others are kept.
        UnknownNameError: If the task lacks a metric.
    """
    wanted, out, folder = asked.wanted, asked.wanted.out, asked.wanted.out / CANDIDATES
    recipe, fields = write_recipe(wanted, {"arm": "ippo"})
    task = load_task(str(fields["task"]), options_of(fields))
    known_metrics = own_metrics(task)
    candidates = candidates_of(asked, known_metrics)
    _train(candidates, recipe, wanted, console)
    entries = {entry.name: entry for entry in strangers(folder, task.seats)}
    roster = out / f"{CANDIDATES}.yaml"
    _write_roster(roster, candidates, entries)
    console.print("Best responses to the candidates:", markup=False)
    responses = replace(wanted, roster=str(roster), out=out / RESPONSES)
    known = best_responses(responses, console)
    generated = choose(_found(candidates, known, responses, task, known_metrics), asked.k, int(fields["seed"]))
    _write_roster(out / ROSTER, generated.chosen, entries)
    write_best_responses((out / ROSTER).with_suffix(ENDING), _of(known, generated.chosen))
    with writing("what is known of the strangers", out):
        write_whole(out / RECORD, to_json(asdict(generated), indent=1) + "\n")
    return generated


def candidates_of(asked: Asked, known: Sequence[str]) -> tuple[Candidate, ...]:
    """The candidates that are asked for.

    Args:
        asked: What is.
        known: Metrics of the task.

    Raises:
        ComparisonError: If they are fewer than are to be chosen, or a weight is none.
        UnknownNameError: If a metric is unknown.
    """
    for metric in asked.metrics:
        if metric not in known:
            raise unknown("metric of a seat", metric, known)
    if any(not 0 < abs(weight) < float("inf") for weight in asked.weights):
        raise ComparisonError(f"--weights must be finite and not 0, got {', '.join(map(str, asked.weights))}")
    pairs = list(dict.fromkeys(product(asked.metrics or known, asked.weights)))
    if not 1 <= asked.k <= len(pairs):
        raise ComparisonError(
            f"--k must be from 1 to {len(pairs)}, the number of candidates (a metric with a weight each), got "
            f"{asked.k}: name more --weights or --metrics, which are {', '.join(known)}"
        )
    return tuple(Candidate(_name(metric, weight), metric, weight) for metric, weight in pairs)


def _name(metric: str, weight: float) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", metric)
    return f"{'more' if weight > 0 else 'less'}-{plain}-{abs(weight):g}"


def choose(candidates: Sequence[Candidate], k: int, seed: int) -> Generated:
    """Choose those whose best responses differ most; those that are hopeless, or could not play, are left out.

    Args:
        candidates: With what was found.
        k: How many.
        seed: Decides between sets that are equally diverse.

    Raises:
        ComparisonError: If there are too few.
    """
    able = [one for one in candidates if one.does and not one.hopeless]
    if len(able) < k:
        left_out = ", ".join(one.name for one in candidates if one not in able)
        raise ComparisonError(
            f"{k} strangers are asked for, but next to nothing can be earned with {left_out}, which leaves {len(able)} "
            "candidates: name a lower --k, or other --weights; what was trained is kept"
        )
    numbers = sorted(set().union(*(one.does for one in able)))
    alike = similarity([[one.does.get(number, 0.0) for number in numbers] for one in able])
    places = most_diverse(alike, k, seed)
    names = {able[place].name for place in places}
    taken = tuple(replace(one, chosen=one.name in names) for one in candidates)
    return Generated(taken, effective_number(alike[list(places)][:, list(places)]))


def _train(candidates: Sequence[Candidate], recipe: Path, wanted: Wanted, console: Console) -> None:
    """Say what is trained, and train what is missing."""
    folder = wanted.out / CANDIDATES
    cells = [
        Cell(one.name, str(recipe), {**wanted.flags, "preferences": {one.metric: one.weight}}, SETTING)
        for one in candidates
    ]
    if wanted.again:
        remove_runs([folder / cell.name for cell in cells])
    trainings = Trainings(cells, folder, check_cells(cells, folder), wanted.jobs, console=console)
    console.print(
        f"{len(cells)} candidates in {folder}, then a best response to each: {2 * len(cells)} trainings, {wanted.jobs} "
        "at a time:", markup=False, soft_wrap=True,
    )  # fmt: skip
    trainings.show_states()
    if time := trainings.time_left:
        console.print(
            f"Time for the candidates: {time}. Best responses take about as long again.", markup=False, soft_wrap=True
        )
    trainings.run()


def _found(
    candidates: Sequence[Candidate], known: BestResponses, wanted: Wanted, task: Task, metrics: Sequence[str]
) -> list[Candidate]:
    """The candidates with what their best responses earn and do."""
    names = [one.name for one in candidates if one.name in known.partners]
    there = [Known.of(known, names, task.seats, decoding) for decoding in wanted.decodings] if names else []
    found = []
    for one in candidates:
        if one.name not in names:
            found.append(one)
            continue
        made = known.partners[one.name]
        at = names.index(one.name)
        counted: dict[str, list[float]] = defaultdict(list)
        for line in read_episodes(wanted.out / EVAL / cell_name(one.name, made.entry)):
            if line.partner == SELF_PLAY:
                continue
            played = line.episode
            said = [turn.text for turn in played.turns if turn.seat == line.seat]
            for metric in metrics:
                value = own_metric(metric, line.seat, played.effort, played.metrics, said)
                counted[f"{line.decoding}/{line.seat}/{metric}"].append(value)
        found.append(
            replace(
                one,
                earned={f"{earned.decoding}/{earned.seat}": earned.own_return for earned in made.earned},
                does={name: fmean(values) for name, values in counted.items()},
                hopeless=all(bool(of.hopeless[:, at].all()) for of in there),
            )
        )
    return found


def _of(known: BestResponses, chosen: Sequence[Candidate]) -> BestResponses:
    """The best responses to some of the partners."""
    return replace(known, partners={one.name: known.partners[one.name] for one in chosen}, unused={})


def _write_roster(path: Path, candidates: Sequence[Candidate], entries: Mapping[str, Entry]) -> None:
    """A roster with a comment above each partner; its paths are relative, so that the folder can be moved."""
    lines = ["# Made by `llm-sra strangers`: agents that were trained with a hidden preference each.", "partners:"]
    for one in candidates:
        more = "more" if one.weight > 0 else "less"
        lines.append(f"  # In training it earned {abs(one.weight):g} {more} for each unit of its {one.metric}.")
        if one.earned:
            best = ", ".join(f"{value:.2f} ({name})" for name, value in one.earned.items())
            lines.append(f"  # A best response to it earns {best}.")
        place = os.path.relpath(entries[one.name].policy, path.parent.resolve())
        item = as_item(replace(entries[one.name], policy=f"./{place}", group="generated"))
        lines.append("  - " + yaml.safe_dump(item, sort_keys=False, allow_unicode=True).strip().replace("\n", "\n    "))
    with writing("a roster", path):
        write_whole(path, "\n".join(lines) + "\n")
