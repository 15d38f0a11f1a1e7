"""Flips single bits of what is on the disk: the store of episodes, and checkpoints."""

import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.torture.children import run, training
from benchmarks.torture.tally import Limit, Tally

PROMISE = "noticed, or read as it was: never as something else"
IN_CHECKPOINTS = 3  # of so many flips one is in a checkpoint


def flip_bits(folder: Path, model: Path, seed: int, limit: Limit) -> Iterator[Tally]:
    """Flip bits one at a time, and read.

    Args:
        folder: For what is flipped.
        model: The base model's folder.
        seed: Of the places.
        limit: Flips.

    Yields:
        A count for the store, and one for checkpoints.
    """
    folder.mkdir(parents=True)
    rng, level = random.Random(seed), logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # each damaged line is told of
    try:
        share = limit.count // IN_CHECKPOINTS
        yield _in_store(folder / "store", rng, Limit(limit.count - share, limit.until))
        yield _in_checkpoint(folder, model, rng, Limit(share, limit.until))
    finally:
        logging.disable(level)


def _in_store(folder: Path, rng: random.Random, limit: Limit) -> Tally:
    from llm_sra.episodes import EpisodeRecord, TurnRecord
    from llm_sra.evaluation.store import Store
    from llm_sra.task import Reward

    tally = Tally("a bit flipped", "in the store of episodes", PROMISE, limit.count)
    turns = (TurnRecord("first", 0, "1+2=3\u2028é", "stop", 5, -0.25), TurnRecord("second", 1, "pass"))
    rewards = {"first": (Reward(cost=0.1), Reward()), "second": (Reward(), Reward(team=1.0))}
    episode = EpisodeRecord("1+2", {"first": "a", "second": "b"}, True, {"first": 2.0}, {"wrong": 0.1}, turns, rewards)
    kept = {key: episode for key in ("aa", "bb", "cc")}
    store = Store(folder, "worksheet")
    store.append(kept)
    store.close()
    path = folder / "process-0.jsonl"
    whole, reader = path.read_bytes(), Store(folder, "worksheet", process=1)
    if reader.read(list(kept)) != kept:
        tally.add("what was kept is not read even without a flip")
    while not (limit.reached(tally.tried) or tally.failures):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(_flipped(whole, at, bit))
        found = reader.read(list(kept))
        same = found.items() <= kept.items() and len(found) >= len(kept) - 2  # a newline's flip joins two lines
        tally.add(None if same else f"bit {bit} of byte {at} is read as {found}")
    reader.close()
    return tally


def _in_checkpoint(folder: Path, model: Path, rng: random.Random, limit: Limit) -> Tally:
    from training_support import FLAGS

    from llm_sra.trainer.manifest import damage

    tally = Tally("a bit flipped", "in a checkpoint of PPO", PROMISE, limit.count)
    flags = {**FLAGS, "max_steps": 1, "save_strategy": "steps", "save_steps": 1, "algorithm": "ppo"}
    flags |= {"model_name_or_path": model, "output_dir": folder / "run"}
    words = [str(part) for key, value in flags.items() for part in (f"--{key}", value)]
    ended = run(training(words), folder / "run.log")
    checkpoint = folder / "run" / "checkpoints" / "checkpoint-1"
    if ended.code or damage(checkpoint):
        tally.add(f"no checkpoint to begin with: {ended.log[-300:]}")
        return tally
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)
    while not limit.reached(tally.tried):
        path = rng.choice(files)
        whole = path.read_bytes()
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(_flipped(whole, at, bit))
        name = path.relative_to(checkpoint)
        tally.add(None if damage(checkpoint) else f"bit {bit} of byte {at} of {name} is not noticed")
        path.write_bytes(whole)
    if damage(checkpoint):
        tally.add("the checkpoint was not restored")
    shutil.rmtree(folder / "run")
    return tally


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
