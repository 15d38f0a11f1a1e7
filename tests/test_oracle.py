"""Agents trained by GRPO against exact equilibria: play, credit, trainer and adapters, all of it, on matrix games."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_support import RECIPE, each_run, game, trained_to_equilibrium

from eval.oracle import NEAR, compare_with_oracle, draw, oracle_table
from llm_sra import train
from llm_sra.runs import RunError
from recipes.commands.oracle import main as oracle

# With those of PPO four games and three pairs of τ and ε; and one policy for both seats.
RUNS: dict[str, dict[str, Any]] = {
    "effort": {"tau": 3, "entropy_coef": 0.2},
    "effort, shared": {"tau": 3, "entropy_coef": 0.2, "sharing": "shared"},
    "prisoner's dilemma": {**game("prisoners_dilemma"), "tau": 1, "entropy_coef": 0.3},
    "inspection": {**game("inspection"), "tau": 1, "entropy_coef": 0.3},
    "effort, no tether": {"arm": "adversary", "entropy_coef": 0.2},
}


@each_run(RUNS)
def test_training_reaches_a_stable_equilibrium_and_its_adversaries(name: str, tmp_path: Path) -> None:
    compared = trained_to_equilibrium(tmp_path / "run", RUNS[name])
    if "shared" in name:
        assert np.allclose(compared.policies["first"], compared.policies["second"])


def test_agents_that_were_not_trained_are_no_equilibrium(tmp_path: Path) -> None:
    run = train(RECIPE, output_dir=tmp_path / "run", max_steps=1, disable_tqdm=True)
    compared = compare_with_oracle(run)
    assert compared.distance > 2 * NEAR and compared.gain > 0.01 and not compared.reached


def test_pure_adversaries_are_compared_with_heroes_that_prepare_for_the_worst(tmp_path: Path) -> None:
    few = {"arm": "adversary", "num_generations": 4, "max_steps": 1, "disable_tqdm": True}
    compared = compare_with_oracle(train(RECIPE, output_dir=tmp_path / "run", **few))
    work = 1 / (1 + np.exp(-0.7 / 0.2))  # beside one who always rests
    assert np.allclose(compared.nearest.policies, [[1 - work, work]] * 2)
    assert compared.distance == pytest.approx(max(abs(policy[1] - work) for policy in compared.policies.values()))
    assert compared.adversary_distance == max(policy[1] for policy in compared.adversaries.values())
    row = oracle_table([compared]).splitlines()[-1]
    assert "| effort | grpo | no tether | 0.2 |" in row and "| 0.971 / 0.971 |" in row and not compared.reached
    with pytest.raises(RunError, match="none of the runs played the effort game with arm ippo or srpo"):
        draw([compared], tmp_path / "effort.png")
    indifferent = {"payoffs": {"first": [[0, 1], [0, 1]], "second": [[0, 1], [0, 1]]}}
    run = train(RECIPE, output_dir=tmp_path / "any", task_args=indifferent, entropy_coef=0, **few)
    with pytest.raises(RunError, match="several policies do best beside an adversary without a tether at eps 0"):
        compare_with_oracle(run)


def test_the_command_prints_a_table_and_draws_the_effort_game(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(RECIPE, output_dir=tmp_path / "run", max_steps=1, disable_tqdm=True)
    capsys.readouterr()
    oracle([str(run.path), "--picture", str(tmp_path / "effort.png")])
    assert "| effort | grpo | 3 | 0.2 |" in capsys.readouterr().out
    assert (tmp_path / "effort.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_an_equilibrium_is_refused(tmp_path: Path) -> None:
    run = train(RECIPE, output_dir=tmp_path / "run", max_steps=1, scale_rewards="batch", disable_tqdm=True)
    with pytest.raises(RunError, match="advantages in units of the reward"):
        compare_with_oracle(run)


def test_a_run_whose_tau_changed_is_compared_at_the_last_one(tmp_path: Path) -> None:
    schedule = {"tau_schedule": "linear", "tau_start": 1, "tau_schedule_steps": 4, "tau": 3}
    run = train(
        RECIPE,
        output_dir=tmp_path / "run",
        max_steps=2,
        num_generations=4,
        disable_tqdm=True,
        logging_steps=2,
        **schedule,
    )
    assert compare_with_oracle(run).profile.tau == (1.5, 1.5)  # steps 0 and 1 of 4 from 1 to 3
    (run.path / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match=r"tau_schedule is linear, and metrics\.jsonl does not say how many steps"):
        compare_with_oracle(run)
