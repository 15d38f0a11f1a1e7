"""How close trained agents are to the exact equilibria of their matrix game.

The agents' policies are computed from their models without sampling; the equilibria are those of `llm_sra.games`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm_sra.games import Equilibrium, MatrixGame, RiskProfile, equilibria, exploitability, symmetric
from llm_sra.games.objective import adversary
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.runs import Run, RunError, read_metrics
from llm_sra.runs.trust import may_run_code, task_of_run
from llm_sra.trainer.arms import adversary_of, assign_roles, tether_strength
from llm_sra.untrusted import one_line
from tasks.effort import Effort

Array = NDArray[np.float64]
NEAR = 0.05  # of probabilities
TIE = 1e-3  # of the payoffs' range: actions of a partner that are as bad as the worst
# What a training's settings must be, so that its objective is the game that the oracle solves.
THEORY: Mapping[str, Callable[[Any], bool]] = {
    "arm": lambda value: value in ("ippo", "srpo", "adversary"),
    "partners": lambda value: not value,
    "scale_rewards": lambda value: value == "none",
    "whiten_advantages": lambda value: not value,
    "adversary_entropy_coef": lambda value: not value,
    "adversary_mix": lambda value: not value,
    "beta": lambda value: not value,
    "tau_schedule": lambda value: value != "target_kl",
}


@dataclass(frozen=True)
class Comparison:
    """Trained agents beside the oracle.

    Attributes:
        run: Name of the run.
        game: Name of the game.
        profile: τ and ε that the agents were trained with; of τ that changed on the way, the last; without a tether τ
            is infinite.
        algorithm: How they were trained.
        policies: By seat, the probability of each action.
        adversaries: By the seat whose adversary it is, the probability of each of the other seat's actions; empty if
            there are none.
        nearest: The stable equilibrium nearest to the policies; for shared policies, the nearest symmetric one.
        distance: Largest difference of a probability from that equilibrium, in [0, 1].
        adversary_distance: Largest difference of an adversary's probability from p ∝ π exp(-τ E R) of the trained
            policies, in [0, 1]; without a tether, how often an adversary does what is not worst for the exact policy.
            None if there are none.
        gain: What either agent could still gain by another policy, in units of the reward.
    """

    run: str
    game: str
    profile: RiskProfile
    algorithm: str
    policies: Mapping[str, Array]
    adversaries: Mapping[str, Array]
    nearest: Equilibrium
    distance: float
    adversary_distance: float | None
    gain: float

    @property
    def reached(self) -> bool:
        """Whether policies and adversaries are within `NEAR`."""
        return max(self.distance, self.adversary_distance or 0.0) <= NEAR


def compare_with_oracle(
    path: str | Path | Run, trust_remote_code: bool = False, trust_task: bool = False
) -> Comparison:
    """Compare a run on a matrix game with the exact equilibria.

    Args:
        path: The run folder.
        trust_remote_code: Whether Python that comes with its model may run.
        trust_task: Whether its task may run if it does not ship and somebody else trained the run.

    Raises:
        RunError: If the run is not of the task `effort`, its training has no equilibrium to compare with or several
            policies do best without a tether, or it is not known at which τ it ended.
    """
    run = path if isinstance(path, Run) else Run.open(path)
    config = run.config
    task = task_of_run(run, config.get("task_args"), trust_task)
    if not isinstance(task, Effort):
        raise RunError(
            f"{run.path} is of task {config['task']!r}: only matrix games (task effort) have exact equilibria"
        )
    if wrong := [key for key, fits in THEORY.items() if key in config and not fits(config[key])]:
        raise RunError(
            f"{run.path}: the oracle has the equilibria of arms ippo, srpo and adversary at one tau, with advantages "
            "in units of the reward and nothing else in the objective; not of "
            f"{', '.join(f'{key} {config[key]}' for key in wrong)}"
        )
    tau = 0.0 if config["arm"] == "ippo" else tether_strength(config["arm"], _last_tau(run))
    profile = RiskProfile.same(tau, float(config["entropy_coef"]), config["kl_direction"])
    policies, adversaries = trained_policies(run, task, trust_remote_code)
    mine = [policies[seat] for seat in task.seats]
    try:
        found = [each for each in equilibria(task.game, profile) if each.stable is not False]
    except (ValueError, ArithmeticError) as error:
        raise RunError(f"{run.path}: {error}") from error
    if config["sharing"] == "shared" and len({tuple(task.view((), seat)) for seat in task.seats}) == 1:
        found = symmetric(found)  # one policy that is asked the same in both seats says the same
    nearest = min(found, key=lambda each: _distance(each.policies, mine))
    gaps = []
    for me, seat in enumerate(task.seats):
        if seat in adversaries and math.isinf(tau):
            gaps.append(_not_worst(task.game, me, nearest, adversaries[seat]))
        elif seat in adversaries:
            logs = np.log(mine[me]), np.log(mine[1 - me])
            exact = adversary(task.game.own[me], *logs, tau, profile.direction)
            gaps.append(float(np.abs(adversaries[seat] - exact).max()))
    return Comparison(
        run=run.name,
        game=task.game.name,
        profile=profile,
        algorithm=str(config["algorithm"]),
        policies=policies,
        adversaries=adversaries,
        nearest=nearest,
        distance=_distance(nearest.policies, mine),
        adversary_distance=max(gaps) if gaps else None,
        gain=exploitability(task.game, profile, (mine[0], mine[1])),
    )


def _not_worst(game: MatrixGame, me: int, exact: Equilibrium, trained: Array) -> float:
    """How often a player's adversary does what is not the worst for its exact policy, in [0, 1]."""
    left = exact.policies[me] @ game.own[me]
    return float(trained[left > left.min() + TIE * game.scale].sum())


