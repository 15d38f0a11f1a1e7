"""Trained agents against exact equilibria: the whole pipeline (play, credit, trainer, adapters) on matrix games."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ROOT

from eval.oracle import NEAR, compare_with_oracle, oracle_table
from eval.oracle import main as oracle
from llm_sra import train
from llm_sra.runs import RunError

RECIPE = ROOT / "recipes" / "effort" / "srpo.yaml"
PPO = {"algorithm": "ppo", "advantage_baseline": "mean", "critic_learning_rate": 2e-3}


def game(name: str) -> dict[str, Any]:
    return {"task_args": {"game": name, "normalise": True}}


# Four games, three pairs of τ and ε, both algorithms, and one policy for both seats.
RUNS: dict[str, dict[str, Any]] = {
    "effort, grpo": {"tau": 3, "entropy_coef": 0.2},
    "effort, grpo, shared": {"tau": 3, "entropy_coef": 0.2, "sharing": "shared"},
    "prisoner's dilemma, grpo": {**game("prisoners_dilemma"), "tau": 1, "entropy_coef": 0.3},
    "inspection, grpo": {**game("inspection"), "tau": 1, "entropy_coef": 0.3},
    "battle of the sexes, ppo": {**game("battle_of_the_sexes"), "tau": 3, "entropy_coef": 0.2, **PPO},
    "prisoner's dilemma, ppo": {**game("prisoners_dilemma"), "tau": 2, "entropy_coef": 0.2, **PPO},
}


@pytest.mark.parametrize("name", RUNS)
def test_training_reaches_a_stable_equilibrium_and_its_adversaries(name: str, tmp_path: Path) -> None:
    compared = compare_with_oracle(train(RECIPE, output_dir=tmp_path / "run", disable_tqdm=True, **RUNS[name]))
    assert compared.adversaries and compared.reached, f"{oracle_table([compared])} (at most {NEAR})"
    if "shared" in name:
        assert np.allclose(compared.policies["first"], compared.policies["second"])


def test_agents_that_were_not_trained_are_no_equilibrium(tmp_path: Path) -> None:
    run = train(RECIPE, output_dir=tmp_path / "run", max_steps=1, disable_tqdm=True)
    compared = compare_with_oracle(run)
    assert compared.distance > 2 * NEAR and compared.gain > 0.01 and not compared.reached


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
