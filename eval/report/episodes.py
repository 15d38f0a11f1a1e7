"""A sample of the episodes, as JSON that may stand in a page: what was said stays data, whatever it looks like."""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report.gather import Gathered
from llm_sra.evaluation.results import labels
from llm_sra.runs import Run

PER_CELL = 400
BYTES = 12_000_000  # of all episodes in the page; figures and tables need the rest of 20 MB
LONGEST_REPLY = 4000  # characters
TRAINING = "training"
STEPS = 6  # files of training episodes that are read: the first, the last, and some between
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff\x7f]")

Cell = tuple[str, str, str, str]  # run, seat, partner, decoding


@dataclass(frozen=True)
class Store:
    """The sampled episodes.

    Attributes:
        json: Escaped for a `<script type="application/json">`; see `script_json`.
        shown: How many it holds.
        found: Of how many.
        per_cell: At most so many of each run, seat, partner and decoding.
        tokens: Whether the tokens of any reply are known.
    """

    json: str
    shown: int
    found: int
    per_cell: int
    tokens: bool


def sample(gathered: Gathered, per_cell: int = PER_CELL, limit: int = BYTES) -> Store:
    """Choose and encode episodes: the same ones in each run of the report, so that runs can be held side by side.

    Args:
        gathered: Says where they are.
        per_cell: At most so many of each run, seat, partner and decoding, 1 or more.
        limit: Bytes; if they are more, fewer per cell are taken. One per cell always is.
    """
    seats = list(dict.fromkeys((*gathered.results.seats, *(seat for run in gathered.runs for seat in run.heroes))))
    ranked: list[tuple[int, Cell, str]] = []
    found, tokens = 0, False
    for cells in (_evaluated(gathered), _trained(gathered.runs)):
        for cell, lines in cells.items():
            found += len(lines)
            tokens |= any(any(line.get("token_widths", ())) for line in lines)
            for rank, index in enumerate(_order(cell, len(lines))[:per_cell]):
                ranked.append((rank, cell, script_json(_row(lines[index], cell, seats))))
    kept = _fitting(ranked, limit)
    chosen = [(cell, text) for rank, cell, text in ranked if rank < kept]
    head = {"seats": seats, "labels": labels([run.name for run in gathered.runs])}
    rows = ",\n".join(text for _, text in chosen)
    return Store(f'{{"head":{script_json(head)},"rows":[\n{rows}\n]}}', len(chosen), found, kept, tokens)


def script_json(value: Any) -> str:
    r"""JSON without `<`, `>`, `&`, line separators and lone surrogates: each is `\uXXXX`, and reads back as it was.

    Numbers that JSON does not have (nan, infinities) become null.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _evaluated(gathered: Gathered) -> dict[Cell, list[dict[str, Any]]]:
    """Episodes of the evaluations, of the runs of the report, by cell."""
    cells: dict[Cell, list[dict[str, Any]]] = {}
    for folder in dict.fromkeys(gathered.folders.values()):
        for line in _lines(folder / "episodes.jsonl"):
            if gathered.folders.get(line["run"]) == folder:
                key = line["run"], line["seat"], line["partner"], line["decoding"]
                cells.setdefault(key, []).append(line)
    return cells


def _trained(runs: Sequence[Run]) -> dict[Cell, list[dict[str, Any]]]:
    """Episodes of some steps of each training, by match; `seat` is empty where every seat is a hero's."""
    cells: dict[Cell, list[dict[str, Any]]] = {}
    for run in runs:
        files = sorted((run.path / "episodes").glob("step-*.jsonl"))
        spread = sorted({round(k * (len(files) - 1) / (STEPS - 1)) for k in range(STEPS)}) if files else []
        for line in (line for index in spread for line in _lines(files[index])):
            own = [seat for seat, policy in line["policies"].items() if policy == run.heroes.get(seat)]
            seat = own[0] if len(own) == 1 else ""
            cells.setdefault((run.name, seat, line["match"], TRAINING), []).append(line)
    return cells


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _order(cell: Cell, count: int) -> list[int]:
    """In what order a cell's episodes are taken: by chance, but alike for all runs."""
    return random.Random("/".join(cell[1:])).sample(range(count), count)


def _row(line: Mapping[str, Any], cell: Cell, seats: Sequence[str]) -> dict[str, Any]:
    """An episode as the page reads it; short keys, since there are thousands."""
    run, seat, partner, decoding = cell
    turns = _training_turns(line) if decoding == TRAINING else _evaluated_turns(line)
    returns = line["returns"] if decoding == TRAINING else {seat: line["own_return"]}
    return {
        "r": run,
        "s": seat,
        "p": partner,
        "d": decoding,
        "q": line["problem"],
        "ok": int(line["solved"]),
        "ret": {name: round(float(value), 3) for name, value in returns.items()},
        "eff": {name: line["effort"][name] for name in seats if name in line["effort"]},
        "t": turns,
        **({"step": line["step"]} if decoding == TRAINING else {}),
    }


def _training_turns(line: Mapping[str, Any]) -> list[list[Any]]:
    """Of each turn: seat, text, and the rewards [team, own, cost] that its seat had at that step."""
    made = []
    for turn in line["turns"]:
        at = line["rewards"].get(turn["seat"], [])
        made.append([turn["seat"], _cut(turn["text"]), *at[turn["step"] : turn["step"] + 1]])
    return made


def _evaluated_turns(line: Mapping[str, Any]) -> list[list[Any]]:
    """The same, and for each token its log-probability and how many characters it added, where they are known.

    Old evaluations have no rewards, and older ones no tokens.
    """
    made: list[list[Any]] = []
    for index, (seat, text) in enumerate(line["said"]):
        step = line["steps"][index] if line.get("steps") else 0
        paid = line.get("rewards", {}).get(seat, [])[step : step + 1]
        widths = line["token_widths"][index] if "token_widths" in line else ()
        if widths and len(text) <= LONGEST_REPLY:
            made.append([seat, text, *(paid or [None]), line["token_logprobs"][index], widths])
        else:
            made.append([seat, _cut(text), *paid])
    return made


def _cut(text: str) -> str:
    over = len(text) - LONGEST_REPLY
    return text if over <= 0 else f"{text[:LONGEST_REPLY]} … [{over} more characters]"


def _fitting(ranked: Sequence[tuple[int, Cell, str]], limit: int) -> int:
    """How many per cell fit, 1 or more."""
    sizes: dict[int, int] = {}
    for rank, _, text in ranked:
        sizes[rank] = sizes.get(rank, 0) + len(text.encode()) + 2
    total, kept = 0, 0
    for rank in sorted(sizes):
        total += sizes[rank]
        if total > limit and kept:
            break
        kept = rank + 1
    return max(1, kept)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
