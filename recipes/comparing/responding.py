"""Best responses to the partners of a roster: one training for each, what it earns, and the file that keeps that.

The trainings are cells as those of a comparison. A partner that is done is kept; the same command goes on with the
others, and makes anew what belongs to a partner that has changed.
"""

import argparse
import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import yaml
from rich.console import Console

from llm_sra import evaluate
from llm_sra.engines import EngineOptions
from llm_sra.evaluation.best_responses import (
    LIVE,
    BestResponse,
    BestResponses,
    Earned,
    read_best_responses,
    short_task,
    write_best_responses,
)
from llm_sra.evaluation.results import read_results
from llm_sra.files import write_whole, writing
from llm_sra.partners.contents import entry_digest
from llm_sra.partners.costs import cost_lines
from llm_sra.partners.rosters import SELF_PLAY, Entry, as_item, read_playable
from llm_sra.registry import load_task, models_named, shipped_recipes
from llm_sra.runs import Run, read_metrics
from llm_sra.task import Task
from llm_sra.trainer.parse import read_recipe
from llm_sra.untrusted import is_number, one_line
from recipes.comparing.cells import (
    Cell,
    ComparisonError,
    Fields,
    check_counts,
    check_folders,
    check_place,
    fields_of,
    options_of,
    read_cells,
    remove_runs,
    state_of,
)
from recipes.comparing.training import TrainingError, Trainings

