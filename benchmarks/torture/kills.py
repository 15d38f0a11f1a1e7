"""Kills trainings at random moments, resumes them, and compares their ends with those of trainings left alone."""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.torture.children import Child, Ended, training, within_step
from benchmarks.torture.tally import Limit, Tally

STEPS = 6
SOON = 5.0  # seconds within which a signal ends a training
PROMISE = (
    "a signal ends it in one line within 5 s; resumed, it ends with the same adapters, metrics and episodes, byte for "
    "byte"
)
HANGS = 60.0  # seconds after which a training that was told to end is killed
NUMBERS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PARTNERS = """
class Apple:
    def reply(self, messages, rng):
        return "apple"


class Any:
    def reply(self, messages, rng):
        return rng.choice("abcde") * rng.randrange(1, 4)
"""
TRUST = ("--trust_task", "--trust_scripts")  # of an evaluation: task and partners are files of this project's
ROSTER = """partners:
  - {name: apple, kind: scripted, policy: 'partners.py:Apple'}
  - {name: any, kind: perturbed, how: drop, probability: 0.3, of: {kind: scripted, policy: 'partners.py:Any'}}
"""


@dataclass(frozen=True)
class Configuration:
    """What is trained.

    Attributes:
        name: Of it.
        flags: Besides those that all have.
        processes: How many train together.
    """

    name: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1


def configurations(folder: Path) -> list[Configuration]:
    """All that are tried; writes the rosters that they name."""
    (folder / "partners.py").write_text(PARTNERS)
    roster = folder / "roster.yaml"
    roster.write_text(ROSTER)
    linear = {"num_iterations": 2, "lr_scheduler_type": "linear", "warmup_steps": 2, "weight_decay": 0.1}
    dev = {
        "dev_roster": roster,
        "trust_scripts": True,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "dev_problems": 2,
        "save_steps": 2,
    }
    return [
        Configuration("GRPO", linear),
        Configuration("PPO with a critic", {"algorithm": "ppo"}),
        Configuration("shared policies", {"sharing": "shared", "tau_schedule": "target_kl", "target_kl": 1.0}),
        Configuration("two processes", {"adversary_updates": 2}, 2),
        Configuration(
            "sampled partners",
            {"partners": roster, "trust_scripts": True, "partners_per_step": 2, "num_generations": 4},
        ),
        Configuration("best of a development roster", {"arm": "ippo", "load_best_model_at_end": True, **dev}),
    ]


def kill_trainings(folder: Path, model: Path, seed: int, limit: Limit) -> Iterator[Tally]:
    """Kill trainings of each configuration.

    Args:
        folder: For the runs.
        model: The base model's folder.
        seed: Of the moments and signals.
        limit: Kills, over all configurations.

    Yields:
        A count for each configuration.
    """
    folder.mkdir(parents=True)
    chosen = configurations(folder)
    for configuration in chosen:
        rng = random.Random(f"{seed} {configuration.name}")
        yield _Kills(folder / configuration.name.replace(" ", "-"), configuration, model, rng).all(
            limit.over(len(chosen))
        )


