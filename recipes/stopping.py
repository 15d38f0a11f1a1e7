"""What ctrl-C, SIGTERM and SIGHUP do to a training: one line with the command that goes on, and exit code 130 or 143.

While a training runs, a signal ends it as ctrl-C does: engines are closed, and a start that made no step is taken back.
What holds that up for more than some seconds is cut off. Before and after that, a signal ends the process at once. This
module imports nothing that takes long, so that it can be installed before everything else.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

GRACE = 3.0  # seconds
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAID = "LLM_SRA_SAID"  # names the file by which a process tells its launcher that it has said how to go on
_ANSWERED = ("--resume_from_checkpoint", "--overwrite_output_dir")


class Stopped(KeyboardInterrupt):
    """A signal asked the training to end."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """What ctrl-C does to a command other than a training: it raises, but not within an import.

    There a library may catch it, and half a module then fails in other words: the process ends at once.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"llm-sra: interrupted\n")
            _kill_children()
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


class Stopping:
    """The signals of this process.

    Attributes:
        number: Number of the signal that came; None before one came.
        resumable: Whether what was written is to be resumed; else the command is to be started again as it was.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.resumable = False
        self._installed = self._training = False
        self._ending = threading.Lock()
        self._command: list[str] = []

    def install(self, program: Sequence[str], watch: bool = True) -> None:
        """Take over the signals of this process, except those that it was started to ignore, as by nohup.

        Args:
            program: How this program is started; its arguments are those of the process.
            watch: Whether to cut off what goes on for some seconds after a signal.
        """
        self._installed = True
        self._command = _launched_command() or [*program, *sys.argv[1:]]
        self.resumable = not any(word.split("=")[0] in _ANSWERED for word in self._command)
        if watch:
            read, write = os.pipe()
            os.set_blocking(write, False)
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(read,), name="stopping", daemon=True).start()
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        before = sys.unraisablehook

        def hook(unraisable: Any) -> None:
            if unraisable.exc_type is not Stopped:
                before(unraisable)

        sys.unraisablehook = hook

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside the block signals end the training as ctrl-C does; whatever comes of that ends the process."""
        self._training = self._installed
        try:
            yield
        except BaseException:
            if self.number is not None:
                self.end()
            raise
        finally:
            self._training = False
        if self.number is not None:
            self.end()

    def end(self) -> NoReturn:
        """Say how to go on, and end this process now."""
        assert self.number is not None
        if self._ending.acquire(blocking=False):
            if os.environ.get("RANK", "0") == "0":
                os.write(2, f"{self.line()}\n".encode())  # a print may be what was interrupted
                _tell_launcher()
            _kill_children()
            os._exit(130 if self.number == signal.SIGINT else 143)
        while True:  # another thread is about to end the process
            time.sleep(1)

    def line(self) -> str:
        """What is said at the end."""
        assert self.number is not None
        name = "ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
        return f"llm-sra: stopped by {name}; {self._how_to_go_on()}"

    def ended(self, rank: int, number: signal.Signals) -> str:
        """What a launcher says of a process that a signal ended, which nobody had sent to the launcher."""
        why = " (the system does so when memory runs out)" if number.name == "SIGKILL" else ""
        return f"process {rank} of the training was ended by {number.name}{why}; {self._how_to_go_on()}"

    def _how_to_go_on(self) -> str:
        words = self._command
        if self.resumable:
            words = [*_without(words, _ANSWERED), "--resume_from_checkpoint", "true"]
        return f"{'resume' if self.resumable else 'start again'} with: {shlex.join(words)}"

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        if first:
            self.number = number
        if not self._training:
            self.end()
        if first:
            raise Stopped(f"signal {number}")

    def _watch(self, read: int) -> None:
        """End the process some seconds after the first signal, whatever its main thread does."""
        while True:
            numbers = [number for number in os.read(read, 64) if number in SIGNALS]
            if numbers:
                time.sleep(GRACE)
                self.number = self.number or numbers[0]
                self.end()


def _launched_command() -> list[str] | None:
    """The command line of the launcher of this process; None if there is none that can be read."""
    if not any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ):
        return None
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            words = [word.decode(errors="replace") for word in file.read().split(b"\0") if word]
    except OSError:
        return ["accelerate", "launch", "-m", "recipes.train", *sys.argv[1:]]
    return words if any(word.endswith("recipes.train") or "recipes/train" in word for word in words) else None


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """A command line without some flags and their values."""
    kept: list[str] = []
    skipping = False
    for word in words:
        if word.startswith("--"):
            skipping = word.split("=")[0] in flags
            if skipping:
                continue
        elif skipping:
            skipping = False
            continue
        kept.append(word)
    return kept


def _tell_launcher() -> None:
    if os.environ.get(SAID):
        with suppress(OSError), open(os.environ[SAID], "w") as said:
            said.write("1")


def _kill_children() -> None:
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        for child in active_children():
            child.kill()


stopping = Stopping()
