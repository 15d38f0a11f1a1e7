"""`llm-sra check`: hold a task of one's own against the protocol, and show what each seat sees."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_sra.untrusted import one_line, printable

if TYPE_CHECKING:
    from llm_sra.models.renderer import Renderer
    from llm_sra.protocol.check import Trial, TrialTurn
    from llm_sra.protocol.in_place import Finding
    from llm_sra.task import Episode, Task

PROBLEMS = 8  # that each scripted partner plays


def main(argv: Sequence[str] | None = None) -> None:
    """Check a task, and print what was found.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        TaskError: If the task breaks the protocol; what is wrong has been printed.
        UnknownNameError, ValueError: If there is no such task, or its options do not fit.
    """
    args = parser().parse_args(argv)
    from llm_sra.errors import TaskError
    from llm_sra.protocol.check import check_task
    from llm_sra.registry import load_task, task_options

    task = load_task(args.task, task_options(args.task_args))
    print(_promises(args.task, task))
    checked = check_task(task, args.seed, args.episodes)
    findings, trials, breaks = list(checked.findings), list(checked.trials), _count(checked.findings)
    if trials:
        print(f"\n{_transcript(trials[0], task.stop)}")
    if all(finding.plays for finding in findings if finding.breaks):
        played = _with_partners(task, args.seed)
        scripted = [_as_trial(episode) for episodes in played.values() for episode in episodes]
        print()
        _show_partners(task, played)
        print(f"\n{_texts(task, [*trials, *scripted], args.model_name_or_path)}")
        if args.model_name_or_path and scripted:
            findings += _of_limit(task, scripted, args.model_name_or_path)
    print(f"\n{_listed(findings)}")
    if breaks:
        raise TaskError(f"{args.task} breaks the protocol in {_things(breaks)}, listed above")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra check",
        description="Play a few episodes of a task with stand-in replies and with its scripted partners. Check every "
        "promise of the task protocol on them, print what each seat sees, and say what to mend.",
    )
    parser.add_argument("task", metavar="TASK", help="path/to/file.py:Class, module:Class, or a shipped task's name")
    parser.add_argument("--task_args", metavar="JSON", help="options of the task")
    parser.add_argument("--episodes", type=int, default=3, help="with stand-in replies (default %(default)s)")
    parser.add_argument(
        "--model_name_or_path", metavar="MODEL", help="count prompts and replies in this model's tokens, too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of problems and replies (default %(default)s)")
    return parser


def _count(findings: Sequence["Finding"]) -> int:
    return sum(finding.breaks for finding in findings)


def _things(count: int) -> str:
    return "one thing" if count == 1 else f"{count} things"


def _promises(name: str, task: "Task") -> str:
    """What the task says of itself."""
    if isinstance(task.choices, Mapping):
        replies = "; ".join(f"{seat} one of {', '.join(task.choices_of(seat))}" for seat in task.seats)
    elif task.choices:
        replies = f"one of {', '.join(task.choices)}"
    else:
        ends = f", ended by {' or '.join(map(repr, task.stop))}" if task.stop else ""
        replies = f"text of at most {task.max_reply_tokens} tokens{ends}"
    partners = ", ".join(task.partners) or "none; a task may name some in `partners`"
    lines = [f"task {name}", f"  seats:             {', '.join(task.seats)}", f"  replies:           {replies}"]
    return printable("\n".join([*lines, f"  scripted partners: {partners}"]))


def _transcript(trial: "Trial", stop: Sequence[str]) -> str:
    """The first episode: what each seat saw that was new to it, said and was paid."""
    from llm_sra.protocol.texts import added

    lines = [f"problem {one_line(trial.problem.id)}, with stand-in replies:"]
    last: dict[str, TrialTurn] = {}
    for turn in trial.turns:
        new = added(last[turn.seat], turn, stop) if turn.seat in last else None
        lines += [
            f"  {one_line(turn.seat)} sees {'what it saw, its reply, and' if new is not None else ''}".rstrip() + ":"
        ]
        for message in turn.view if new is None else new:
            content = printable(message.content).replace("\n", "\n" + " " * 6 + " " * len(message.role))
            lines.append(f"    {message.role}: {content}")
        lines.append(f"  {one_line(turn.seat)} says {turn.reply!r}")
        last[turn.seat] = turn
    seats = sorted({seat for step in trial.rewards for seat in step})
    paid = {seat: sum(step[seat].total for step in trial.rewards if seat in step) for seat in seats}
    returns = ", ".join(f"{one_line(seat)} {total:+.2f}" for seat, total in paid.items()) or "nothing"
    solved = "solved" if trial.outcome.solved else "not solved"
    return "\n".join([*lines, f"  the end: {solved}; paid in all: {returns}"])


def _with_partners(task: "Task", seed: int) -> dict[str, list["Episode"]]:
    """Episodes in which one scripted partner has every seat, by its name."""
    from llm_sra.playing import EpisodeSpec, play
    from llm_sra.policies import Match, Scripted
    from llm_sra.protocol.rules import Rules

    problems = Rules(task).problems("train", PROBLEMS, seed)
    played = {}
    for name, make in task.partners.items():
        match = Match(name, {seat: Scripted(name, make()) for seat in task.seats})
        played[name] = list(play(task, [EpisodeSpec(problem, match) for problem in problems], {}, seed=seed))
    return played


def _as_trial(episode: "Episode") -> "Trial":
    from llm_sra.protocol.check import Trial, TrialTurn

    turns = tuple(TrialTurn(turn.seat, turn.view, turn.reply.text) for turn in episode.turns)
    steps = max(map(len, episode.rewards.values()), default=0)
    rewards = tuple({seat: paid[step] for seat, paid in episode.rewards.items()} for step in range(steps))
    return Trial(episode.problem, turns, rewards, episode.outcome)


def _show_partners(task: "Task", played: dict[str, list["Episode"]]) -> None:
    """What each scripted partner comes to in all seats."""
    if not played:
        print("no scripted partners to play with: what good and bad play earn is not known")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE)
    for title in ("partner in all seats", task.headline or "solved", *(f"return of {seat}" for seat in task.seats)):
        grid.add_column(Text(one_line(title)))
    for name, episodes in played.items():
        returns = [sum(each.total(seat) for each in episodes) / len(episodes) for seat in task.seats]
        cells = [name, _success(task, episodes), *(f"{value:+.2f}" for value in returns)]
        grid.add_row(*(Text(one_line(cell)) for cell in cells))
    Console(highlight=False).print(grid)


def _success(task: "Task", episodes: Sequence["Episode"]) -> str:
    """Of what the task is compared by: its headline, else the problems solved."""
    if task.headline:
        return f"{sum(each.outcome.metrics[task.headline] for each in episodes) / len(episodes):.2f}"
    return f"{sum(each.outcome.solved for each in episodes)} of {len(episodes)}"


def _texts(task: "Task", trials: Sequence["Trial"], model: str | None) -> str:
    """Whether views grow, and how long prompts and replies are."""
    from llm_sra.protocol.texts import grows, longest

    grown = [seat for seat in task.seats if grows(trials, seat, task.stop)]
    lines = []
    if grown:
        lines.append(f"views of {', '.join(grown)} only grow: a whole episode is one training sequence")
    if others := [seat for seat in task.seats if seat not in grown]:
        lines.append(f"views of {', '.join(others)} are made anew: each turn is a training sequence")
    if model is None:
        top = longest(trials, lambda turn: sum(len(message.content) for message in turn.view))
        assert top is not None  # an episode without turns is a finding that breaks
        lines.append(
            f"longest prompt: {top.size} characters (seat {top.seat}, problem {top.problem}); name a model with "
            "--model_name_or_path to count tokens"
        )
        return printable("\n".join(lines))
    renderer = _renderer(model)
    prompt = longest(trials, lambda turn: len(renderer.render(turn.view)))
    assert prompt is not None
    lines.append(f"longest prompt: {prompt.size} tokens of {model} (seat {prompt.seat}, problem {prompt.problem})")
    return printable("\n".join(lines))


def _of_limit(task: "Task", scripted: Sequence["Trial"], model: str) -> list["Finding"]:
    """Agents should be able to say what scripts say: tells their longest reply; finds fault if it exceeds the limit."""
    from llm_sra.protocol.in_place import Finding
    from llm_sra.protocol.texts import longest

    renderer, limit = _renderer(model), task.max_reply_tokens
    reply = longest(scripted, lambda turn: len(renderer.encode_text(turn.reply)))
    assert reply is not None
    said = f"{reply.size} tokens of {model} (seat {reply.seat}, problem {reply.problem})"
    print(printable(f"longest reply of a scripted partner: {said}; the limit is {limit}"))
    if task.choices or reply.size <= limit:
        return []
    return [Finding(f"max_reply_tokens is {limit}, but a scripted partner says {said}: raise the limit", breaks=False)]


def _renderer(model: str) -> "Renderer":
    from llm_sra.models.loading import load_tokenizer
    from llm_sra.models.renderer import Renderer

    return Renderer(load_tokenizer(model))


def _listed(findings: Sequence["Finding"]) -> str:
    if not findings:
        return "nothing found against the protocol"
    kinds = {True: "wrong", False: "doubtful"}
    ordered = sorted(findings, key=lambda finding: not finding.breaks)
    return "\n".join(f"{kinds[finding.breaks]}: {one_line(finding.text)}" for finding in ordered)