class _Kills:
    """The trainings of one configuration."""

    def __init__(self, folder: Path, configuration: Configuration, model: Path, rng: random.Random) -> None:
        self._folder, self._configuration, self._rng = folder, configuration, rng
        self._model, self._seconds = model, 0.0
        self._within, self._latest = 0, 0.0  # kills within a step; seconds that a signal took at most
        folder.mkdir()

    def all(self, limit: Limit) -> Tally:
        """Train once undisturbed, then again and again with kills."""
        tally = Tally("training killed", self._configuration.name, PROMISE, limit.count)
        began = time.monotonic()
        whole = self._folder / "whole"
        ends = self._end(self._start(whole, resume=False), 900)
        if any(each.code for each in ends):
            tally.add(f"the undisturbed training failed: {ends[0].log[-500:]}")
            return tally
        self._seconds, expected = time.monotonic() - began, content(whole)
        number = 0
        while not limit.reached(tally.tried):
            number += 1
            self._one(self._folder / f"killed-{number}", expected, tally, limit)
        tally.note = f"{self._within} within a step; ended after {self._latest:.1f} s at most"
        return tally

    def _one(self, run: Path, expected: Mapping[str, Any], tally: Tally, limit: Limit) -> None:
        """Kill one training until it comes to its end, or often enough; then let it come there."""
        kills, wrong = 0, None
        for _ in range(8):
            children = self._start(run, resume=True)
            time.sleep(self._rng.random() * self._seconds)
            number = self._rng.choice(NUMBERS)
            ended = self._stop(children, number)
            if ended is None:
                break  # it was faster
            kills += 1
            self._within += within_step(_steps(run))
            wrong = wrong or _wrong(ended, number)
            if limit.reached(tally.tried + kills):
                break
        ends = self._end(self._start(run, resume=True), 900)
        if any(each.code for each in ends):
            wrong = wrong or f"resumed, it ended with {ends[0].code}: {ends[0].log[-500:]}"
        else:
            wrong = wrong or differences(content(run), expected)
        tally.add(wrong and f"{run.name} after {kills} kills: {wrong}", kills)

    def _start(self, run: Path, resume: bool) -> list[Child]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        count = self._configuration.processes
        children = []
        for rank in range(count):
            work = training(self._flags(run, resume), None if rank else _steps(run))
            several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port} if count > 1 else {}
            environment = {key: str(value) for key, value in several.items()}
            environment |= {"MASTER_ADDR": "127.0.0.1"} if several else {}
            children.append(Child(work, run.with_name(f"{run.name}-{rank}.log"), environment))
        return children

    def _flags(self, run: Path, resume: bool) -> list[str]:
        from training_support import FLAGS

        saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": STEPS, "log_episodes": -1}
        flags = {**FLAGS, **saving, **self._configuration.flags}
        flags |= {"model_name_or_path": self._model, "output_dir": run, "resume_from_checkpoint": resume}
        return [str(part) for key, value in flags.items() for part in (f"--{key}", value)]

    def _stop(self, children: Sequence[Child], number: int) -> Ended | None:
        """Send a signal as the system or a launcher would; None if the training had ended before."""
        if any(child.wait(0) for child in children):
            self._end(children, 60)
            return None
        first = children[0] if number != signal.SIGKILL else self._rng.choice(children)
        first.kill(number)
        for child in children:  # a launcher ends the others of a process that is gone
            if child is not first:
                child.kill(signal.SIGTERM if number == signal.SIGKILL else number)
        began = time.monotonic()
        ended = first.end(HANGS)
        others = self._end([child for child in children if child is not first], HANGS)
        if ended.code == 0:
            return None
        late = time.monotonic() - began
        if number != signal.SIGKILL:
            self._latest = max(self._latest, late)
        if number != signal.SIGKILL and late > SOON:
            return Ended(ended.code, f"{ended.log}\nTraceback: ended only after {late:.1f} s", ended.seconds)
        return ended if all(other.code for other in others) else None

    def _end(self, children: Sequence[Child], seconds: float) -> list[Ended]:
        return [child.end(seconds) for child in children]


def _wrong(ended: Ended, number: int) -> str | None:
    """What is not as it has to be when a signal ends a training."""
    if number == signal.SIGKILL:
        return None if ended.code == -signal.SIGKILL else f"SIGKILL ended it with {ended.code}: {ended.log[-300:]}"
    name = signal.Signals(number).name
    code = 130 if number == signal.SIGINT else 143
    if ended.code != code:
        return f"{name} ended it with {ended.code}, not {code}: {ended.log[-500:]}"
    said = ended.one_line
    return None if said and " with: " in said else f"{name} was not one line: {ended.log[-500:]}"


def _steps(run: Path) -> Path:
    """The file in which the first process of a training says whether it is within a step."""
    return run.with_name(f"{run.name}.step")


def content(run: Path) -> dict[str, Any]:
    """What a training leaves, but for times: by file, bytes or values."""
    from llm_sra.runs import read_metrics

    lines = [line for line in read_metrics(run / "metrics.jsonl") if "train_runtime" not in line]
    found: dict[str, Any] = {"metrics.jsonl": [json.dumps(_timeless(line), sort_keys=True) for line in lines]}
    for folder in ("adapters", "episodes"):
        found |= {str(p.relative_to(run)): p.read_bytes() for p in (run / folder).rglob("*") if p.is_file()}
    found["left behind"] = sorted(str(p.relative_to(run)) for p in run.rglob(".*"))
    return found


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Names of the files that are not as they have to be; None if all are."""
    names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    return f"differs from the undisturbed training: {', '.join(names)}" if names else None


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if "time" not in key and "per_second" not in key}


def preload() -> None:
    """Import what trainings and evaluations need, so that a fork need not."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    import llm_sra.training  # noqa: F401
