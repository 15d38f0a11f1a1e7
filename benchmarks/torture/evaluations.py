"""Kills evaluations at random moments, runs them again, and compares what they say with one that was left alone."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.torture.children import Child, Work, command, run
from benchmarks.torture.kills import PARTNERS, ROSTER, TRUST
from benchmarks.torture.tally import Limit, Tally
from llm_sra.evaluation.runner import STORE
from llm_sra.files import read_json_lines

NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PROMISE = "run again, it plays what was not kept and nothing else, and says the same, byte for byte"
POLL, PLAY = 0.02, 1.0  # seconds between looks at what was kept; of which a kill in play is given
HANGS = 60.0  # seconds after which an evaluation that was told to end is killed
SLOW = "import time\n" + PARTNERS.replace("return", "time.sleep(0.02)\n        return")  # so that kills fall into play
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
    (folder / "partners.py").write_text(SLOW)
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
    kills, within, wrong = 0, 0, None
    for _ in range(rng.randrange(1, 4)):
        child = Child(_evaluation(folder, name), folder / f"{name}.log")
        _until(child, folder / name, rng, seconds)
        number = rng.choice(NUMBERS)
        if child.wait(0):
            break
        child.kill(number)
        ended = child.end(HANGS)
        if ended.code == 0:
            break
        kills += 1
        within += 0 < len(_kept(folder / name)) < len(_kept(folder / "whole"))
        if "Traceback" in ended.log:
            wrong = wrong or f"{signal.Signals(number).name}: {ended.log[-500:]}"
        if limit.reached(tally.tried + kills):
            break
    kept, played = len(_kept(folder / name)), folder / f"{name}.played"
    ended = run(_evaluation(folder, name, played), folder / f"{name}.log")
    if ended.code:
        wrong = wrong or f"run again, it ended with {ended.code}: {ended.log[-500:]}"
    else:
        wrong = wrong or _differences(folder, name, WRITTEN) or _too_much(folder / name, kept, played)
    if kills:
        counts = (within, kept, _number(played))
        before = [int(word) for word in tally.note.split() if word.isdigit()] or [0, 0, 0]
        sums = [old + new for old, new in zip(before, counts, strict=True)]
        tally.note = f"{sums[0]} in play; when run again {sums[1]} episodes were kept and {sums[2]} played"
    tally.add(wrong and f"{name} after {kills} kills: {wrong}", kills)


def _until(child: Child, out: Path, rng: random.Random, seconds: float) -> None:
    """Wait for the moment: any moment of an evaluation, or, every second time, one after an episode was kept."""
    in_play = rng.random() < 0.5
    before, later = len(_kept(out)), rng.random() * (PLAY if in_play else seconds)
    while in_play and not child.wait(POLL) and len(_kept(out)) == before:
        pass
    time.sleep(later)


def _evaluation(folder: Path, name: str, played: Path | None = None) -> Work:
    """An evaluation; afterwards the file `played`, if it is given, holds how many episodes it played."""
    flags = ["--run", folder / "q" / "run", "--roster", folder / "roster.yaml", "--out", folder / name]
    work = command("eval", [*flags, "--problems", 24, "--chunk", 16, "--disable_tqdm", *TRUST])

    def counted() -> int:
        from llm_sra.evaluation import play_missing

        play, count = play_missing.play, 0  # type: ignore[attr-defined]

        def counting(task: Any, specs: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += len(specs)
            return play(task, specs, *args, **kwargs)

        play_missing.play = counting  # type: ignore[attr-defined]
        code = work()
        if played is not None:
            played.write_text(str(count))
        return code

    return counted


def _kept(out: Path) -> Counter[str]:
    """How often each episode is kept; a line that a kill tore is none."""
    stored = (line for path in (out / STORE).glob("process-*.jsonl") for _, line in read_json_lines(path))
    return Counter(str(line["key"]) for line in stored if line is not None)


def _number(path: Path) -> int:
    return int(path.read_text()) if path.is_file() else 0


def _too_much(out: Path, kept: int, played: Path) -> str | None:
    """Whether an evaluation that was run again played other than what was missing; `kept` episodes were there."""
    missing = len(_kept(out)) - kept
    return None if _number(played) == missing else f"{kept} were kept, {missing} missing; it played {_number(played)}"


def _differences(folder: Path, name: str, files: Sequence[str]) -> str | None:
    wrong = [file for file in files if (folder / name / file).read_bytes() != (folder / "whole" / file).read_bytes()]
    if wrong:
        return f"differs from the undisturbed evaluation: {', '.join(wrong)}"
    times = _kept(folder / name)
    twice = sum(count > 1 for count in times.values())
    return f"{twice} of {len(times)} episodes are kept more than once" if twice or not times else None


def make_agents(path: Path, model: Path) -> int:
    """A run that was never trained, of the tests' toy task."""
    import training_support
    from support import make_run

    make_run(path, base=model, task=f"{training_support.__file__}:Letters", max_completion_length=6)
    return 0
