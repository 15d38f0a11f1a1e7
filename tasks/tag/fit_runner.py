"""Finds the weights of the trained runner: `python -m tasks.tag.fit_runner --out tasks/tag/runner.json`.

Cross-entropy method: draw policies around a mean, keep the best, move mean and spread to them. The best are those with
the highest return of mpe2's runner against the scripted chasers. Source: de Boer et al., "A tutorial on the
cross-entropy method" (2005); noise that falls to zero is added to the spread as in Szita and Lőrincz (2006).
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from llm_sra.task import ScriptedPartner
from tasks.moves import named_move
from tasks.tag.partners import PARTNERS
from tasks.tag.runners import WEIGHTS, Runner, Steered
from tasks.tag.sight import look, write
from tasks.tag.world import MOVES, STAY, Point, scatter, step

CAUGHT = 10.0  # mpe2's penalty of a runner for each chaser that touches it
STEPS, ROCKS, DECIMALS = 25, 2, 1
CHASERS = ("hunter", "interceptor", "shadow", "half_timer")
PAIRS = tuple(combinations_with_replacement(CHASERS, 2))
FIRST_SEED = 1_000_000  # seeds that no problem of the task has


def fine(place: Point) -> float:
    """mpe2's penalty of a runner outside the field: `bound` of its `simple_tag`, for both axes."""
    total = 0.0
    for distance in map(abs, place):
        if distance >= 1.0:
            total += min(math.exp(2 * distance - 2), 10.0)
        elif distance >= 0.9:
            total += (distance - 0.9) * 10
    return total


def episode(runner: Runner, chasers: Sequence[ScriptedPartner], seed: int) -> float:
    """mpe2's return of a runner in one episode."""
    field, rng, total = scatter(seed, ROCKS), random.Random(seed), 0.0
    for _ in range(STEPS):
        said = [
            chaser.reply([{"role": "user", "content": write(look(field, seat, DECIMALS))}], rng)
            for seat, chaser in enumerate(chasers)
        ]
        field, touches = step(field, [named_move(text, MOVES) or STAY for text in said], runner(field, rng))
        total -= CAUGHT * sum(touches) + fine(field.runner.place)
    return total


def score(weights: np.ndarray, seeds: Sequence[int]) -> float:
    """Mean return of a policy over these episodes, each with the next pair of chasers."""
    runner = Steered(tuple(weights))
    pairs = [[PARTNERS[name]() for name in PAIRS[seed % len(PAIRS)]] for seed in seeds]
    return sum(episode(runner, pair, seed) for pair, seed in zip(pairs, seeds, strict=True)) / len(seeds)


def fit(generations: int, candidates: int, episodes: int, seed: int) -> np.ndarray:
    """The mean of the last generation.

    Args:
        generations: How often mean and spread move.
        candidates: Number of policies drawn in each generation; the best quarter counts.
        episodes: Number of episodes that each candidate plays, the same ones for all of a generation.
        seed: Seed of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    mean, spread = np.zeros(WEIGHTS), np.ones(WEIGHTS)
    for generation in range(generations):
        drawn = mean + spread * rng.standard_normal((candidates, WEIGHTS))
        first = FIRST_SEED + generation * episodes
        scores = np.array([score(weights, range(first, first + episodes)) for weights in drawn])
        best = drawn[np.argsort(-scores)[: max(2, candidates // 4)]]
        noise = 0.3 * max(0.0, 1 - 2 * generation / generations)
        mean, spread = best.mean(0), best.std(0) + noise
        print(f"{generation}: mean {scores.mean():.2f}, best {scores.max():.2f}", flush=True)
    return mean


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the weights are written here, as JSON")
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    weights = fit(options.generations, options.candidates, options.episodes, options.seed)
    asked = {key: getattr(options, key) for key in ("generations", "candidates", "episodes", "seed")}
    rounded = [round(float(weight), 3) for weight in weights]
    options.out.write_text(json.dumps({"made_by": "tasks.tag.fit_runner", **asked, "weights": rounded}) + "\n")


if __name__ == "__main__":
    main()
