"""Kills evaluations at random moments, runs them again, and compares what they say with one that was left alone."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.torture.children import Child, command, run
from benchmarks.torture.kills import PARTNERS, ROSTER, busy
from benchmarks.torture.tally import Limit, Tally
from llm_sra.evaluation.runner import STORE
from llm_sra.files import read_json_lines

NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PROMISE = "run again, it says the same, byte for byte, and keeps no episode twice"
WRITTEN = ("results.json", "episodes.jsonl", "table.md")


def kill_evaluations(folder: Path, model: Path, seed: int, limit: Limit) -> Iterator[Tally]:
    """Kill evaluations.

    Args:
        folder: For their results.
        model: The base model's folder.
        seed: Of the moments and signals.
        limit: Kills.

    Yields:
        The count.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "partners.py").write_text(PARTNERS)
    (folder / "roster.yaml").write_text(ROSTER)
    tally = Tally("evaluation killed", "scripted and perturbed partners, both decodings", PROMISE, limit.count)
    made = run(lambda: make_agents(folder / "q" / "run", model), folder / "run.log")
    began = time.monotonic()
    whole = run(_evaluation(folder, "whole"), folder / "whole.log")
    seconds = time.monotonic() - began
    if made.code or whole.code:
        tally.add(f"the undisturbed evaluation failed: {made.log[-500:]} {whole.log[-500:]}")
    number = 0
    while not (limit.reached(tally.tried) or tally.failures):
        number += 1
        _one(folder, f"killed-{number}", rng, seconds, tally, limit)
    yield tally


def _one(folder: Path, name: str, rng: random.Random, seconds: float, tally: Tally, limit: Limit) -> None:
    """Kill one evaluation until it comes to its end, or often enough; then let it come there."""
    kills, wrong = 0, None
    for _ in range(6):
        child = Child(_evaluation(folder, name), folder / f"{name}.log")
        time.sleep(rng.random() * seconds)
        number = rng.choice(NUMBERS)
        if child.wait(0):
            break
        child.kill(number)
        ended = child.end(20 * busy())
        if ended.code == 0:
            break
        kills += 1
        if "Traceback" in ended.log:
            wrong = wrong or f"{signal.Signals(number).name}: {ended.log[-500:]}"
        if limit.reached(tally.tried + kills):
            break
    ended = run(_evaluation(folder, name), folder / f"{name}.log")
    if ended.code:
        wrong = wrong or f"run again, it ended with {ended.code}: {ended.log[-500:]}"
    else:
        wrong = wrong or _differences(folder, name, WRITTEN)
    tally.add(wrong and f"{name} after {kills} kills: {wrong}", kills)


def _evaluation(folder: Path, name: str):  # type: ignore[no-untyped-def]
    flags = ["--run", folder / "q" / "run", "--roster", folder / "roster.yaml", "--out", folder / name]
    return command("eval", [*flags, "--problems", 24, "--chunk", 16, "--disable_tqdm", "--trust_task"])


def _differences(folder: Path, name: str, files: Sequence[str]) -> str | None:
    wrong = [file for file in files if (folder / name / file).read_bytes() != (folder / "whole" / file).read_bytes()]
    if wrong:
        return f"differs from the undisturbed evaluation: {', '.join(wrong)}"
    stored = (line for path in (folder / name / STORE).glob("process-*.jsonl") for _, line in read_json_lines(path))
    times = Counter(line["key"] for line in stored if line is not None)  # a kill may tear a line
    twice = sum(count > 1 for count in times.values())
    return f"{twice} of {len(times)} episodes are kept more than once" if twice or not times else None


def make_agents(path: Path, model: Path) -> int:
    """A run that was never trained, of the tests' toy task."""
    import training_support
    from support import make_run

    make_run(path, base=model, task=f"{training_support.__file__}:Letters", max_completion_length=6)
    return 0