def _last_tau(run: Run) -> float:
    """τ of the last step: that of the configuration, or where its line had come to."""
    config, kind = run.config, run.config.get("tau_schedule", "constant")
    if kind == "constant":
        return float(config["tau"])
    done = max((int(line["step"]) for line in read_metrics(run.path / "metrics.jsonl")), default=0)
    if not done:
        raise RunError(
            f"{run.path}: tau_schedule is {kind}, and metrics.jsonl does not say how many steps were made, so the tau "
            "at which the training ended is not known"
        )
    steps = config.get("tau_schedule_steps") or max(int(config["max_steps"]), 1)
    return TauSchedule(kind, float(config["tau"]), float(config["tau_start"]), int(steps)).at(done - 1)


@torch.no_grad()
def trained_policies(
    run: Run, task: Effort, trust_remote_code: bool = False
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Exact probabilities of a run's choices: by seat its hero's, and those of its hero's adversary."""
    config = run.config
    trusted = may_run_code(run, trust_remote_code)
    roles = assign_roles(str(config["arm"]), task.seats, str(config["sharing"]), float(config["tau"]))
    places: dict[str, tuple[AdapterBank, Renderer]] = {}
    for model in dict.fromkeys(run.model_of(name) for name in roles.adapters):
        base, tokenizer = load_model(model, dtype=config.get("dtype"), trust_remote_code=trusted)
        places[model] = AdapterBank(base), Renderer.of(tokenizer, config)
    for name in roles.adapters:
        places[run.model_of(name)][0].load(run.adapters / name, name)

    def probabilities(adapter: str, seat: str) -> Array:
        bank, renderer = places[run.model_of(adapter)]
        ids = list(renderer.single_tokens(task.choices_of(seat)))
        prompt = torch.tensor([renderer.render(task.view((), seat))])
        with bank.using(adapter):
            logits = bank.base(input_ids=prompt).logits[0, -1, ids].double() / float(config["temperature"])
        return np.asarray(logits.softmax(dim=-1).numpy())

    policies = {seat: probabilities(roles.heroes[seat], seat) for seat in task.seats}
    adversaries = {}
    for hero, other in (task.seats, task.seats[::-1]):
        name = adversary_of(hero, str(config["sharing"]))
        if name in roles.adversaries:
            adversaries[hero] = probabilities(name, other)
    return policies, adversaries


def oracle_table(compared: Sequence[Comparison]) -> str:
    """A Markdown table, one row for each run: the probability of each seat's last action beside the exact one."""
    head = "| run | game | algorithm | τ | ε | trained | exact | off by | adversaries off by | could gain |"
    rows = [head, "|---" * (head.count("|") - 1) + "|"]
    for each in compared:
        exact = _both([policy[-1] for policy in each.nearest.policies])
        gap = "-" if each.adversary_distance is None else f"{each.adversary_distance:.3f}"
        cells = [
            one_line(each.run).replace("|", "\\|"),
            each.game,
            one_line(each.algorithm),
            f"{each.profile.tau[0]:g}".replace("inf", "no tether"),
            f"{each.profile.eps[0]:g}",
            _both([policy[-1] for policy in each.policies.values()]),
            exact,
            f"{each.distance:.3f}",
            gap,
            f"{each.gain:.4f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(compared: Sequence[Comparison], path: Path) -> Path:
    """The effort game's equilibria over τ, with the trained agents that played it at a τ of the axis.

    Raises:
        RunError: If none of them did, with the tether's usual direction.
    """
    from eval.games_plot import effort_figure

    played = [each for each in compared if each.game == "effort" and each.profile.direction == "adversary_partner"]
    points = []
    for each in played:
        first, second = (float(each.policies[seat][-1]) for seat in Effort.seats)
        if math.isfinite(each.profile.tau[0]):
            points.append((each.profile.tau[0], each.profile.eps[0], first, second))
    if not points:
        raise RunError("none of the runs played the effort game with arm ippo or srpo, so there is nothing to draw")
    return effort_figure(path, points, sorted({eps for _, eps, *_ in points}))


def _both(numbers: Sequence[float]) -> str:
    return " / ".join(f"{number:.3f}" for number in numbers)


def _distance(exact: Sequence[Array], trained: Sequence[Array]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(exact, trained, strict=True))
