"""`llm-sra table`: a page to play in a browser on this machine: people with each other, or with an agent."""

import argparse
import inspect
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from recipes.terminal import trust_flags

if TYPE_CHECKING:
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.partners.rosters import Entry
    from llm_sra.policies import Policy
    from llm_sra.task import Message, Problem, Task
    from recipes.table.server import Told

LAST_LOOK = 60.0  # seconds that the pages show the end before the server goes
EXAMPLES = 30  # legal replies that are shown
FOR_PEOPLE = {"explain": False, "strict": False}  # the page shows the rules beside; and people write as they like
FOR_RULES = {"explain": True}


def main(argv: Sequence[str]) -> None:
    """Parse the command line and serve the table until all is played."""
    args = parser().parse_args(argv)
    _check(args)
    from rich.text import Text

    from llm_sra.episodes.people import PeopleFile
    from llm_sra.errors import UserError
    from llm_sra.protocol.rules import Rules
    from llm_sra.untrusted import printable
    from recipes.table.game import Game
    from recipes.table.server import TableServer
    from recipes.terminal import console

    task, explained, loader, others, limit = _seated(args)
    problems = Rules(task).problems(args.split, args.problems, args.seed)
    if not problems:
        raise UserError(f"the task has no problems in the split {args.split!r}")
    kept = PeopleFile(args.keep, type(task).__name__) if args.keep else None
    game = Game(task, problems, others, loader.engines, kept.append if kept else None, args.seed, limit)
    screen = console()
    with TableServer(game, _told(task, explained, problems[0], tuple(game.people), args.keep), args.port) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            for seat, address in server.addresses.items():
                screen.print(Text(f"{printable(seat)} opens {address}"), soft_wrap=True)
            screen.print("Only this machine reaches these; each address is its person's alone. Ctrl-C ends the table.")
            episodes = game.run()
            game.wait_for_the_last_look(LAST_LOOK)
        finally:
            server.shutdown()
            if kept:
                kept.close()
    solved = sum(episode.outcome.solved for episode in episodes)
    returns = ", ".join(f"{printable(seat)} {sum(e.total(seat) for e in episodes):+.2f}" for seat in task.seats)
    screen.print(Text(f"{solved} of {len(episodes)} solved; returns: {returns}"))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra table",
        description="Play in a browser on this machine: people with each other (--task), with a run's agent (--run), "
        "or with a partner (--task and --partner).",
    )
    parser.add_argument("--run", help="run folder: its agent has a seat, people have the others")
    parser.add_argument("--task", help="what is played without a run: a name, or path/to/file.py:Class")
    parser.add_argument("--task_args", metavar="JSON", help="options of --task (default: those for people)")
    parser.add_argument(
        "--partner", metavar="NAME",
        help="with --task: a scripted partner, path/to/file.py:Class, or a partner of --roster has a seat",
    )  # fmt: skip
    parser.add_argument("--roster", help="YAML file, or a shipped roster's name, that has --partner: any kind")
    parser.add_argument("--seat", help="seat of the agent or the partner; default: the first")
    parser.add_argument("--problems", type=int, default=3, help="how many (default %(default)s)")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"), help="default %(default)s")
    parser.add_argument("--greedy", action="store_true", help="the agent takes its most likely tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and replies (default %(default)s)")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE",
        help="append what is said to FILE, if everybody agrees; each page asks first",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: any free one)")
    trust_flags(parser, roster=True)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that have no effect."""
    from llm_sra.errors import UserError

    if bool(args.run) == bool(args.task):
        raise UserError("name what is played: either --run RUN, or --task TASK")
    if args.problems < 1:
        raise UserError(f"--problems must be 1 or more, got {args.problems}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be 0 to 65535, got {args.port}")
    for flag in ("task_args", "partner", "roster", "trust_scripts") if args.run else ("greedy", "trust_task"):
        if getattr(args, flag):
            raise UserError(f"--{flag} goes with --{'task' if args.run else 'run'}")
    if args.roster and not args.partner:
        raise UserError("--roster has the partner: name one by --partner")
    if args.trust_scripts and not args.roster:
        raise UserError("--trust_scripts is for the scripts of a --roster")
    if args.trust_remote_code and not (args.run or args.roster):
        raise UserError("--trust_remote_code is for the model of a --run or of a --roster")
    if args.seat and not (args.run or args.partner):
        raise UserError("--seat is the seat of an agent or partner: name one by --run or --partner")


def _seated(args: argparse.Namespace) -> "tuple[Task, Task, PolicyLoader, Mapping[str, Policy], int | None]":
    """The task, the same with its rules in words, the loader, who is no person, and the limit of its replies."""
    from llm_sra.errors import unknown
    from llm_sra.evaluation.matches import DECODINGS
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.registry import load_task, task_class, task_options
    from llm_sra.runs import Run
    from llm_sra.runs.trust import task_of_run
    from recipes.commands.play import agents

    run = Run.open(args.run) if args.run else None
    if run:
        options = dict(run.config["task_args"] or {})
        task = task_of_run(run, options, args.trust_task)
        explained = task_of_run(run, {**options, **_known(type(task), FOR_RULES)}, args.trust_task)
    else:
        cls = task_class(args.task)
        options = {**_known(cls, FOR_PEOPLE), **(task_options(args.task_args) or {})}
        task = load_task(args.task, options)
        explained = load_task(args.task, {**options, **_known(cls, FOR_RULES)})
    seat = args.seat or task.seats[0]
    if seat not in task.seats:
        raise unknown("seat", seat, task.seats)
    loader = PolicyLoader(task, trust_remote_code=args.trust_remote_code)
    others: dict[str, Policy] = {}
    if run:
        others = {seat: agents(loader, run, DECODINGS["greedy" if args.greedy else "sampled"])[seat]}
    elif args.partner:
        others = {seat: loader.partner(_entry(args))[seat]}
    return task, explained, loader, others, run.config["max_completion_length"] if run else None


def _entry(args: argparse.Namespace) -> "Entry":
    """The partner that is named: of the roster, or a script."""
    from llm_sra.errors import unknown
    from llm_sra.partners.rosters import Entry, read_playable

    if not args.roster:
        return Entry(args.partner, "scripted", args.partner)
    entries = read_playable(args.roster, trust_scripts=args.trust_scripts, trust_remote_code=args.trust_remote_code)
    found = [entry for entry in entries if entry.name == args.partner]
    if not found:
        raise unknown("partner", args.partner, [entry.name for entry in entries])
    return found[0]


def _known(cls: "type[Task]", options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that a task has."""
    known = inspect.signature(cls).parameters
    return {name: value for name, value in options.items() if name in known}


