"""What the tests of training against the oracle share: a matrix game, trained by a recipe and compared with theory."""

from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from eval.oracle import NEAR, Comparison, compare_with_oracle, oracle_table
from llm_sra import train

RECIPE = ROOT / "recipes" / "effort" / "srpo.yaml"


def game(name: str) -> dict[str, Any]:
    """A known game, its payoffs scaled to range over 1."""
    return {"task_args": {"game": name, "normalise": True}}


def each_run(runs: dict[str, dict[str, Any]]) -> pytest.MarkDecorator:
    """A test for each training of 150 steps; the first stands for its kind, the others are slow."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in list(runs)[1:]]
    return pytest.mark.parametrize("name", [next(iter(runs)), *slow])


def trained_to_equilibrium(out: Path, options: dict[str, Any]) -> Comparison:
    """Train, and see that the agents and their adversaries reach a stable equilibrium."""
    compared = compare_with_oracle(train(RECIPE, output_dir=out, disable_tqdm=True, **options))
    assert compared.adversaries and compared.reached, f"{oracle_table([compared])} (at most {NEAR})"
    return compared
