"""PPO against exact equilibria; a file of its own, as these take as long as all others of their kind."""

from pathlib import Path
from typing import Any

from oracle_support import each_run, game, trained_to_equilibrium

PPO = {"algorithm": "ppo", "advantage_baseline": "mean", "critic_learning_rate": 2e-3}
RUNS: dict[str, dict[str, Any]] = {
    "battle of the sexes": {**game("battle_of_the_sexes"), "tau": 3, "entropy_coef": 0.2},
    "prisoner's dilemma": {**game("prisoners_dilemma"), "tau": 2, "entropy_coef": 0.2},
}


@each_run(RUNS)
def test_ppo_reaches_a_stable_equilibrium_and_its_adversaries(name: str, tmp_path: Path) -> None:
    trained_to_equilibrium(tmp_path / "run", {**RUNS[name], **PPO})
