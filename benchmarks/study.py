"""`make study`: all arms over seeds, and SRPO over τ and ε, each a run folder; then all of them with strangers.

With `--task kitchen` (`tag`, `hanabi`) it is that task's arms in the worksheet's place, below `runs/study/kitchen`.

These are comparisons as `llm-sra compare` makes them: a finished run is not trained again, an interrupted one goes on
from its last checkpoint, and what was played is kept. Prints and writes `runs/study/study.md` and `study.png`.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipes.comparing.cells import Cell, check_cells, make_cells
from recipes.comparing.evaluating import Played, evaluate
from recipes.comparing.training import Trainings
from recipes.comparing.whole import Comparison, compare
from recipes.terminal import console, run_command

ROOT = Path(__file__).parent.parent
ROSTER = "worksheet_test"
SEEDS = (1, 2, 3, 4, 5)
ARMS = ("ippo", "srpo")
# All with the same budget of episodes; the pools of fcp (the agents of ippo) and mep come on top.
BASELINES = ("srpo_sampled", "adversary", "best_response", "entropy", "fcp", "mep", "dr_mamr", "adalign")
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


def arm_cells() -> list[Cell]:
    """Both arms at their chosen settings, over seeds."""
    return make_cells([f"worksheet/{arm}" for arm in ARMS], seeds=SEEDS)


def baseline_cells(seeds: Sequence[int] = SEEDS) -> list[Cell]:
    """The other arms over the same seeds."""
    untrained = Cell(UNTRAINED, "worksheet/ippo", {"arm": "untrained"})
    return [untrained, *make_cells([f"worksheet/{arm}" for arm in BASELINES], seeds=seeds)]


def population_cells() -> list[Cell]:
    """The population that mep learns to play with."""
    return make_cells(["worksheet/mep_pool"], seeds=[1])


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
    """The arms of a task, which are compared."""
    return make_cells([f"{task}/{arm}" for arm in TASK_ARMS], seeds=TASK_SEEDS)


def pool_cells(task: str) -> list[Cell]:
    """The agents of IPPO that a task's fcp learns to play with."""
    return make_cells([f"{task}/ippo"], seeds=POOL_SEEDS)


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


def fill(cells: Sequence[Cell], out: Path, processes: int) -> None:
    """Train those of the cells that are not finished.

    Raises:
        ComparisonError: If a folder holds a training with other settings: it must not pass for this one.
        TrainingError: If a training failed.
    """
    Trainings(cells, out, check_cells(cells, out), processes).run()


def play(cells: Sequence[Cell], played: Played, out: Path) -> None:
    """Play the agents of runs with the test roster, unless that has been done."""
    evaluate(played, cells, out)


def study_worksheet(out: Path, problems: int, processes: int, arms_only: bool, seeds: int) -> str:
    """Train what is missing of the worksheet's cells, play them with the test roster, and report.

    Args:
        out: Folder of the study.
        problems: Held-out problems with each partner, seat and decoding.
        processes: Trainings at a time.
        arms_only: Whether the matrix games and the sweep over τ and ε are left out.
        seeds: How many seeds of the baselines.

    Returns:
        `study.md`, and before it the matrix games beside theory.
    """
    from benchmarks.study_report import write_games, write_report

    arms, baselines = arm_cells(), baseline_cells(SEEDS[:seeds])
    played = Played(ROSTER, problems, cross_play=False)
    fill(arms, out, processes)  # what comes next may play with them
    for which in WHICH:
        play(arms, replace(played, checkpoint="" if which == "end" else which, folder=f"eval/{which}"), out)
    fill([*population_cells(), *baselines], out, processes)
    play(baselines, replace(played, folder="eval/baselines"), out)
    text = ""
    if not arms_only:
        sweep, games = sweep_cells(), game_cells()
        fill([*sweep, *games], out, processes)
        play(sweep, replace(played, folder="eval/sweep"), out)
        shared = [cell for cell in arms if cell.name in SHARED.values()]
        play(shared, replace(played, checkpoint=f"checkpoint-{SWEEP_STEPS}", folder="eval/shared"), out)
        text = write_games(out, [cell.name for cell in games]) + "\n"
    return text + write_report(out, [cell.name for cell in arms], [c.name for c in baselines], not arms_only)


def tune_worksheet(out: Path, processes: int) -> str:
    """Make the tuning trials that are missing, and before them the pools that some arms play with.

    Returns:
        What was tried and found, as Markdown.
    """
    from benchmarks.study_tuning import FOLDER, trials, tuning_table

    fill([*make_cells(["worksheet/ippo"], seeds=SEEDS), *population_cells()], out, processes)
    fill([trial.cell for trial in trials()], out / FOLDER, processes)
    return tuning_table(out)


def study_task(task: str, out: Path, problems: int, processes: int) -> str:
    """Train what is missing of a task's cells, play all with each other and with its test roster, and report.

    Returns:
        What the trainings cost and what the agents did, as Markdown; `report/` has everything.
    """
    from benchmarks.study_report import write_task

    out = out / task
    fill(pool_cells(task), out, processes)
    played = Played(f"{task}_test", problems, decodings=["sampled"])
    compare(Comparison(task_cells(task), out, played, processes), console())
    return write_task(out, task)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then report on all."""
    parser = argparse.ArgumentParser("study", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument(
        "--arms_only", action="store_true", help="leave out the matrix games and the sweep over τ and ε"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds of the baselines")
    parser.add_argument(
        "--tune", action="store_true", help="make the tuning trials of the worksheet's arms, on the dev roster, instead"
    )
    parser.add_argument("--task", choices=TASKS, help="a task's arms, in the worksheet's place")
    args = parser.parse_args(argv)
    if args.task and (args.arms_only or args.tune or args.seeds != len(SEEDS)):
        parser.error(
            "--seeds, --arms_only and --tune are the worksheet's: with --task all arms run, over seeds "
            f"{', '.join(map(str, TASK_SEEDS))}"
        )
    out = args.out.resolve()
    if args.tune:
        print(tune_worksheet(out, args.processes))
    elif args.task:
        print(study_task(args.task, out, args.problems, args.processes))
    else:
        print(study_worksheet(out, args.problems, args.processes, args.arms_only, args.seeds))


if __name__ == "__main__":
    sys.exit(run_command(main))
