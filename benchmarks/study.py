"""`make study`: all arms over seeds, and SRPO over τ and ε, each a run folder; then all of them with strangers.

With `--task kitchen` (`tag`, `hanabi`) it is that task's arms in the worksheet's place, below `runs/study/kitchen`.

Resumable cell by cell: a finished run is not trained again, an interrupted one goes on from its last checkpoint, and
an evaluation that exists is kept. Prints and writes `runs/study/study.md` and `study.png`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
ROSTER = ROOT / "eval" / "rosters" / "worksheet_test.yaml"
SEEDS = (1, 2, 3, 4, 5)
ARMS = ("ippo", "srpo")
# All with the same budget of episodes; fcp's pool are the agents of ippo, and comes on top.
BASELINES = ("srpo_sampled", "adversary", "best_response", "entropy", "fcp")
# Matrix games held against theory: each by both algorithms.
GAMES = ("effort", "prisoners_dilemma", "inspection", "battle_of_the_sexes")
PROFILES = ((1.0, 0.3), (2.0, 0.2), (3.0, 0.2))  # τ and ε, for payoffs that range over 1
PPO = {"algorithm": "ppo", "advantage_baseline": "mean", "critic_learning_rate": 2e-3}
UNTRAINED = "untrained-seed1"  # the base model in both seats; its seed plays no part
TAUS = (0.0, 0.1, 1.0, 10.0, 100.0)
TASKS = ("kitchen", "tag", "hanabi")
TASK_ARMS = ("ippo", "srpo", "fcp")
TASK_SEEDS = (1, 2, 3)
POOL_SEEDS = (4, 5)  # of the IPPO agents that fcp learns to play with
WHICH = ("end", "best")  # of an arm's run: its last adapters, and the checkpoint that the dev roster chose
SWEEP_STEPS = 60
# Two cells of the sweep are runs of the arms as they stood at that step: at τ = 0 SRPO is IPPO, and 10 is the recipe's.
SHARED = {"tau0-eps": "ippo-seed1", "tau10-eps": "srpo-seed1"}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Name of its run folder.
        recipe: Its recipe, below `recipes/`.
        flags: What differs from the recipe.
    """

    name: str
    recipe: str
    flags: dict[str, object] = field(default_factory=dict)


def arm_cells() -> list[Cell]:
    """Both arms at their chosen settings, over seeds."""
    return [Cell(f"{arm}-seed{seed}", f"worksheet/{arm}", {"seed": seed}) for seed in SEEDS for arm in ARMS]


def baseline_cells() -> list[Cell]:
    """The other arms over the same seeds; fcp last, as its pool must be there."""
    untrained = Cell(UNTRAINED, "worksheet/ippo", {"arm": "untrained"})
    trained = [Cell(f"{arm}-seed{seed}", f"worksheet/{arm}", {"seed": seed}) for arm in BASELINES for seed in SEEDS]
    return [untrained, *trained]


def game_cells() -> list[Cell]:
    """Matrix games, payoffs scaled to range over 1; seed 1."""
    return [
        Cell(
            f"{game}-tau{tau:g}-eps{eps:g}-{algorithm}",
            "effort/srpo",
            {"task_args": json.dumps({"game": game, "normalise": True}), "tau": tau, "entropy_coef": eps, **flags},
        )
        for game in GAMES
        for tau, eps in PROFILES
        for algorithm, flags in (("grpo", {}), ("ppo", PPO))
    ]


def task_cells(task: str) -> list[Cell]:
    """The arms of a task, one after the other; fcp last, as its pool must be there."""
    seeds = {arm: TASK_SEEDS + POOL_SEEDS * (arm == "ippo") for arm in TASK_ARMS}
    return [Cell(f"{arm}-seed{seed}", f"{task}/{arm}", {"seed": seed}) for arm in TASK_ARMS for seed in seeds[arm]]


def sweep_cells() -> list[Cell]:
    """SRPO over τ with and without ε, one seed; and the tether in the other direction."""
    common = {"seed": 1, "max_steps": SWEEP_STEPS}
    none = {"entropy_coef": 0, "adversary_entropy_coef": 0}
    cells = [
        Cell(f"tau{tau:g}-{name}", "worksheet/srpo", {**common, "tau": tau, **flags})
        for tau in TAUS
        for name, flags in (("eps", {}), ("noeps", none))
    ]
    other = Cell("tau10-otherkl", "worksheet/srpo", {**common, "tau": 10.0, "kl_direction": "partner_adversary"})
    return [*(cell for cell in cells if cell.name not in SHARED), other]


