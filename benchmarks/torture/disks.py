"""Full disks: real ones, each a small file system in memory that only the process on it sees.

Where the system allows no such thing, files may not grow beyond a limit instead, which fails in the same places.
"""

import ctypes
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.torture.children import Ended, Work, command, run, training
from benchmarks.torture.evaluations import make_agents
from benchmarks.torture.kills import PARTNERS, ROSTER, TRUST, content, differences
from benchmarks.torture.tally import Limit, Tally

PROMISE = (
    "one line that names the path and what was being written; with more room, the same command comes to the same end"
)
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18
PAGE = 4096
ENOUGH = 1 << 30


@dataclass(frozen=True)
class Job:
    """A command that writes to the disk.

    Attributes:
        name: Of it.
        flags: Given the disk and whether it is done anew after a failure.
        result: What it leaves, to be compared.
        kind: Of command.
    """

    name: str
    flags: Callable[[Path, bool], Sequence[object]]
    result: Callable[[Path], Mapping[str, Any]]
    kind: str = "train"

    def work(self, disk: Path, again: bool) -> Work:
        """What is to be run."""
        flags = [str(flag) for flag in self.flags(disk, again)]
        return training(flags) if self.kind == "train" else command(self.kind, flags)


def fill_disks(folder: Path, model: Path, seed: int, limit: Limit) -> Iterator[Tally]:
    """Run commands on disks of random sizes, all too small for them.

    Args:
        folder: For what they read.
        model: The base model's folder.
        seed: Of the sizes.
        limit: Disks, over all commands.

    Yields:
        A count for each command.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "partners.py").write_text(PARTNERS)
    (folder / "roster.yaml").write_text(ROSTER)
    run(lambda: make_agents(folder / "q" / "run", model), folder / "run.log")
    jobs = _jobs(folder, model)
    for job in jobs:
        # A training writes most, and in the most places: half of all disks are its own.
        share = -(-limit.count // 2) if job.kind == "train" else -(-(limit.count - limit.count // 2) // (len(jobs) - 1))
        yield _fill(job, folder / job.name, rng, Limit(share, limit.until))


def _jobs(folder: Path, model: Path) -> list[Job]:
    from training_support import FLAGS

    agents, roster = folder / "q" / "run", folder / "roster.yaml"
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "report_to": "tensorboard", "log_episodes": -1}
    flags = {**FLAGS, **saving, "model_name_or_path": model}
    words = [part for key, value in flags.items() for part in (f"--{key}", value)]
    evaluation = ["--run", agents, "--roster", roster, "--problems", 8, "--disable_tqdm", *TRUST]
    evaluated = agents / "report"
    run(command("eval", [*evaluation, "--out", evaluated]), folder / "eval.log")
    return [
        Job(
            "training, its checkpoints and TensorBoard's log",
            lambda disk, again: [*words, "--output_dir", disk / "run", *["--resume_from_checkpoint", "true"] * again],
            lambda disk: content(disk / "run"),
        ),
        Job(
            "evaluation and its store",
            lambda disk, _: [*evaluation, "--out", disk / "out"],
            lambda disk: _bytes(disk / "out", ("results.json", "episodes.jsonl", "table.md")),
            "eval",
        ),
        Job(
            "report",
            lambda disk, _: [agents, "--out", disk / "page"],
            lambda disk: _bytes(disk / "page"),
            "report",
        ),
        Job(
            "export",
            lambda disk, _: ["--run", agents, "--policy", "left", "--out", disk / "out", "--merge"],
            lambda disk: _bytes(disk / "out"),
            "export",
        ),
    ]


def _bytes(folder: Path, names: Sequence[str] = ()) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if not names or p.name in names}


def _fill(job: Job, folder: Path, rng: random.Random, limit: Limit) -> Tally:
    """Try one command on disks of random sizes."""
    kind = "a full disk" if can_mount() else "files that may not grow"
    tally = Tally(kind, job.name, PROMISE, limit.count)
    disk = folder / "disk"
    disk.mkdir(parents=True)
    whole = run(job.work(disk, False), folder / "whole.log")
    if whole.code:
        tally.add(f"without a limit it failed: {whole.log[-500:]}")
        return tally
    expected, sizes = job.result(disk), [path.stat().st_size for path in disk.rglob("*") if path.is_file()]
    # On a disk files share the room; a limit on files is for each alone.
    most = sum(sizes) if can_mount() else max(sizes)
    _empty(disk)
    misses = 0
    while not limit.reached(tally.tried) and misses < 20:
        size = max(PAGE, int(most * rng.random()) // PAGE * PAGE)
        outcome = _on_small_disk(job, folder, disk, size, expected)
        if outcome == "fits":
            misses += 1  # what it writes besides files was overestimated
        else:
            tally.add(outcome and f"{size} bytes: {outcome}")
    return tally


def _on_small_disk(job: Job, folder: Path, disk: Path, size: int, expected: Mapping[str, Any]) -> str | None:
    """Run a command on a small disk, then again on one with room; what went wrong, or `fits`."""
    report = folder / "report.json"

    def inside() -> int:
        mounted = can_mount() and mount(disk, size)
        first = run(_limited(job.work(disk, False), None if mounted else size), folder / "small.log")
        wrong = "fits" if first.code == 0 else _wrong(first, disk)
        if wrong is None:
            if mounted:
                mount(disk, ENOUGH, MS_REMOUNT)
            second = run(job.work(disk, True), folder / "again.log")
            wrong = f"again with room: {second.log[-500:]}" if second.code else differences(job.result(disk), expected)
        report.write_text(json.dumps(wrong))
        return 0

    ended = run(inside, folder / "inside.log", 900)
    _empty(disk)
    if ended.code:
        return f"the try itself failed: {ended.log[-500:]}"
    outcome: str | None = json.loads(report.read_text())
    return outcome


def _wrong(ended: Ended, disk: Path) -> str | None:
    """What is not as it has to be of a command whose disk was full."""
    said = ended.one_line
    if ended.code != 2 or said is None:
        return f"it ended with {ended.code}: {ended.log[-600:]}"
    names = str(disk) in said and any(word in said for word in ("cannot write", "No space left", "File too large"))
    return None if names else f"the line does not name the path and the fault: {said}"


def _limited(work: Work, size: int | None) -> Work:
    """The same, with no file that grows beyond a size."""

    def limited() -> int:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return work()

    return limited


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def can_mount() -> bool:
    """Whether a process here may have a file system of its own."""
    global _can_mount
    if _can_mount is None:
        pid = os.fork()
        if not pid:
            try:
                own_mounts()
                mount(Path("/tmp"), PAGE)
                os._exit(0)
            except BaseException:
                os._exit(1)
        _can_mount = os.waitpid(pid, 0)[1] == 0
    return _can_mount


_can_mount: bool | None = None
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Let this process see mounts of its own; needs to be root, or user namespaces."""
    if _libc.unshare(CLONE_NEWNS):
        user, group = os.getuid(), os.getgid()
        if _libc.unshare(CLONE_NEWNS | CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), "no mounts of one's own")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(b"none", Path("/"), None, MS_REC | MS_PRIVATE, None)


def mount(folder: Path, size: int, flags: int = 0) -> bool:
    """Lay a disk of so many bytes over a folder, for this process and its children alone."""
    if not flags & MS_REMOUNT:
        own_mounts()
    _mount(b"tmpfs", folder, b"tmpfs", flags, f"size={size}".encode())
    return True


def _mount(source: bytes, target: Path, kind: bytes | None, flags: int, data: bytes | None) -> None:
    if _libc.mount(source, str(target).encode(), kind, flags, data):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(target))
