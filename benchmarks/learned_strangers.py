"""Learned strangers of a task: agents of other algorithms and seeds at three levels of skill, as a roster that ships.

    python -m benchmarks.learned_strangers worksheet

trains what `learned_strangers.yaml` says of a set, below `runs/learned/worksheet`, and keeps it: the agents' adapters
in `eval/rosters/agents/worksheet/learned/`, their weights as float16, and the roster `worksheet_learned`. A finished
training is kept, an interrupted one goes on.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from benchmarks.study import fill
from llm_sra import evaluate
from llm_sra.errors import unknown
from llm_sra.evaluation.results import read_results
from llm_sra.files import to_json, write_whole
from llm_sra.models.adapter_files import CARD, WEIGHTS, read_adapter_config, read_weights
from llm_sra.models.damage import not_finite
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.registry import find_model, model_name
from llm_sra.runs import Run
from llm_sra.untrusted import read_json
from recipes.comparing.cells import Cell
from recipes.terminal import run_command

ROOT = Path(__file__).resolve().parent.parent
ROSTERS = ROOT / "eval" / "rosters"
DATA = Path(__file__).with_suffix(".yaml")
LEARNED, UNTRAINED, POOL = "learned", "untrained", "pool"
LARGEST = 3_000_000  # bytes of the adapters of a task in the repository
PROBLEMS = 64  # that each stranger plays with itself, to say what it can do


class StrangersError(ValueError):
    """Learned strangers cannot be made as asked; says what to do."""


@dataclass(frozen=True)
class Stranger:
    """An agent at one moment of its training.

    Attributes:
        name: In the roster.
        run: Its training, at that moment.
        recipe: Of the training.
        seed: Of the training.
        step: Of the moment.
    """

    name: str
    run: Run
    recipe: str
    seed: int
    step: int

    @property
    def base(self) -> str:
        """Name of its base model."""
        return model_name(str(self.run.config["model_name_or_path"]))


def read_sets() -> dict[str, Any]:
    """What `learned_strangers.yaml` says."""
    data: dict[str, Any] = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return data


def level_steps(name: str) -> dict[str, int]:
    """By the name of a level, the step at which agents of a set are kept.

    Raises:
        StrangersError: If that is no whole number.
    """
    data = read_sets()
    whole = data["sets"][name]["all"]["max_steps"]
    steps = {level: share * whole for level, share in data["levels"].items()}
    if any(step != int(step) for step in steps.values()):
        raise StrangersError(f"{DATA.name}: max_steps of {name} is {whole}: expected one that the levels divide")
    return {level: int(step) for level, step in steps.items()}


def set_cells(name: str, out: Path) -> tuple[list[Cell], list[Cell]]:
    """The trainings of a set: those that meet nobody else, the pool first; then those that need the pool.

    Args:
        name: Of the set.
        out: Folder of its trainings.
    """
    data = read_sets()
    steps = level_steps(name)
    common = {**data["sets"][name]["all"], **data["every"], "save_steps": min(steps.values())}
    algorithms = {key: value for key, value in data["sets"][name].items() if key != "all"}
    alone = [_cell(POOL, algorithms["ippo"], data["pool_seed"], common)]
    later = []
    for seed in data["seeds"]:
        for algorithm, own in algorithms.items():
            if algorithm == "fcp":
                later.append(_cell(algorithm, own, seed, {**common, "partners": str(out / f"{POOL}.yaml")}))
            else:
                alone.append(_cell(algorithm, own, seed, common))
    return alone, later


def _cell(algorithm: str, own: Mapping[str, Any], seed: int, common: Mapping[str, Any]) -> Cell:
    flags = {**common, **{key: value for key, value in own.items() if key != "recipe"}, "seed": seed}
    return Cell(f"{algorithm}-{seed}", own["recipe"], flags, algorithm)


def strangers(name: str, cells: Sequence[Cell], out: Path) -> list[Stranger]:
    """The agents of trainings at each level."""
    found = []
    for cell in cells:
        run = Run.open(out / cell.name)
        last = int(run.config["max_steps"])
        for level, step in level_steps(name).items():
            there = run if step == last else Run.open(f"{run.path}@checkpoint-{step}")
            found.append(Stranger(f"{cell.name}-{level}", there, cell.recipe, int(cell.flags["seed"]), step))
    return found


def policy_of(run: Run, folder: str) -> str:
    """How a roster names a run's agents in a folder: one for each seat, or one for all."""
    names = set(run.heroes.values())
    return f"{folder}/{names.pop()}" if len(names) == 1 else f"{folder}/{{seat}}"


def make(name: str, out: Path, jobs: int) -> list[Stranger]:
    """Train what is missing of a set.

    Raises:
        ComparisonError, ConfigError, TrainingError: As comparisons do.
    """
    alone, later = set_cells(name, out)
    fill(alone, out, jobs)
    if later:
        pool = [
            {"name": one.name, "kind": "adapter", "policy": policy_of(one.run, str(one.run.adapters))}
            for one in strangers(name, alone[:1], out)
        ]
        write_whole(out / f"{POOL}.yaml", yaml.safe_dump({"partners": pool}, sort_keys=False))
        fill(later, out, jobs)
    return strangers(name, [*alone[1:], *later], out)


