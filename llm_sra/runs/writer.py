"""The one process that writes a run folder: it locks the folder, and a start that fails leaves it as it was.

Nothing of an earlier training is deleted before the new one has made its first step. What a training from an earlier
checkpoint replaces is kept in `checkpoints/earlier-1/`, `earlier-2/` and so on.
"""

import logging
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from llm_sra.files import publish_folder, remove_partial, sync_tree, write_whole, writing
from llm_sra.runs import RunError
from llm_sra.runs.locks import LOCK, FolderLock, LockedError
from llm_sra.runs.trust import COPY

OVERWRITTEN = ".overwritten"  # an earlier run, until the new one has made a step
CHECKPOINTS = "checkpoints"
logger = logging.getLogger(__name__)


class RunWriter:
    """Holds a run folder for one training, as a context.

    A start fails if its block is left by an error before `started` is called.

    Args:
        path: The run folder.
        overwrite: Whether an earlier run in it is to be deleted.
        resume: Whether an earlier run in it is to go on.

    Raises:
        RunError: On entering, if another process writes to the folder; or if it holds something, and neither resuming
            nor overwriting was asked for. Nothing is then written.
    """

    def __init__(self, path: Path, overwrite: bool, resume: bool) -> None:
        self.path, self._overwrite, self._resume = path, overwrite, resume
        self._moved: list[tuple[Path, Path]] = []  # (place before, place now)
        self._made: list[Path] = []  # folders, the outermost first
        self._files: dict[Path, bytes] = {}  # as they were before
        self._begun = self._started = False

    def __enter__(self) -> Self:
        if not (self.path / LOCK).exists():
            self._check_free()
        self._made = [folder for folder in (*reversed(self.path.parents), self.path) if not folder.exists()]
        with writing("the run folder", self.path), ExitStack() as undo:
            undo.callback(self._remove_empty_folders)
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = FolderLock(self.path)
            except LockedError as error:
                raise RunError(str(error)) from error
            undo.callback(self._lock.release)
            self._recover()
            self._check_free()
            undo.pop_all()
        return self

    def begin(self, checkpoint: Path | None = None) -> None:
        """Make room for the training; to be called when all that can fail has been loaded.

        Args:
            checkpoint: From which the run goes on; None: it starts anew.
        """
        self._begun = True
        with writing("the run folder", self.path):
            if self._resume:
                remove_partial(self.path)
                self._step_back(checkpoint)
            else:
                shutil.rmtree(self.path / OVERWRITTEN, ignore_errors=True)
                for entry in self._entries():
                    self._move(entry, self.path / OVERWRITTEN / entry.name)
            for file in self._rewritten():
                self._files[file] = file.read_bytes()

    def started(self) -> None:
        """The training has made a step: from now on an error leaves what it wrote, for a resumption."""
        if not self._started:
            self._started = True
            shutil.rmtree(self.path / OVERWRITTEN, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failed = error is not None and not self._started
        try:
            if failed and self._begun:
                self._undo()
        finally:
            self._lock.release()
            if failed:
                self._remove_empty_folders()

    def _rewritten(self) -> list[Path]:
        """Files that the start of every training writes, as far as they are there."""
        files = (self.path / "config.yaml", self.path / "environment.json", *(self.path / COPY).glob("*"))
        return [file for file in files if file.is_file()]

    def _entries(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if entry.name not in (LOCK, OVERWRITTEN)]

    def _check_free(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file: choose another --output_dir")
        if not self.path.is_dir() or self._resume or not self._entries():
            return
        is_run = (self.path / "config.yaml").is_file()
        if is_run and not self._overwrite:
            raise RunError(
                f"{self.path} already holds a run: choose another --output_dir, resume with "
                "--resume_from_checkpoint true, or delete it with --overwrite_output_dir true"
            )
        if not is_run:
            raise RunError(f"{self.path} already holds other files: choose another --output_dir")

    def _recover(self) -> None:
        """Put an earlier run back that a killed process had set aside before it wrote anything of its own."""
        aside = self.path / OVERWRITTEN
        if aside.is_dir() and not (self.path / "config.yaml").is_file():
            for entry in aside.iterdir():
                if not (self.path / entry.name).exists():
                    entry.rename(self.path / entry.name)

    def _step_back(self, checkpoint: Path | None) -> None:
        """Set aside what an earlier training made after the checkpoint, so that it is never taken for the new one's."""
        place = self.path / CHECKPOINTS
        inside = checkpoint is None or checkpoint.resolve().parent == place.resolve()
        step = step_of(checkpoint) if checkpoint else 0
        later = [path for path in place.glob("checkpoint-*") if not inside or step_of(path) > step]
        if later:
            numbers = [int(path.name[8:]) for path in place.glob("earlier-*") if path.name[8:].isdigit()]
            aside = place / f"earlier-{max(numbers, default=0) + 1}"
            aside.mkdir()
            self._moved.append((aside, aside))  # removed when all is back
            episodes = [path for path in (self.path / "episodes").glob("step-*.jsonl") if step_of(path) > step]
            for path in (*later, self.path / "adapters", *episodes):
                if path.exists():
                    self._move(path, aside / path.relative_to(place if path in later else self.path))
            if (self.path / "metrics.jsonl").is_file():
                self._files[self.path / "metrics.jsonl"] = content = (self.path / "metrics.jsonl").read_bytes()
                write_whole(aside / "metrics.jsonl", content)
            logger.warning("the run goes on from step %d; what it had after that is kept in %s", step, aside)
        if checkpoint and not inside:
            staged = place / ".copying"
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(checkpoint, staged)
            sync_tree(staged)
            self._moved.append((staged, place / checkpoint.name))
            publish_folder(staged, place / checkpoint.name)

    def _move(self, path: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._moved.append((path, target))  # first: a signal may come between the two
        path.rename(target)

    def _undo(self) -> None:
        """Put everything back as it was before `begin`."""
        if not self._resume:
            for entry in self._entries():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for path, target in reversed(self._moved):
            if path == target or path.name == ".copying":
                shutil.rmtree(target, ignore_errors=True)
            elif target.exists():
                target.replace(path)
        for path in self._rewritten():
            if self._resume and path not in self._files:
                path.unlink(missing_ok=True)
        if self._resume and not any((self.path / COPY).glob("*")):
            shutil.rmtree(self.path / COPY, ignore_errors=True)
        for path, content in self._files.items():
            write_whole(path, content)
        shutil.rmtree(self.path / OVERWRITTEN, ignore_errors=True)
        with suppress(OSError):  # made for another run's checkpoint
            (self.path / CHECKPOINTS).rmdir()

    def _remove_empty_folders(self) -> None:
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                return  # it holds something


def step_of(path: Path) -> int:
    """The number at the end of `checkpoint-30` or `step-000030.jsonl`; -1 if there is none."""
    number = path.name.split(".")[0].rpartition("-")[2]
    return int(number) if number.isdigit() else -1
