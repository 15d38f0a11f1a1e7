"""The trainings of a comparison: what each is called, its command, whether it is finished, and whether it is the same.

Nothing is trained here.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from eval.groups import PLACE
from llm_sra.runs import Run, RunError, read_metrics
from llm_sra.runs.locks import FolderLock, LockedError

SET_HERE = ("arm", "seed")  # flags that --arms and --seeds stand for
OF_THE_RUN = ("config", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "run_name", "disable_tqdm")
# Where and how a training ran: it learned the same.
ELSEWHERE = PLACE | {
    *OF_THE_RUN, "use_cpu", "bf16", "fp16", "vllm_gpu_memory_utilization", "rollout_batch_size",
    "ddp_find_unused_parameters",
}  # fmt: skip


class ComparisonError(ValueError):
    """A comparison cannot be made as asked, or one of its trainings failed; says what to do."""


@dataclass(frozen=True)
class Cell:
    """One training of a comparison.

    Attributes:
        name: Name of its run folder.
        recipe: YAML file, or a shipped recipe's name.
        flags: Fields that differ from the recipe.
        setting: What its cells of other seeds have in common.
    """

    name: str
    recipe: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    setting: str = ""

    def command(self, out: Path) -> list[str]:
        """Arguments of `llm-sra` for its training, which goes on from a checkpoint in the comparison's folder."""
        how = {"resume_from_checkpoint": "true", "disable_tqdm": "true"}
        values = {"output_dir": out / self.name, **how, **self.flags}
        return ["train", "--config", self.recipe, *as_flags(values)]

    def written(self) -> dict[str, Any]:
        """The fields that its recipe and flags set, as they are written."""
        from llm_sra.trainer.parse import read_recipe

        return {**read_recipe(self.recipe), **self.flags}


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Values as flags of a command line; several values of one field follow each other, mappings are JSON."""
    words: list[str] = []
    for key, value in values.items():
        parts = value if isinstance(value, list | tuple) else [value]
        words += [f"--{key}", *(json.dumps(part) if isinstance(part, dict) else str(part) for part in parts)]
    return words


def fields_of(words: Sequence[str]) -> dict[str, object]:
    """Fields of a recipe among the arguments: `--tau 3`, `--tau=3`, or several values after a name.

    Raises:
        ComparisonError: If a field is given twice, or a value belongs to none.
    """
    flags: dict[str, object] = {}
    values: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            name, given, value = word[2:].partition("=")
            values = [value] if given else []
            if name in flags:
                raise ComparisonError(f"--{name} is given twice")
            flags[name] = values
        elif values is None:
            raise ComparisonError(f"cannot tell what {word!r} belongs to: write --key value")
        else:
            values.append(word)
    return {name: _as_given(given) for name, given in flags.items()}


def _as_given(values: object) -> object:
    """One value as itself; a flag alone is one that is on."""
    if not isinstance(values, list) or len(values) > 1:
        return values
    return values[0] if values else "true"


def make_cells(
    recipes: Sequence[str],
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    flags: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """The cells of recipes, arms and seeds; all settings of a seed come before the next seed.

    Args:
        recipes: YAML files or names. Each is a setting.
        arms: Names that replace the recipes' own: each recipe is then a setting with each of them.
        seeds: That replace the recipes' own.
        flags: Fields that differ from the recipes in all cells.

    Raises:
        ComparisonError: If two cells would be the same, or a flag is the comparison's own.
    """
    for what, given in (("--config", recipes), ("--arms", arms), ("--seeds", seeds)):
        if twice := [str(one) for one, count in Counter(given).items() if count > 1]:
            raise ComparisonError(f"{what} has {', '.join(twice)} twice: name each once")
    for name in flags or {}:
        if name in SET_HERE:
            raise ComparisonError(f"--{name} is the same for all trainings: use --{name}s {(flags or {})[name]} ...")
        if name in OF_THE_RUN:
            raise ComparisonError(f"--{name} is set for each training by the comparison: leave it out")
    settings = [
        (f"{base}-{arm}" if base and arm else base or arm, recipe, {"arm": arm} if arm else {})
        for base, recipe in zip(_bases(recipes, arms), recipes, strict=True)
        for arm in arms or ("",)
    ]
    return [
        Cell(
            f"{setting}-seed{seed}" if seed is not None else setting,
            recipe,
            {**own, **({} if seed is None else {"seed": seed}), **(flags or {})},
            setting,
        )
        for seed in seeds or (None,)
        for setting, recipe, own in settings
    ]


def _bases(recipes: Sequence[str], arms: Sequence[str]) -> list[str]:
    """A name for each recipe: as many of its last parts as tell it from the others; empty where arms are enough."""
    if len(recipes) == 1 and arms:
        return [""]
    parts = [
        PurePath(recipe).with_suffix("").parts if _is_file(recipe) else PurePath(recipe).parts for recipe in recipes
    ]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part for part in path[-length:] if part not in ("/", ".", "..")) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise ComparisonError(f"the recipes {', '.join(recipes)} cannot be told apart by their names: rename one")


def _is_file(recipe: str) -> bool:
    return recipe.endswith((".yaml", ".yml"))


@dataclass(frozen=True)
class State:
    """How far a cell's training is.

    Attributes:
        steps_done: Steps in its log.
        finished: Whether its agents are there.
        begun: Whether there is a run.
    """

    steps_done: int = 0
    finished: bool = False
    begun: bool = False

    @property
    def words(self) -> str:
        """For the plan."""
        if self.finished:
            return "finished, kept"
        return f"goes on (step {self.steps_done} was reached)" if self.begun else "to train"


def state_of(folder: Path) -> State:
    """How far the training in a folder is."""
    if not (folder / "config.yaml").is_file():
        return State()
    steps = [line["step"] for line in read_metrics(folder / "metrics.jsonl")]
    return State(int(max(steps, default=0)), (folder / "adapters").is_dir(), True)


Fields = Mapping[str, Any]  # of a cell's configuration, by name


def read_cells(cells: Sequence[Cell]) -> dict[str, Fields]:
    """By a cell's name, the fields that say what is trained: those of its recipe and flags, and all that are common.

    Raises:
        ConfigError: If a recipe or a flag cannot be used.
    """
    from llm_sra.trainer.objective import ObjectiveArguments
    from llm_sra.trainer.parse import parse
    from recipes.commands.train_help import COMMON

    common = {*chain(*COMMON.values()), *(one.name for one in fields(ObjectiveArguments))}
    read = {}
    for cell in cells:
        # On a CPU: this process only reads, and a GPU is the trainings'.
        model, args = parse(cell.recipe, [*as_flags(cell.flags), "--use_cpu", "true", "--bf16", "false"])
        values = {**vars(model), **args.to_dict()}
        named = {*cell.written(), *vars(model), *common}  # of all others, some differ by machine
        read[cell.name] = json.loads(json.dumps({key: values[key] for key in named & values.keys()}, default=str))
    return read


def check_cells(cells: Sequence[Cell], out: Path) -> dict[str, int]:
    """Check the recipe and flags of each cell, and `check_folders`.

    Raises:
        ConfigError: If a recipe or a flag cannot be used.
        ComparisonError: If a folder holds something else.
    """
    return check_folders(read_cells(cells), out)


def check_folders(read: Mapping[str, Fields], out: Path) -> dict[str, int]:
    """Check that what the folder of each cell holds is a training of the same.

    Args:
        read: What is trained, by a cell's name.
        out: Folder of the comparison.

    Returns:
        By a cell's name, the number of its steps; 0 if the recipe counts epochs.

    Raises:
        ComparisonError: If a folder holds something else.
    """
    check_place(out)
    for name, asked in read.items():
        _check_same(out / name, asked)
    return {name: max(int(asked["max_steps"]), 0) for name, asked in read.items()}


def check_place(out: Path) -> None:
    """Raise ComparisonError if a comparison cannot have this folder."""
    if out.exists() and not out.is_dir():
        raise ComparisonError(f"{out} is a file: name a folder with --out")
    if (out / "config.yaml").is_file():
        raise ComparisonError(f"{out} is a run: name another folder with --out")


def check_tasks(read: Mapping[str, Fields]) -> None:
    """Check that the task of each cell is there and has the options that are asked for.

    Raises:
        UnknownNameError: If there is no such task.
        ValueError: If the task lacks an option.
    """
    from llm_sra.registry import check_options, task_class

    for asked in read.values():
        check_options(asked["task"], task_class(asked["task"]), asked["task_args"] or {})


def options_of(asked: Fields) -> dict[str, Any] | None:
    """The options of a training's task, as the run will have them."""
    from llm_sra.registry import models_named
    from llm_sra.trainer.explain import options_for

    return options_for(asked["task"], asked["task_args"], models_named(asked))