FILE, RECIPE, ROSTERS, EVAL = "best_responses.json", "recipe.yaml", "partners", "eval"
SETTING = "best response"
ARM = {"arm": "fcp", "risk": "expectation"}
# What a recipe says of its own arm and partners, which means nothing to a best response.
OF_THE_ARM = (
    "arm", "partners", "partners_per_step", "population", "population_entropy_coef", "influence_coef", "dev_roster",
    "dev_problems", "eval_strategy", "eval_steps", "load_best_model_at_end", "metric_for_best_model", "output_dir",
    "run_name", "target_kl", "alignment_coef", "preferences",
)  # fmt: skip
BEGINNINGS = ("adversary_", "tau", "risk")  # of further such fields
SET_HERE = ("arm", "partners", "preferences", "risk", "dev_roster")


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        recipe: How a best response is trained: YAML file or name.
        out: Folder of everything.
        flags: Fields that differ from the recipe.
        roster: YAML file, or the name of a shipped roster; empty if it is still to be made.
        problems: That each best response plays with its partner.
        split: Of the task.
        decodings: `greedy`, `sampled` or both.
        seed: Of the problems and of every reply's chance.
        jobs: Trainings at a time.
        again: Whether everything that is there is made anew.
        trust_scripts: Whether the roster's scripts may run that do not ship.
        trust_remote_code: Whether Python may run that comes with the roster's models.
    """

    recipe: str
    out: Path
    flags: Mapping[str, Any]
    roster: str = ""
    problems: int = 64
    split: str = "test"
    decodings: Sequence[str] = ("greedy", "sampled")
    seed: int = 0
    jobs: int = 1
    again: bool = False
    trust_scripts: bool = False
    trust_remote_code: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace, further: Sequence[str], named_for: str, **more: Any) -> "Wanted":
        """What a command line asks for.

        Args:
            args: The values of `response_flags`, and `config`.
            further: The other arguments: fields of a recipe.
            named_for: Task or roster whose recipe is taken if none is named.
            more: Further attributes.

        Raises:
            ComparisonError: If there is no such recipe, or a number or a field cannot be used.
        """
        check_counts(args.jobs, args.problems)
        return cls(
            args.config or default_recipe(named_for), args.out, fields_of(further), problems=args.problems,
            split=args.split, decodings=list(dict.fromkeys(args.decoding)), seed=args.play_seed, jobs=args.jobs,
            again=args.again, **more,
        )  # fmt: skip

    @property
    def trusted(self) -> dict[str, bool]:
        """What of the roster may run."""
        return {"trust_scripts": self.trust_scripts, "trust_remote_code": self.trust_remote_code}


@dataclass(frozen=True)
class Work:
    """A partner, and the training of its best response.

    Attributes:
        entry: The partner.
        digest: Hash of its entry and files.
        cell: The training.
    """

    entry: Entry
    digest: str
    cell: Cell


def default_recipe(roster: str) -> str:
    """The recipe for a roster whose name begins with its task's: that for best responses, or another arm's.

    Raises:
        ComparisonError: If there is none.
    """
    task, shipped = PurePath(roster).stem.split("_")[0], shipped_recipes()
    for arm in ("best_response", "ippo", "srpo"):
        if f"{task}/{arm}" in shipped:
            return f"{task}/{arm}"
    raise ComparisonError(f"no recipe is known for {roster}: name one with --config (llm-sra list recipes)")


def best_responses(wanted: Wanted, console: Console) -> BestResponses:
    """Train and play what is missing, and keep what it earns after each partner.

    Returns:
        What is known now, of all partners of the roster; `unused` says why others have none.

    Raises:
        ComparisonError: If the folder holds something else, or nobody in the roster has a best response.
        ConfigError: If the recipe or a flag cannot be used.
        RosterError: If the roster cannot be used.
        TrainingError: If a training failed. The others are trained, played and kept all the same.
    """
    entries = read_playable(wanted.roster, **wanted.trusted)
    recipe, fields = write_recipe(wanted, ARM, {"partners": "none"})
    options = options_of(fields)
    task = load_task(str(fields["task"]), options)
    unused = {entry.name: LIVE for entry in entries if entry.innermost.kind == "live"}
    works = [_work(entry, task, recipe, wanted) for entry in entries if entry.name not in unused]
    if not works:
        raise ComparisonError(f"no partner of {wanted.roster} has a best response: {LIVE}")
    if wanted.again:
        _remove(wanted.out, works)
    read = read_cells([work.cell for work in works])
    steps = check_folders(read, wanted.out)
    known = _kept(wanted, works, read, options or {})
    missing = [work for work in works if work.entry.name not in known.partners]
    _tell(wanted, works, known, unused, task.seats, console)
    failed: TrainingError | None = None
    try:
        if missing:
            Trainings([work.cell for work in missing], wanted.out, steps, wanted.jobs, console=console).run()
    except TrainingError as error:
        failed = error
    known = replace(known, unused=unused)
    for work in missing:
        if state_of(wanted.out / work.cell.name).finished:
            known = _with(known, work, wanted, console)
            write_best_responses(wanted.out / FILE, known)
    if failed:
        raise failed
    names = [entry.name for entry in entries if entry.name in known.partners]
    known = replace(known, partners={name: known.partners[name] for name in names})  # in the roster's order
    write_best_responses(wanted.out / FILE, known)
    return known


def write_recipe(wanted: Wanted, arm: Fields, flags: Fields | None = None) -> tuple[Path, Fields]:
    """Write the recipe of the trainings to their folder: the one that is asked for, with another arm.

    Args:
        wanted: What is asked for.
        arm: Fields of that arm.
        flags: Fields that each training sets by itself, with values that can be read.

    Returns:
        Its file, and what it says.

    Raises:
        ComparisonError: If the folder cannot be taken, or a flag is set for each training.
        ConfigError: If the recipe or a flag cannot be used.
    """
    check_place(wanted.out)
    if own := [name for name in SET_HERE if name in wanted.flags]:
        raise ComparisonError(f"--{own[0]} is set for each training: leave it out")
    recipe = wanted.out / RECIPE
    _write_yaml(recipe, {**without_arm(read_recipe(wanted.recipe)), **arm})
    return recipe, read_cells([Cell("any", str(recipe), {**wanted.flags, **(flags or {})})])["any"]


def without_arm(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without what belongs to its own arm."""
    kept = {
        key: value for key, value in recipe.items() if key not in OF_THE_ARM and not key.startswith(BEGINNINGS)
    }  # fmt: skip
    return {key: value for key, value in kept.items() if (key, value) != ("algorithm", "adalign")}


def _work(entry: Entry, task: Task, recipe: Path, wanted: Wanted) -> Work:
    """A partner's training; writes the roster that has this partner alone."""
    try:
        digest = entry_digest(entry, task)
    except OSError as error:
        raise ComparisonError(f"partner {entry.name!r} cannot be read: {one_line(error)}") from error
    assert digest is not None
    name = cell_name(entry.name, digest)
    roster = (wanted.out / ROSTERS / f"{name}.yaml").resolve()
    _write_yaml(roster, {"partners": [as_item(entry)]})
    trusted = {flag: "true" for flag, given in wanted.trusted.items() if given}
    return Work(
        entry, digest, Cell(name, str(recipe), {**wanted.flags, **trusted, "partners": str(roster)}, SETTING)
    )  # fmt: skip


