"""Commands in processes of their own, forked from one that has imported everything: a start takes no seconds.

Signals are held back until the command has taken them over, as it does at the very beginning of a real start.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.stopping import SIGNALS

Work = Callable[[], int]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; minus the signal that ended it.
        log: What it wrote.
        seconds: From its start to its end, on the clock.
    """

    code: int
    log: str
    seconds: float

    @property
    def one_line(self) -> str | None:
        """The error if it was said in one line, as a user is to see it; None else."""
        said = [line for line in self.log.splitlines() if line.startswith("llm-sra: ")]
        return said[0] if len(said) == 1 and "Traceback" not in self.log else None


class Child:
    """A process.

    Args:
        work: What it does; returns its exit code.
        log: File for what it writes.
        environment: Variables that it has besides.
    """

    def __init__(self, work: Work, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._ended: Ended | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _run(work, log, environment or {})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def wait(self, seconds: float = 900.0) -> Ended | None:
        """How it ended; None if it has not within so many seconds."""
        deadline = time.monotonic() + seconds
        while self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                took = time.monotonic() - self._began
                self._ended = Ended(os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"), took)
            elif time.monotonic() > deadline:
                return None
            else:
                time.sleep(0.002)
        return self._ended

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it has not ended."""
        if self._ended is None:
            os.kill(self.pid, number)

    def end(self, seconds: float) -> Ended:
        """Wait so long, then kill it."""
        ended = self.wait(seconds)
        if ended is None:
            self.kill()
            ended = self.wait()
        assert ended is not None
        return ended


def run(work: Work, log: Path, seconds: float = 900.0) -> Ended:
    """Do something in a process of its own, for at most so long."""
    return Child(work, log).end(seconds)


def training(flags: Sequence[str], steps: Path | None = None) -> Work:
    """`llm-sra train` with these flags.

    Args:
        flags: Of the command.
        steps: File that says whether the training is within a step; see `within_step`.
    """

    def work() -> int:
        from recipes.commands.train import main
        from recipes.stopping import stopping
        from recipes.terminal import run_command

        if steps is not None:
            _mark_steps(steps)
        sys.argv = ["llm-sra", "train", *flags]
        stopping.install(["llm-sra"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return run_command(main, list(flags))

    return work


def within_step(steps: Path) -> bool:
    """Whether a training that marked its steps ended within one."""
    return steps.is_file() and steps.read_bytes() == b"1"


def _mark_steps(path: Path) -> None:
    """Let the trainings of this process write `1` to a file as a step begins, and `0` as it ends."""
    from transformers import TrainerCallback

    from llm_sra import training

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            path.write_bytes(b"1")

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            path.write_bytes(b"0")

    run_training = training.run_training
    path.unlink(missing_ok=True)
    training.run_training = lambda model, args, callbacks: run_training(model, args, [*callbacks, Marks()])  # type: ignore[misc,assignment]


def command(name: str, flags: Sequence[object]) -> Work:
    """Another command of `llm-sra`."""

    def work() -> int:
        from recipes.cli import main

        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return main([name, *map(str, flags)])

    return work


def _run(work: Work, log: Path, environment: Mapping[str, str]) -> None:
    status = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        for number in SIGNALS:  # in the background, and by nohup, some would be ignored
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        status = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