def train(cell: Cell, out: Path) -> None:
    """Train a cell in a process of its own, with one thread, unless it is finished.

    Raises:
        SystemExit: If what is there was begun with another recipe: it must not pass for this one.
    """
    folder, record = out / cell.name, out / f"{cell.name}.cell.json"
    asked = {"recipe": (RECIPES / f"{cell.recipe}.yaml").read_text(encoding="utf-8"), "flags": cell.flags}
    if folder.exists() and (not record.is_file() or json.loads(record.read_text(encoding="utf-8")) != asked):
        raise SystemExit(
            f"{folder} was begun with other settings than {cell.recipe}.yaml has now: remove it, or name another --out"
        )
    record.write_text(json.dumps(asked), encoding="utf-8")
    if (folder / "adapters").is_dir():
        return
    flags = {"output_dir": folder, "resume_from_checkpoint": "true", "disable_tqdm": "true", **cell.flags}
    command = [sys.executable, str(ROOT / "recipes" / "train.py"), "--config", str(RECIPES / f"{cell.recipe}.yaml")]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    _run(command, out / f"{cell.name}.log")


def evaluate(name: str, which: str, out: Path, problems: int) -> None:
    """Play the agents of a run with the test roster: at its `end`, its `best` checkpoint, or a checkpoint by name."""
    folder = out / "eval" / f"{name}@{which}"
    if (folder / "results.json").is_file():
        return
    run = f"{out / name}" + ("" if which == "end" else f"@{which}")
    command = [sys.executable, "-m", "recipes.cli", "eval", "--run", run, "--roster", str(ROSTER)]
    _run([*command, "--out", str(folder), "--problems", str(problems)], out / f"{name}.log")


def study_task(task: str, out: Path, problems: int, processes: int) -> str:
    """Train what is missing of a task's cells, play all with each other and with its test roster, and report.

    Returns:
        What the trainings cost and what the agents did, as Markdown; `report/` has everything.
    """
    cells, out = task_cells(task), out / task
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(processes) as pool:
        first = [cell for cell in cells if cell.recipe == f"{task}/ippo"]  # fcp's pool is among them
        list(pool.map(lambda cell: train(cell, out), first))
        list(pool.map(lambda cell: train(cell, out), [cell for cell in cells if cell not in first]))
    runs = [str(out / cell.name) for cell in cells if cell.flags["seed"] in TASK_SEEDS]
    folder, program = out / "eval", [sys.executable, "-m", "recipes.cli"]
    played = ["--roster", f"{task}_test", "--problems", str(problems), "--decoding", "sampled", "--cross_play"]
    _run([*program, "eval", "--run", *runs, "--out", str(folder), *played], out / "eval.log")
    _run([*program, "report", *runs, "--eval", str(folder), "--out", str(out / "report")], out / "eval.log")
    from benchmarks.study_report import write_task

    return write_task(out, task)


def _run(command: Sequence[str], log: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"failed, see {log}: {' '.join(command)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the missing cells, then report on all."""
    parser = argparse.ArgumentParser("study", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument(
        "--arms_only", action="store_true", help="leave out the matrix games and the sweep over τ and ε"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds of the baselines")
    parser.add_argument("--task", choices=TASKS, help="a task's arms, in the worksheet's place")
    args = parser.parse_args(argv)
    if args.task and (args.arms_only or args.seeds != len(SEEDS)):
        parser.error(
            "--seeds and --arms_only are the worksheet's: with --task all arms run, over seeds "
            f"{', '.join(map(str, TASK_SEEDS))}"
        )
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.task:
        print(study_task(args.task, args.out, args.problems, args.processes))
        return

    def fill(cell: Cell, which: Sequence[str]) -> None:
        train(cell, args.out)
        for one in which:
            evaluate(cell.name, one, args.out, args.problems)
        print(f"done: {cell.name}", flush=True)

    sweep = [] if args.arms_only else sweep_cells()
    baselines = [cell for cell in baseline_cells() if int(cell.name.rsplit("seed", 1)[1]) <= args.seeds]
    with ThreadPoolExecutor(args.processes) as pool:
        arms = [pool.submit(fill, cell, WHICH) for cell in arm_cells()]
        for done in arms:  # what comes now may play with them
            done.result()
        rest = [pool.submit(fill, cell, WHICH[:1]) for cell in (*baselines, *sweep)]
        games = [pool.submit(fill, cell, ()) for cell in ([] if args.arms_only else game_cells())]
        for done in (*rest, *games):
            done.result()
        if sweep:
            at = f"checkpoint-{SWEEP_STEPS}"
            list(pool.map(lambda name: evaluate(name, at, args.out, args.problems), SHARED.values()))
    from benchmarks.study_report import write_games, write_report

    swept = [f"{name}@checkpoint-{SWEEP_STEPS}" for name in SHARED.values()] + [f"{c.name}@end" for c in sweep]
    names = [cell.name for cell in baselines]
    if games:
        print(write_games(args.out, [cell.name for cell in game_cells()]))
    print(write_report(args.out, [cell.name for cell in arm_cells()], swept if sweep else [], names))


if __name__ == "__main__":
    main()
