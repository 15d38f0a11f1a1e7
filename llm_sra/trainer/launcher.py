"""The program that launched this process: when it is gone, nobody would end a training that it began."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_sra.errors import UserError

_MARKS = ("accelerate", "torchrun", "torch.distributed", "recipes.launch")


class LauncherGoneError(UserError):
    """The launcher of this process has ended."""


@dataclass(frozen=True)
class Launcher:
    """The parent of a launched process.

    Attributes:
        pid: Its process; None if nothing launched this one.
    """

    pid: int | None

    @classmethod
    def find(cls) -> "Launcher":
        """`accelerate launch` or torchrun, if this process was launched by one of them."""
        launched = any(name == "TORCHELASTIC_RUN_ID" or name.startswith("ACCELERATE_") for name in os.environ)
        parent = os.getppid()
        words = command_of(parent)
        if launched and words is not None:  # the variables may be the user's own, and the parent a shell
            launched = any(mark in word for word in words for mark in _MARKS)
        return cls(parent if launched and parent > 1 else None)

    def check(self, error: BaseException | None = None) -> None:
        """Check that the launcher is still there.

        Args:
            error: What the process has run into, if it has.

        Raises:
            LauncherGoneError: If it is not.
        """
        if self.pid is not None and os.getppid() != self.pid:
            raise LauncherGoneError(
                f"the launcher (process {self.pid}) is gone, so this training stops; resume with the same command and "
                "--resume_from_checkpoint true"
            ) from error


class PeerGoneError(UserError):
    """Another process of this training has ended."""


def check_peers(error: RuntimeError) -> None:
    """Check that an error of one of several processes is not that another one has gone.

    Raises:
        PeerGoneError: If it is.
    """
    words = str(error).lower()
    if isinstance(error, torch.distributed.DistError) or any(word in words for word in ("gloo", "closed by peer")):
        raise PeerGoneError(
            "another process of this training has ended, and this one stops, too: if it does not say why above or "
            "below, the system may have ended it. Resume with the same command and --resume_from_checkpoint true"
        ) from error


def command_of(pid: int) -> list[str] | None:
    """The command line of a process; None where the system has no /proc."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return [word.decode(errors="replace") for word in words if word]
