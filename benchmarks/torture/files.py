"""Files that a stranger could send: rosters, run folders, adapters, results and checkpoints, broken or made to harm.

Each is read by the command that would read it, in a process of its own. It has to be read, or refused in one line,
within two seconds on the clock; nothing of it may run. One that seems late is read once more after the command's own
time was taken anew, as other work may have come between. What the same command takes anyhow does not count: to its end
with a sound file if the hostile one is read, to its refusal of a file that is missing if that is refused.
"""

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.torture.children import Ended, Work, command, run, training
from benchmarks.torture.evaluations import make_agents
from benchmarks.torture.tally import Limit, Tally

PROMISE = "read, or refused in one line, within 2 s on the clock besides the command's own time; nothing of it runs"
SECONDS = 2.0
HANGS = 30.0  # seconds besides those of a sound file after which a command is taken to hang
CALIBRATIONS = 3  # of a command's own time; the median counts
MARK = "ran"  # what the files try to write
ROSTER_FILE, PLACE = "roster.yaml", "try"
ROSTER = {
    "partners": [
        {"name": "a", "kind": "scripted", "policy": "tasks.worksheet.partners:Lazy"},
        {"name": "b", "kind": "recorded", "policy": "replies.jsonl", "field": "reply", "rewrite": {"x+": "y"}},
        {"name": "c", "kind": "perturbed", "how": "drop", "probability": 0.3, "of": {"kind": "live"}},
    ]
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: Of it.
        file: Below the folder that is sent.
        read: The command that reads it, given that folder.
        text: Whether it is YAML or JSON, of which single values can be changed.
    """

    name: str
    file: str
    read: Callable[[Path], Work]
    text: bool = True


def send_files(folder: Path, model: Path, seed: int, limit: Limit) -> Iterator[Tally]:
    """Let commands read files that are broken or hostile.

    Args:
        folder: For the files.
        model: The base model's folder.
        seed: Of what is done to them.
        limit: Files, over all kinds.

    Yields:
        A count for each kind.
    """
    folder.mkdir(parents=True)
    sent = folder / "sent"
    _make(sent, model, folder)
    kinds = _kinds(model)
    for kind in kinds:
        yield _Sender(kind, sent, folder / PLACE, random.Random(f"{seed} {kind.name}")).all(limit.over(len(kinds)))


def _make(sent: Path, model: Path, folder: Path) -> None:
    """What is sent, as long as it is whole: an evaluated run, and a checkpoint of another."""
    sent.mkdir()
    (sent / "replies.jsonl").write_text('{"question": "q", "reply": "x"}\n')
    (sent / ROSTER_FILE).write_text(yaml.safe_dump(ROSTER))
    run(lambda: make_agents(sent / "q" / "run", model), folder / "run.log")
    evaluated = run(_evaluation(sent, sent / "q" / "run" / "report"), folder / "eval.log")
    trained = run(training(_training(model, sent / "trained", 2)), folder / "train.log")
    if evaluated.code or trained.code:
        raise RuntimeError(f"nothing to send: {evaluated.log[-500:]} {trained.log[-500:]}")
    (sent / "trained" / ".lock").write_text('{"host": "elsewhere", "pid": 1, "since": "2026-01-01 00:00:00"}')
    metrics = sent / "trained" / "metrics.jsonl"
    shutil.copy(metrics, sent / "q" / "run" / "metrics.jsonl")


def _kinds(model: Path) -> list[Kind]:
    checkpoint = "trained/checkpoints/checkpoint-1"
    agent = "q/run/adapters/left"

    def evaluation(folder: Path) -> Work:
        return _evaluation(folder, folder / "out")

    def report(folder: Path) -> Work:
        return command("report", [folder / "q" / "run", "--out", folder / "page"])

    def watch(folder: Path) -> Work:
        return command("watch", [folder / "trained", "--once"])

    def again(folder: Path) -> Work:
        return _evaluation(folder, folder / "q" / "run" / "report")

    def on(folder: Path) -> Work:
        return training([*_training(model, folder / "trained", 3), "--resume_from_checkpoint", "true"])

    def resume(folder: Path) -> Work:
        return training([*_training(model, folder / "new", 2), "--resume_from_checkpoint", str(folder / checkpoint)])

    return [
        Kind("a roster", ROSTER_FILE, evaluation),
        Kind("recorded replies", "replies.jsonl", evaluation),
        Kind("a run's configuration", "q/run/config.yaml", evaluation),
        Kind("an adapter's configuration", f"{agent}/adapter_config.json", evaluation),
        Kind("an adapter's weights", f"{agent}/adapter_model.safetensors", evaluation, text=False),
        Kind("results", "q/run/report/results.json", report),
        Kind("episodes of an evaluation", "q/run/report/episodes.jsonl", report),
        Kind("the store of an evaluation", "q/run/report/store/process-0.jsonl", again),
        Kind("metrics", "trained/metrics.jsonl", watch),
        Kind("a run's lock", "trained/.lock", on),
        Kind("a checkpoint's state", f"{checkpoint}/trainer_state.json", resume),
        Kind("a checkpoint's manifest", f"{checkpoint}/manifest.json", resume),
        Kind("a checkpoint's optimizer", f"{checkpoint}/optimizer.pt", resume, text=False),
        Kind("a checkpoint's random numbers", f"{checkpoint}/rng_state.pth", resume, text=False),
    ]


def _evaluation(folder: Path, out: Path) -> Work:
    flags = ["--run", folder / "q" / "run", "--roster", folder / "roster.yaml", "--out", out, "--problems", 1]
    return command("eval", [*flags, "--decoding", "greedy", "--disable_tqdm"])


def _training(model: Path, out: Path, steps: int) -> list[str]:
    from training_support import FLAGS

    flags = {**FLAGS, "arm": "ippo", "max_steps": steps, "save_strategy": "steps", "save_steps": 1}
    flags |= {"problems_per_step": 2, "model_name_or_path": model, "output_dir": out}
    return [str(part) for key, value in flags.items() for part in (f"--{key}", value)]


class _Sender:
    """Sends files of one kind, each with something done to it."""

    def __init__(self, kind: Kind, sent: Path, place: Path, rng: random.Random) -> None:
        self._kind, self._sent, self._place, self._rng = kind, sent, place, rng
        self._hangs = 900.0

    def all(self, limit: Limit) -> Tally:
        """Send them."""
        tally = Tally("hostile files", self._kind.name, PROMISE, limit.count)
        whole = self._read(None)
        if whole.code:
            tally.add(f"a whole one is not read: {whole.log[-500:]}")
            return tally
        own = self._own_times()
        self._hangs, slowest, twice = HANGS + own[0], 0.0, 0
        harms = [*_HARMS, *(_TEXT if self._kind.text else _BINARY)]
        if self._kind.file == ROSTER_FILE:
            harms.insert(0, _script)
        while not limit.reached(tally.tried):
            # Each harm once, then at random: the dice are for what changes from time to time.
            harm = harms[tally.tried] if tally.tried < len(harms) else self._rng.choice(harms)
            drawn = self._rng.getstate()
            ended = self._read(harm)
            if ended.seconds - own[ended.code != 0] > SECONDS:
                own, twice = self._own_times(), twice + 1
                self._rng.setstate(drawn)
                ended = self._read(harm)
            late = ended.seconds - own[ended.code != 0]
            slowest = max(slowest, late)
            tally.add(self._wrong(ended, late, harm.__name__.strip("_")))
        shutil.rmtree(self._place, ignore_errors=True)
        tally.note = f"slowest {slowest:.1f} s besides {own[0]:.1f} s (read) or {own[1]:.1f} s (refused)"
        tally.note += f"; {twice} read twice" if twice else ""
        return tally

    def _own_times(self) -> tuple[float, float]:
        """Seconds that the command takes with a sound file, and where the file is missing, which it notices at once.

        A command that does not miss the file comes to its end without it: then both are of that.
        """
        sound, without = (
            median(self._read(harm).seconds for _ in range(CALIBRATIONS))
            for harm in (None, lambda path, _: path.unlink())
        )
        return sound, min(sound, without)

    def _read(self, harm: "Harm | None") -> Ended:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._sent, self._place)
        if harm:
            harm(self._place / self._kind.file, self._rng)
            if self._rng.random() < 0.5:
                _list_again(self._place / self._kind.file)
        return run(self._kind.read(self._place), self._place.with_suffix(".log"), self._hangs)

    def _wrong(self, ended: Ended, late: float, name: str) -> str | None:
        if (self._place / MARK).exists() or list(self._place.rglob(MARK)):
            return f"{name}: it was run"
        if ended.code not in (0, 2) or "Traceback" in ended.log:
            return f"{name}: it ended with {ended.code}: {ended.log[-700:]}"
        if ended.code == 2 and ended.one_line is None:
            return f"{name}: not one line: {ended.log[-500:]}"
        if bad := [c for c in (ended.one_line or "") if not c.isprintable()]:
            return f"{name}: the line holds {bad[0]!r}"
        return f"{name}: {late:.1f} s besides the command's own time" if late > SECONDS else None


# -- what is done to a file --------------------------------------------------------------------------------------------

Harm = Callable[[Path, random.Random], None]


def _place_of(path: Path) -> Path:
    """The folder that was sent."""
    return next(parent for parent in path.parents if parent.name == PLACE)


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _torn(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(1, 5000)))


def _bits(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 20)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _deep(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice("[{") * 100_000 if rng.random() < 0.5 else '{"a":' * 400 + "1" + "}" * 400)


def _bomb(path: Path, rng: random.Random) -> None:
    """Aliases that stand for a value of billions."""
    wide = rng.randrange(4, 12)
    lines = [f"a0: &a0 [{','.join('x' * wide)}]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * wide)}]" for i in range(1, 14)]
    path.write_text("\n".join([*lines, rng.choice(["partners: *a13", "heroes: *a13", "arguments: {task: *a13}"])]))


def _itself(path: Path, rng: random.Random) -> None:
    path.write_text("partners: &p [*p]\nheroes: &h {a: *h}\narguments: &a {task: *a}\n")


def _python_tag(path: Path, rng: random.Random) -> None:
    call = f"!!python/object/apply:os.system ['touch {_place_of(path) / MARK}']"
    path.write_text(f"partners: {call}\nheroes: {call}\narguments: {{task: {call}}}\n")


def _value(path: Path, rng: random.Random) -> None:
    """One value deep in the file is another."""
    lines = path.suffix == ".jsonl"
    text = path.read_text()
    parts = text.splitlines() if lines else [text]
    at = rng.randrange(len(parts))
    loaded = yaml.safe_load(parts[at]) if path.suffix == ".yaml" else json.loads(parts[at])
    holder, key = loaded, None
    for _ in range(rng.randrange(1, 6)):
        inside = holder[key] if key is not None else holder
        if not isinstance(inside, dict | list) or not inside:
            break
        holder, key = inside, rng.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
    if key is not None:
        values = _values(_place_of(path))
        holder[key] = rng.choice(values)
    dumped = yaml.safe_dump(loaded) if path.suffix == ".yaml" else json.dumps(loaded)
    path.write_text("\n".join([*parts[:at], dumped, *parts[at + 1 :]]) + "\n", errors="replace")


def _script(path: Path, rng: random.Random) -> None:
    """A partner of a roster, perturbed or not, is a script of its sender's."""
    scripts = [value for value in _values(_place_of(path)) if str(value).endswith((":Evil", ":x"))]
    script = {"kind": "scripted", "policy": rng.choice(scripts)}
    further = {"kind": "perturbed", "how": "drop", "of": script} if rng.random() < 0.5 else script
    roster = {"partners": [*ROSTER["partners"], {"name": "evil", **further}]}
    path.write_text(yaml.safe_dump(roster))


def _values(place: Path) -> Sequence[Any]:
    (place / "evil.py").write_text(f"open({str(place / MARK)!r}, 'w')\n")
    return (
        None, True, 0, -1, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 10_000, [], {}, [[]], {"a": {"b": 1}},
        "\x1b]0;x\x07", "\u202e\u2066", "../../..", "/etc/passwd", f"{place}/evil.py:Evil", "evil:Evil",
        "antigravity:x", "(a+)+$" + "b" * 40, "(" * 500, "{{ x }}", "[bold]", "$x_{$", "-1", "__class__",
        ["a"] * 1000, [10**9] * 3,
        "http://127.0.0.1:9/v1", "file:///etc/passwd", f"{place}", "\ud800",
    )  # fmt: skip


class _Run:
    """Unpickled, it writes the mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def _pickle(path: Path, rng: random.Random) -> None:
    path.write_bytes(pickle.dumps(_Run(_place_of(path) / MARK)))
    _list_again(path)


def _torch_pickle(path: Path, rng: random.Random) -> None:
    import torch

    torch.save({"state": _Run(_place_of(path) / MARK)}, path)
    _list_again(path)


def _pickled_beside(path: Path, rng: random.Random) -> None:
    """Weights as PyTorch's pickle in the place of safetensors."""
    _torch_pickle(path, rng)
    path.rename(path.with_name("adapter_model.bin" if "adapter" in path.name else path.name))


def _long_header(path: Path, rng: random.Random) -> None:
    """As a file of safetensors whose header is said to be huge."""
    path.write_bytes(struct.pack("<Q", rng.choice([1 << 62, 1 << 40, 99_999_999, 0])) + b"{}")
    _list_again(path)


def _huge_shape(path: Path, rng: random.Random) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    _list_again(path)


def _list_again(path: Path) -> None:
    """A stranger would give the changed file its right hash in the checkpoint's list."""
    import hashlib

    manifest = path.parent / "manifest.json"
    if manifest.is_file() and path.is_file() and path != manifest:
        listed = json.loads(manifest.read_text())
        content = path.read_bytes()
        listed["files"][path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.write_text(json.dumps(listed))


_HARMS: tuple[Harm, ...] = (_empty, _torn, _noise, _bits, _pipe, _device, _folder, _pickle)
_TEXT: tuple[Harm, ...] = (_deep, _bomb, _itself, _python_tag, *([_value] * 12))
_BINARY: tuple[Harm, ...] = (_torch_pickle, _pickled_beside, _long_header, _huge_shape)
