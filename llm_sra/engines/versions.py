"""The versions of a bank's adapters, as folders that another engine can load.

A version's name holds a hash of its weights: equal weights have equal names on every rank and after every restart, and
an engine that is given a name can neither serve older weights under it nor reuse a prefix block that was computed with
others. Folders lie in memory where the system has such a place, and are removed with the object.
"""

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llm_sra.models.adapters import WEIGHTS, AdapterBank

MEMORY = Path("/dev/shm")
BASE = "base@nothing"


@dataclass(frozen=True, slots=True)
class Version:
    """The weights of one adapter at one moment.

    Attributes:
        name: `<adapter>@<hash of the weights>`.
        folder: In PEFT format.
    """

    name: str
    folder: Path


class Versions:
    """Writes those adapters that changed, and no others.

    Args:
        bank: Whose adapters.
        root: Folder for the versions, which the engine's process must be able to read; in memory if None.
    """

    def __init__(self, bank: AdapterBank, root: Path | None = None) -> None:
        self.bank = bank
        if root is None and MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
            root = MEMORY
        elif root is not None:
            root.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="llm-sra-", dir=root))
        self._published: dict[str | None, tuple[int, Version]] = {}
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def close(self) -> None:
        """Remove all folders."""
        self._remove()

    def current(self, adapter: str | None) -> Version:
        """The version of an adapter's current weights, written if it is new; the previous version is removed.

        None is the base model, as an adapter that changes nothing: where adapters share a batch, vLLM's CPU build gives
        rows without one the adapter in its last slot.
        """
        revision = self.bank.revision(adapter) if adapter else 0
        known = self._published.get(adapter)
        if known and known[0] == revision:
            return known[1]
        version = self._nothing() if adapter is None else self._write(adapter, known[1] if known else None)
        self._published[adapter] = revision, version
        return version

    def _write(self, adapter: str, before: Version | None) -> Version:
        name = f"{adapter}@{self.bank.digest(adapter)}"
        if before and before.name == name:
            return before
        self.bank.save(self._folder / name, [adapter])
        if before:
            shutil.rmtree(before.folder.parent)
        return Version(name, self._folder / name / adapter)

    def _nothing(self) -> Version:
        like = self.bank.names[0]
        self.bank.save(self._folder / BASE, [like])
        weights = self._folder / BASE / like / WEIGHTS
        save_file({key: torch.zeros_like(value) for key, value in load_file(weights).items()}, weights)
        return Version(BASE, weights.parent)