def keep(found: Sequence[Stranger], name: str, out: Path) -> Path:
    """Copy strangers' adapters into the repository, in the place of those that were there, and write their roster.

    Args:
        found: The strangers.
        name: Of the set.
        out: Folder of the trainings; what they earn with themselves is played there.

    Returns:
        The roster.

    Raises:
        StrangersError: If they take more than a task may.
    """
    place = ROSTERS / "agents" / name / LEARNED
    shutil.rmtree(place, ignore_errors=True)
    entries: list[dict[str, Any]] = [
        {"name": f"{UNTRAINED}-{PurePath(base).name}", "kind": "model", "policy": base}
        for base in dict.fromkeys(one.base for one in found)
    ]
    for one in found:
        for adapter in dict.fromkeys(one.run.heroes.values()):
            copy_adapter(one.run.adapters / adapter, place / one.name / adapter, one.base)
        policy = policy_of(one.run, f"./{(place / one.name).relative_to(ROSTERS).as_posix()}")
        entries.append({"name": one.name, "kind": "adapter", "policy": policy, "base": one.base})
    size = size_of(place.parent)
    if size > LARGEST:
        raise StrangersError(f"the adapters of {name} take {size:,} bytes, expected at most {LARGEST:,}: keep fewer")
    write_whole(place / "README.md", page(name, found, self_play(found, out)))
    lines = [f"  - {yaml.safe_dump(entry, default_flow_style=True, width=1000, sort_keys=False)}" for entry in entries]
    roster = ROSTERS / f"{name}_{LEARNED}.yaml"
    head = (
        "# Agents of other algorithms and of a seed that nobody compares, at three levels of skill, and their bases\n"
        f"# untrained: played once, never tuned on. `python -m benchmarks.learned_strangers {name}` makes them.\n"
    )
    write_whole(roster, f"{head}partners:\n{''.join(lines)}")
    return roster


def copy_adapter(source: Path, target: Path, base: str) -> None:
    """Copy an adapter with its weights as float16, and the place of its base relative to the repository.

    Raises:
        AdapterError: If it cannot be read.
        StrangersError: If float16 cannot hold a weight.
    """
    weights = {key: value.to(torch.float16) for key, value in read_weights(source, read_adapter_config(source)).items()}
    if (key := not_finite(weights.items())) is not None:
        raise StrangersError(f"{source}: float16 cannot hold {key}: keep an earlier checkpoint")
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
    config = read_json(source / "adapter_config.json")
    folder = Path(find_model(base))
    where = folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else base
    write_whole(target / "adapter_config.json", to_json({**config, "base_model_name_or_path": where}, indent=2) + "\n")
    shutil.copyfile(source / CARD, target / CARD)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def self_play(found: Sequence[Stranger], out: Path) -> dict[str, float]:
    """By a stranger's name, its headline, or share of problems solved, with itself: sampled, mean over seats."""
    folder = out / "eval"
    runs = [one.run for one in found]
    evaluate(runs, None, folder, problems=PROBLEMS, split="dev", decodings=["sampled"], disable_tqdm=True)
    results = read_results(folder)
    return {one.name: results.rate([one.run.name], results.seats, [SELF_PLAY], "sampled") for one in found}


def page(name: str, found: Sequence[Stranger], alone: Mapping[str, float]) -> str:
    """What the folder of the adapters says of them."""
    rows = "".join(
        f"| {one.name} | `{one.recipe}` | {one.base} | {one.seed} | {one.step} | {alone[one.name]:.2f} |\n"
        for one in found
    )
    return (
        f"# Learned strangers: {name}\n\n"
        f"Partners of the roster `{name}_{LEARNED}`, from trainings that meet no partner of a roster. No run that is\n"
        f"compared with them may use their seed or that of their pool ({read_sets()['pool_seed']}).\n\n"
        f"    python -m benchmarks.learned_strangers {name}\n\n"
        f"makes them again, by `{PurePath(DATA).relative_to(ROOT).as_posix()}`; weights are kept as float16.\n\n"
        f"Alone: its headline, or the share solved, with itself on {PROBLEMS} problems of the dev split, sampled,\n"
        "mean over seats.\n\n"
        "| partner | recipe | base | seed | step | alone |\n|---|---|---|---|---|---|\n" + rows
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Make the strangers of a set and keep them.

    Raises:
        UnknownNameError: If there is no such set.
    """
    parser = argparse.ArgumentParser("learned_strangers", description=__doc__)
    parser.add_argument("set", help=f"one of {', '.join(read_sets()['sets'])}")
    parser.add_argument("--out", type=Path, default=Path("runs/learned"), help="folder of the trainings")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    args = parser.parse_args(argv)
    if args.set not in read_sets()["sets"]:
        raise unknown("set of learned strangers", args.set, read_sets()["sets"])
    out = (args.out / args.set).resolve()
    print(f"next: llm-sra eval --roster {keep(make(args.set, out, args.jobs), args.set, out).stem} --run ...")


if __name__ == "__main__":
    sys.exit(run_command(main))
