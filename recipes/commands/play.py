"""`llm-sra play`: shows episodes of a run as they are played; with `--partner human` you take a seat yourself."""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_sra.episodes.people import WHAT_IS_KEPT, PeopleFile, chosen_name
from llm_sra.errors import UserError, unknown
from llm_sra.policies import EnginePolicy, Match, Policy
from llm_sra.protocol.rules import Rules
from llm_sra.runs import Run
from llm_sra.task import Episode, Message, Sampling, Task, Turn, description
from llm_sra.untrusted import one_line, printable
from recipes.terminal import COLOURS, trust_flags

if TYPE_CHECKING:
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.playing import EpisodeSpec

QUIT = "/quit"
EXAMPLES = 8  # legal replies that are shown


class Human:
    """A policy whose replies are typed in.

    Args:
        console: Where messages are shown.
        ask: Shows a prompt, and returns what is typed.
        choices: If given, nothing else is taken.
        name: Shown in transcripts.
    """

    kind = "human"

    def __init__(
        self, console: Console, ask: Callable[[str], str] = input, choices: Sequence[str] = (), name: str = kind
    ) -> None:
        self._console, self._ask, self._choices, self.name = console, ask, choices, name

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What is typed after being shown the last message; an empty line and what is no choice are asked for again.

        Raises:
            SystemExit: With 0, at `/quit`.
            KeyboardInterrupt: If the input has ended.
        """
        self._console.print(Text(printable(messages[-1].content), style="dim"))
        while True:
            try:
                said = self._ask("you> ").strip()
            except EOFError as error:
                raise KeyboardInterrupt from error
            if said == QUIT:
                raise SystemExit(0)
            if not said:
                self._console.print(f"Type a reply, or {QUIT}.")
            elif self._choices and said not in self._choices:
                self._console.print(Text(f"One of: {', '.join(map(printable, self._choices))}; or {QUIT}."))
            else:
                return said


def introduction(task: Task) -> str:
    """What a person at the table has to know: the task in a sentence, some legal replies, and how to leave."""
    about = next(iter(description(task)), type(task).__name__)
    legal = list(task.legal_replies())
    told = f"You can say: {', '.join(legal[:EXAMPLES])}{' and more' * (len(legal) > EXAMPLES)}. " if legal else ""
    return f"{about}\n{told}{QUIT} leaves."


def agreed(console: Console, path: Path) -> str | None:
    """Ask once whether what a person says may be kept.

    Args:
        console: Where it is said what is kept.
        path: Where it would be kept.

    Returns:
        The name that the person chose; None without consent.

    Raises:
        KeyboardInterrupt: If the input has ended.
    """
    console.print(Text(f"May {one_line(path)} keep this? It holds {WHAT_IS_KEPT}."), soft_wrap=True)
    try:
        while (answer := input("yes or no> ").strip().lower()) not in ("yes", "y"):
            if answer in ("no", "n"):
                console.print("Nothing is kept.")
                return None
        while True:
            try:
                return chosen_name(input("a name of your choosing> "))
            except ValueError as error:
                console.print(Text(str(error)))
    except EOFError as error:
        raise KeyboardInterrupt from error


def main(argv: Sequence[str]) -> None:
    """Parse the command line and play."""
    args = parser().parse_args(argv)
    if args.keep and args.partner != Human.kind:
        raise UserError(f"--keep keeps what a person says: add --partner {Human.kind}")
    from llm_sra.evaluation.matches import DECODINGS
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.partners.rosters import Entry
    from llm_sra.playing import EpisodeSpec
    from llm_sra.runs.trust import task_of_run

    run = Run.open(args.run)
    task = task_of_run(run, run.config["task_args"], args.trust_task)
    seat = args.seat or task.seats[0]
    if seat not in task.seats:
        raise unknown("seat", seat, task.seats)
    console = Console(highlight=False)
    kept = PeopleFile(args.keep, type(task).__name__) if args.keep else None
    person = agreed(console, args.keep) if kept else None
    loader = PolicyLoader(task, trust_remote_code=args.trust_remote_code)
    own = agents(loader, run, DECODINGS["greedy" if args.greedy else "sampled"])
    policies: dict[str, Policy] = dict(own)
    if args.partner == Human.kind:
        console.print(Text(printable(introduction(task)), style="bold"))
    if args.partner:
        others: dict[str, Policy] = (
            {s: Human(console, choices=task.choices_of(s), name=person or Human.kind) for s in task.seats}
            if args.partner == Human.kind
            else dict(loader.partner(Entry(args.partner, "scripted", args.partner)))
        )
        policies = {**others, seat: own[seat]}
    match = Match(f"show/{seat}/{args.partner}", policies)
    for problem in Rules(task).problems(args.split, args.problems, args.seed):
        spec = EpisodeSpec(problem, match)
        episode = _show(console, task, spec, loader, args.seed, run.config["max_completion_length"])
        if kept and person:
            kept.append(episode, {other: person for other in task.seats if other != seat})
    if kept and person:
        kept.close()
        console.print(Text(f"Kept in {one_line(args.keep)}, as {person}."), soft_wrap=True)


def agents(loader: "PolicyLoader", run: Run, sampling: Sampling) -> dict[str, EnginePolicy]:
    """The agent of each seat of a run.

    Args:
        loader: Of the run's task.
        run: Whose agents.
        sampling: How their tokens are drawn.
    """
    team = loader.team(run)
    return {
        seat: EnginePolicy(str(name), team.engines[seat], adapter, sampling)
        for (seat, adapter), name in zip(team.heroes.items(), run.heroes.values(), strict=True)
    }


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser("llm-sra play", description="Show episodes as they are played.")
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--partner", help="'human', a scripted partner, or path/to/file.py:Class; none: self-play")
    parser.add_argument("--seat", help="seat of the run's agent; default: the first")
    parser.add_argument("--problems", type=int, default=3, help="how many")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--greedy", action="store_true", help="take the most likely tokens instead of sampling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, metavar="FILE",
        help="append what a person says to FILE, after asking whether that is wanted; goes with --partner human",
    )  # fmt: skip
    trust_flags(parser)
    return parser


def _show(
    console: Console, task: Task, spec: "EpisodeSpec", loader: "PolicyLoader", seed: int, limit: int | None
) -> Episode:
    """Play one episode and print it turn by turn."""
    from llm_sra.playing import play

    console.rule(Text(one_line(f"problem {spec.problem.id}")))
    colours = dict(zip(task.seats, COLOURS * len(task.seats), strict=False))

    def on_turn(turn: Turn) -> None:
        cut = "" if turn.reply.finish == "stop" else f"  [{turn.reply.finish}]"
        console.print(turn_line(turn.seat, turn.policy, turn.reply.text, cut, colours[turn.seat]))

    [episode] = play(task, [spec], loader.engines, seed=seed, max_reply_tokens=limit, on_turn=on_turn)
    verdict = ("solved", "bold green") if episode.outcome.solved else ("not solved", "bold red")
    returns = ", ".join(f"{printable(seat)} {episode.total(seat):+.2f}" for seat in task.seats)
    console.print(Text.assemble(verdict, f"   returns: {returns}"))
    return episode


def turn_line(seat: str, policy: str, text: str, cut: str, colour: str) -> Table:
    """A turn: on the left who speaks, on the right what is said, however many lines that has.

    It is text, never markup; and none of its lines looks like somebody else's turn.

    Args:
        seat: Whose turn it is.
        policy: Name of who has the seat.
        text: The reply.
        cut: What is said of its end.
        colour: Of the seat.
    """
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=28, justify="right", no_wrap=True, overflow="ellipsis")  # a name makes no second line
    line.add_column(overflow="fold")
    line.add_row(Text(one_line(f"{seat} ({policy})"), colour), Text.assemble(printable(text), (cut, "red")))
    return line