def _told(task: "Task", explained: "Task", problem: "Problem", people: Sequence[str], keep: Path | None) -> "Told":
    """What the pages say beside the game."""
    from llm_sra.episodes.people import WHAT_IS_KEPT
    from llm_sra.task import description
    from recipes.table.server import Told

    plain, whole = _openings(task, problem), _openings(explained, problem)
    rules = {seat: _rules(plain[seat], whole[seat]) for seat in people if seat in plain and seat in whole}
    legal = tuple(task.legal_replies())
    about = next(iter(description(task)), type(task).__name__)
    keeps = f"A file on this machine, {keep}, would hold {WHAT_IS_KEPT}." if keep else ""
    return Told(about, rules, legal[:EXAMPLES], len(legal) > EXAMPLES, keeps)


def _openings(task: "Task", problem: "Problem") -> "dict[str, tuple[Message, ...]]":
    """What each seat that speaks sees first, where all say the first legal thing: only who has a turn must have one."""
    from llm_sra.playing import EpisodeSpec, play
    from llm_sra.policies import Match, Scripted
    from llm_sra.task import ScriptedPartner, merge_roles

    class First(ScriptedPartner):
        def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
            return next(iter(task.legal_replies()), "")

    match = Match("rules", dict.fromkeys(task.seats, Scripted("first", First())))
    [episode] = play(task, [EpisodeSpec(problem, match)], {}, seed=0)
    return {turn.seat: merge_roles(turn.view) for turn in reversed(episode.turns)}


def _rules(plain: "tuple[Message, ...]", whole: "tuple[Message, ...]") -> "tuple[Message, ...]":
    """What a task that explains its rules says before what it always says.

    Args:
        plain: What a seat sees first.
        whole: The same, explained.
    """
    from llm_sra.task import Message

    text = whole[-1].content.removesuffix(plain[-1].content).strip()
    before = whole[: len(whole) - len(plain)]
    return (*before, Message("user", text)) if text else before
