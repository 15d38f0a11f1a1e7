"""A sample of the episodes, as JSON for a page: what was said stays data and is never markup."""

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.gather import Gathered
from llm_sra.episodes import EpisodeRecord, TurnRecord, read_training_episodes
from llm_sra.evaluation.results import labels, read_episodes
from llm_sra.runs import Run
from llm_sra.untrusted import one_line, printable

PER_CELL = 400
BYTES = 12_000_000  # of all episodes in the page, which may have 20 MB: figures and tables need the rest
LONGEST_REPLY = 4000  # characters
TRAINING = "training"
STEPS = 6  # files of training episodes that are read: the first, the last, and some between
_MARKUP = re.compile("[<>&]")

Cell = tuple[str, str, str, str]  # run, seat, partner, decoding


@dataclass(frozen=True)
class EpisodeSample:
    """The sampled episodes.

    Attributes:
        json: Escaped for a `<script type="application/json">`; see `script_json`.
        shown: How many episodes it holds.
        found: How many episodes there are in all.
        per_cell: Most episodes of each run, seat, partner and decoding.
        tokens: Whether the tokens of any reply are known.
    """

    json: str
    shown: int
    found: int
    per_cell: int
    tokens: bool


def sample(gathered: Gathered, per_cell: int = PER_CELL, limit: int = BYTES) -> EpisodeSample:
    """Choose and encode episodes: the same problems for each run of the report, so that runs can be compared.

    Args:
        gathered: Says where the episodes are.
        per_cell: Most episodes of each run, seat, partner and decoding, 1 or more.
        limit: Most bytes. Above it fewer episodes per cell are taken, but never fewer than one.
    """
    seats = list(dict.fromkeys((*gathered.results.seats, *(seat for run in gathered.runs for seat in run.heroes))))
    ranked: list[tuple[int, Cell, str]] = []
    found, tokens = 0, False
    for cells in (_evaluated(gathered), _trained(gathered.runs)):
        for cell, episodes in cells.items():
            found += len(episodes)
            tokens |= any(turn.widths for episode in episodes for turn in episode.turns)
            for rank, index in enumerate(_order(cell, len(episodes))[:per_cell]):
                ranked.append((rank, cell, script_json(_row(episodes[index], cell, seats))))
    kept = _fitting(ranked, limit)
    chosen = [(cell, text) for rank, cell, text in ranked if rank < kept]
    named = labels([run.name for run in gathered.runs])
    head = {"seats": [one_line(seat) for seat in seats], "labels": {run: one_line(name) for run, name in named.items()}}
    rows = ",\n".join(text for _, text in chosen)
    return EpisodeSample(f'{{"head":{script_json(head)},"rows":[\n{rows}\n]}}', len(chosen), found, kept, tokens)


def script_json(value: Any) -> str:
    r"""JSON in which `<`, `>`, `&` and what is not printable are `\uXXXX`; it reads back unchanged.

    Two surrogates side by side are read as the character of both, as in any JSON. Numbers that JSON does not
    have (nan, infinities) become null.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = _MARKUP.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _evaluated(gathered: Gathered) -> dict[Cell, list[EpisodeRecord]]:
    """Episodes of the evaluations, of the runs of the report, by cell."""
    cells: dict[Cell, list[EpisodeRecord]] = {}
    for folder in dict.fromkeys(gathered.folders.values()):
        for line in read_episodes(folder):
            if gathered.folders.get(line.run) == folder:
                cells.setdefault(line.key, []).append(line.episode)
    return cells


def _trained(runs: Sequence[Run]) -> dict[Cell, list[EpisodeRecord]]:
    """Episodes of some steps of each training, by match; `seat` is empty where every seat is a hero's."""
    cells: dict[Cell, list[EpisodeRecord]] = {}
    for run in runs:
        files = sorted((run.path / "episodes").glob("step-*.jsonl"))
        spread = sorted({round(k * (len(files) - 1) / (STEPS - 1)) for k in range(STEPS)}) if files else []
        for episode in (episode for index in spread for episode in read_training_episodes(files[index])):
            own = [seat for seat, policy in episode.policies.items() if policy == run.heroes.get(seat)]
            seat = own[0] if len(own) == 1 else ""
            cells.setdefault((run.name, seat, episode.match, TRAINING), []).append(episode)
    return cells


def _order(cell: Cell, count: int) -> list[int]:
    """The order in which a cell's episodes are taken: random, but the same for all runs."""
    return random.Random("/".join(cell[1:])).sample(range(count), count)


def _row(episode: EpisodeRecord, cell: Cell, seats: Sequence[str]) -> dict[str, Any]:
    """An episode as the page reads it, with short keys because there are thousands."""
    run, seat, partner, decoding = cell
    paid = episode.returns if decoding == TRAINING else {seat: episode.total(seat)}
    return {
        "r": run,
        "s": one_line(seat),
        "p": one_line(partner),
        "d": decoding,
        "q": one_line(episode.problem),
        "ok": int(episode.solved),
        "ret": {one_line(name): round(float(value), 3) for name, value in paid.items()},
        "eff": {one_line(name): episode.effort[name] for name in seats if name in episode.effort},
        "t": [_turn(turn, episode) for turn in episode.turns],
        **({} if episode.step is None else {"step": episode.step}),
    }


def _turn(turn: TurnRecord, episode: EpisodeRecord) -> list[Any]:
    """Seat, text, and the rewards [team, own, cost] that the seat had at that step.

    Then come log-probabilities and widths of the tokens, if they are kept. Old evaluations have no rewards.
    """
    rewards = episode.rewards.get(turn.seat, ())[turn.step : turn.step + 1]
    paid: list[list[float] | None] = [[reward.team, reward.own, reward.cost] for reward in rewards]
    seat = one_line(turn.seat)
    if turn.widths and len(turn.text) <= LONGEST_REPLY:
        return [seat, printable(turn.text), *(paid or [None]), turn.logprobs, _shown_widths(turn)]
    return [seat, printable(_cut(turn.text)), *paid]


def _shown_widths(turn: TurnRecord) -> list[int]:
    """How many characters of each token are shown, where some are shown by several."""
    shown, at = [], 0
    for width in turn.widths or ():
        shown.append(len(printable(turn.text[at : at + width])))
        at += width
    return shown


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
