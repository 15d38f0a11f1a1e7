"""What the tests of training against the oracle share: a matrix game, trained by a recipe and held against theory."""

from pathlib import Path
from typing import Any

from support import ROOT

from eval.oracle import NEAR, Comparison, compare_with_oracle, oracle_table
from llm_sra import train

RECIPE = ROOT / "recipes" / "effort" / "srpo.yaml"


def game(name: str) -> dict[str, Any]:
    """A known game, its payoffs scaled to range over 1."""
    return {"task_args": {"game": name, "normalise": True}}


def trained_to_equilibrium(out: Path, options: dict[str, Any]) -> Comparison:
    """Train, and see that the agents and their adversaries reach a stable equilibrium."""
    compared = compare_with_oracle(train(RECIPE, output_dir=out, disable_tqdm=True, **options))
    assert compared.adversaries and compared.reached, f"{oracle_table([compared])} (at most {NEAR})"
    return compared