def cell_name(partner: str, digest: str) -> str:
    """Name of the training, and of its folder below `EVAL`; arguments as in `Work`."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', partner)[:60]}-{digest[:8]}"


def _write_yaml(path: Path, value: Any) -> None:
    with writing("what is trained", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _kept(
    wanted: Wanted, works: Sequence[Work], read: Mapping[str, Fields], options: Mapping[str, Any]
) -> BestResponses:
    """What an earlier command left that is still asked for."""
    asked = read[works[0].cell.name]
    fresh = BestResponses(
        task=short_task(asked["task"]), task_args=options, split=wanted.split, seed=wanted.seed,
        problems=wanted.problems,
    )  # fmt: skip
    path = wanted.out / FILE
    if wanted.again or not path.is_file():
        return fresh
    found = read_best_responses(path)
    if replace(found, ids=(), partners={}, unused={}) != fresh:
        return fresh
    kept = {}
    for work in works:
        made = found.partners.get(work.entry.name)
        if made and made.entry == work.digest and {one.decoding for one in made.earned} == set(wanted.decodings):
            steps = int(read[work.cell.name]["max_steps"])
            ours = {**_budget(read[work.cell.name]), **({"steps": steps} if steps > 0 else {})}
            if {key: made.budget.get(key) for key in ours} == ours:
                kept[work.entry.name] = made
    return replace(found, partners=kept) if kept else fresh


def _budget(asked: Fields) -> dict[str, Any]:
    """What a training's configuration says of its budget."""
    models = [PurePath(model) for model in models_named(asked)]
    short = [PurePath(*model.parts[-2:] if model.is_absolute() else model.parts).as_posix() for model in models]
    fields = {key: asked[key] for key in ("learning_rate", "entropy_coef")}
    return {"seed": asked["seed"], "model": " and ".join(short), **fields}


def _with(known: BestResponses, work: Work, wanted: Wanted, console: Console) -> BestResponses:
    """What is known, and what one more best response earns with its partner."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading models
    name, out = work.entry.name, wanted.out
    run = Run.open(out / work.cell.name)
    log = out / f"{work.cell.name}.log"
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        records = evaluate(
            [run], work.cell.flags["partners"], out / EVAL / work.cell.name,
            problems=wanted.problems, split=wanted.split, decodings=wanted.decodings, seed=wanted.seed,
            engine=EngineOptions.of_run(run.config, {"engine": "transformers"}), disable_tqdm=True,
            trust_scripts=wanted.trust_scripts,
            trust_remote_code=wanted.trust_remote_code or bool(run.config.get("trust_remote_code")),
        )  # fmt: skip
    found = read_results(out / EVAL / work.cell.name)
    with_partner = [record for record in records if record.partner != SELF_PLAY]
    earned = tuple(Earned.of(record, found.returns[record.key].tolist()) for record in with_partner)
    if not earned:
        console.print(f"no best response to {name}: it could not play; {log} says why", markup=False, soft_wrap=True)
        return replace(known, unused={**known.unused, name: "the partner could not play"})
    lines = [line for line in read_metrics(run.path / "metrics.jsonl") if is_number(line.get("episodes"))]
    budget = {"steps": len(lines), "episodes": int(sum(line["episodes"] for line in lines)), **_budget(run.config)}
    played = ", ".join(f"{one.seat} {one.own_return:.2f} ({one.decoding})" for one in earned)
    console.print(f"best response to {name} earns: {played}", markup=False, soft_wrap=True)
    return replace(
        known,
        ids=found.problems[with_partner[0].key],
        partners={**known.partners, name: BestResponse(work.digest, budget, earned)},
    )


def _remove(out: Path, works: Sequence[Work]) -> None:
    """Remove what an earlier command left under these names; nothing else."""
    for run in remove_runs([out / work.cell.name for work in works]):
        shutil.rmtree(out / EVAL / run.name, ignore_errors=True)
    (out / FILE).unlink(missing_ok=True)


def _tell(
    wanted: Wanted,
    works: Sequence[Work],
    known: BestResponses,
    unused: Mapping[str, str],
    seats: Sequence[str],
    console: Console,
) -> None:
    console.print(
        f"{len(works)} best responses in {wanted.out}, {wanted.jobs} at a time:", markup=False, soft_wrap=True
    )
    for work in works:
        state = state_of(wanted.out / work.cell.name)
        done = "done, kept" if work.entry.name in known.partners else "trained, to play" if state.finished else ""
        console.print(f"  {one_line(work.entry.name)}: {done or state.words}", markup=False)
    for name, why in unused.items():
        console.print(f"  {one_line(name)}: none ({why})", markup=False)
    if lines := cost_lines([work.entry for work in works], seats):
        console.print("\n  ".join(["Partners that take memory or tokens:", *lines]), markup=False, soft_wrap=True)