def check_counts(jobs: int, problems: int) -> None:
    """Raise ComparisonError unless the numbers of trainings at a time and of problems are 1 or more."""
    if jobs < 1 or problems < 1:
        raise ComparisonError(f"--jobs and --problems must be 1 or more, got {jobs} and {problems}")


def check_comparable(read: Mapping[str, Fields]) -> None:
    """Raise ComparisonError if the agents of some cells could not play with each other: of other tasks or limits."""

    def compared(asked: Fields) -> Fields:
        """As the run will have them."""
        limit = asked["max_completion_length"]
        return {"task": asked["task"], "task_args": options_of(asked) or {}, "max_completion_length": limit}

    first, *others = read
    ours = compared(read[first])
    for name in others:
        theirs = compared(read[name])
        for key in (key for key in ours if ours[key] != theirs[key]):
            raise ComparisonError(
                f"{first} and {name} cannot play with each other: their {key} is {ours[key]!r} and {theirs[key]!r}. "
                "Make them equal, or train them only, with --train_only"
            )


def _check_same(folder: Path, wanted: Fields) -> None:
    """Raise ComparisonError if a folder holds another training than is asked for, or other files."""
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and any(path.name != ".lock" for path in folder.iterdir()):
            raise ComparisonError(f"{folder} holds other files: name another folder with --out")
        return
    try:
        there = Run.open(folder).config
    except RunError as error:
        raise ComparisonError(f"{error}. Remove {folder}, or name another folder with --out") from error
    differing = [
        f"{key} {_shown(there[key])}, now {_shown(wanted[key])}"
        for key in sorted(wanted.keys() & there.keys() - ELSEWHERE)
        if not _same(key, wanted[key], there[key])
    ]
    if differing:
        raise ComparisonError(
            f"{folder} was trained with other settings ({'; '.join(differing[:4])}): name another folder with --out, "
            "or replace it with --again"
        )


def _same(key: str, wanted: Any, there: Any) -> bool:
    if key == "task_args":  # a training adds what its task has for models that were not made for it
        return {**(there or {}), **(wanted or {})} == (there or {})
    if isinstance(wanted, int | float) and isinstance(there, int | float):
        return float(wanted) == float(there)
    return bool(wanted == there)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:60]


def remove_runs(folders: Iterable[Path]) -> list[Path]:
    """Remove trainings and their logs; what is no training stays.

    Args:
        folders: Of cells, those among them that are not there, too.

    Returns:
        The folders that were removed.

    Raises:
        ComparisonError: If one of them runs now; nothing is removed then.
    """
    runs = [folder for folder in folders if (folder / "config.yaml").is_file()]
    for run in runs:
        try:
            FolderLock(run).release()
        except LockedError as error:
            raise ComparisonError(f"{error}. Nothing was removed") from error
    for run in runs:
        shutil.rmtree(run)
        run.with_name(f"{run.name}.log").unlink(missing_ok=True)
    return runs
