"""Draws what `llm-sra watch` shows: curves as rows of unicode blocks, and an episode. Reads no file and no clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_sra.episodes import EpisodeRecord
from llm_sra.runs import Run
from llm_sra.untrusted import is_number, one_line, printable
from recipes.terminal import BLOCKS, COLOURS, PLAIN_BLOCKS, duration, sparkline

RECENT = 20  # steps whose time predicts the end
NARROW = 64  # columns; below, a row shows only its curve and last value
LONGEST_REPLY = 400  # characters
TURNS = 12  # most turns of an episode that are shown, the last ones
LEAST = 8  # columns of a curve or a title
AROUND = 6  # lines of a frame that show neither a curve nor a turn
ROWS = (
    "solve rate", "with its partner", "worst partner", "return", "effort", "KL", "entropy", "reply tokens",
    "seconds per step",
)  # fmt: skip
Point = tuple[int, float]


class History:
    """The numbers of a run that are drawn, from the lines of its `metrics.jsonl`.

    Args:
        heroes: Adapter of each seat.
    """

    def __init__(self, heroes: Mapping[str, str]) -> None:
        self._heroes = heroes
        self.curves: dict[str, list[Point]] = {}
        self.seconds: list[float] = []
        self.step: int | None = None
        self.epoch: float | None = None
        self.finished = False

    def add(self, line: Mapping[str, Any]) -> None:
        """Take up a line."""
        self.finished = "train_runtime" in line
        self.step = int(line.get("step", 0))
        self.epoch = line["epoch"] if is_number(line.get("epoch")) else self.epoch
        for title, key in self._names(line).items():
            if is_number(line.get(key)):
                self.curves.setdefault(title, []).append((self.step, float(line[key])))
        parts = [value for key, value in line.items() if key.startswith("time/") and is_number(value)]
        if parts:
            self.seconds.append(sum(parts))
            self.curves.setdefault("seconds per step", []).append((self.step, sum(parts)))

    @property
    def rows(self) -> list[tuple[str, Sequence[Point]]]:
        """Titles and curves, in the order in which they are drawn."""
        place = {title: next(i for i, row in enumerate(ROWS) if title.startswith(row)) for title in self.curves}
        return [(title, self.curves[title]) for title in sorted(self.curves, key=place.__getitem__)]

    def _names(self, line: Mapping[str, Any]) -> dict[str, str]:
        """Titles of the curves, and their names in `metrics.jsonl`."""
        seats = self._heroes.items()
        adversaries = [key.split("/")[1] for key in line if key.endswith("/kl_to_partner")]
        speaking = [*dict.fromkeys(self._heroes.values()), *adversaries]
        return {
            "solve rate": "solve_rate",
            "with its partner (dev)": "eval_self_play",
            "worst partner (dev)": "eval_worst_partner",
            **{f"return {seat}": f"play/{seat}/{hero}/return" for seat, hero in seats},
            **{f"effort {seat}": f"play/{seat}/{hero}/effort" for seat, hero in seats},
            **{f"KL {name}": f"policy/{name}/kl_to_partner" for name in adversaries},
            **{f"entropy {name}": f"policy/{name}/entropy" for name in speaking},
            **{f"reply tokens {seat}": f"play/{seat}/{hero}/reply_tokens_p50" for seat, hero in seats},
        }

    def seconds_left(self, steps: int | None) -> float | None:
        """Until the last of so many steps, by the time that the recent ones took; None if unknown."""
        if steps is None or self.step is None or not self.seconds:
            return None
        return max(steps - self.step, 0) * median(self.seconds[-RECENT:])

    def steps(self, config: Mapping[str, Any]) -> int | None:
        """How many steps the training has in all; None if unknown."""
        if config["max_steps"] > 0:
            return int(config["max_steps"])
        if not self.step or not self.epoch:
            return None
        return math.ceil(self.step / self.epoch * float(config["num_train_epochs"]) - 1e-6)


@dataclass(frozen=True)
class Frame:
    """What is shown at one time.

    Attributes:
        folder: Folder of the run.
        run: None: it has not begun.
        history: Its numbers; None: it has not begun.
        episode: The newest.
        age: Seconds since something was logged.
    """

    folder: str
    run: Run | None
    history: History | None
    episode: EpisodeRecord | None
    age: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.history is not None and self.history.finished

    def draw(self, console: Console, whole: bool = False) -> RenderableType:
        """The frame.

        Args:
            console: Its width and encoding count, and its height unless `whole`.
            whole: Whether to draw all of a tall frame; else an episode is cut to the terminal's height.
        """
        if self.run is None or self.history is None:
            return Text(f"{printable(self.folder)}\nwaiting for the run to begin: no config.yaml there yet")
        head = Text(printable(f"{self.run.name}   {_state(self.run, self.history, self.age)}"), style="bold")
        rows = self.history.rows
        curves: RenderableType = _curves(rows, console)
        if not rows:
            curves = Text("nothing was logged" if self.ended else "waiting for the first step to be logged")
        most = TURNS if whole else min(max(console.height - len(rows) - AROUND, 1), TURNS)
        if self.episode is None:
            return Group(head, curves)
        return Group(head, curves, *episode_lines(self.episode, self.run.heroes, most, console.width // 3))


def _state(run: Run, history: History, age: float | None) -> str:
    """How far the run is."""
    if history.step is None:
        return "finished, untrained" if history.finished else "begun"
    steps = history.steps(run.config)
    parts = [f"{run.config['arm']}, step {history.step}{f' of {steps}' if steps else ''}"]
    left = history.seconds_left(steps)
    if history.finished:
        parts.append("finished")
    elif left is not None:
        parts.append(f"{duration(left)} left (without evaluations)")
    if age is not None and not history.finished:
        parts.append(f"logged {duration(age)} ago")
    return ", ".join(parts)


def _curves(rows: Sequence[tuple[str, Sequence[Point]]], console: Console) -> Table:
    narrow = console.width < NARROW
    beside = 12 if narrow else 34  # the last value, the span, and what parts the columns
    longest = max((len(title) for title, _ in rows), default=0)
    name_width = max(min(longest, console.width - beside - LEAST), LEAST)
    width = max(console.width - beside - name_width, LEAST)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, width=name_width, overflow="ellipsis")
    table.add_column(no_wrap=True, width=width)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    for title, points in rows:
        values = [value for _, value in points]
        line = sparkline(values, width, PLAIN_BLOCKS if console.options.ascii_only else BLOCKS)
        span = "" if narrow else f"{min(values):.3g} to {max(values):.3g}"
        table.add_row(
            Text(one_line(title)), Text(line, "cyan"), Text(f"{values[-1]:.3g}", "bold"), Text(span, style="dim")
        )
    return table


def episode_lines(episode: EpisodeRecord, heroes: Mapping[str, str], most: int, room: int) -> list[RenderableType]:
    """Who said what, with rewards. It is text, never markup: what a partner says is shown and not interpreted.

    Args:
        episode: To show.
        heroes: Adapter of each seat.
        most: Turns, the last ones.
        room: Columns for who says it.
    """
    colours = dict(zip(heroes, COLOURS * len(heroes), strict=False))
    turns = episode.turns
    title = f"step {episode.step}, problem {episode.problem}, match {episode.match}"
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(room, LEAST))  # a name makes no second line
    table.add_column(overflow="fold", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    if len(turns) > most:
        table.add_row("", Text(f"{len(turns) - most} earlier turns", style="dim"), "")
    for turn in turns[-most:]:
        said = printable(turn.text[:LONGEST_REPLY])
        cut = " [...]" if len(turn.text) > LONGEST_REPLY else ""
        who = f"{turn.seat} ({episode.policies.get(turn.seat, '?')})"
        paid = f"{episode.rewards[turn.seat][turn.step].total:+.2f}" if turn.seat in episode.rewards else ""
        style = colours.get(turn.seat, "")
        table.add_row(Text(one_line(who), style=style), Text(said + cut), Text(paid))
    verdict = ("solved", "bold green") if episode.solved else ("not solved", "bold red")
    returns = ", ".join(f"{one_line(seat)} {value:+.2f}" for seat, value in episode.returns.items())
    above = Text(one_line(title), style="bold", no_wrap=True, overflow="ellipsis")
    below = Text.assemble(verdict, f"   returns: {returns}", no_wrap=True, overflow="ellipsis")
    return [Text(), above, table, below]
