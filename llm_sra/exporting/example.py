"""A prompt and a reply for the model card, from the episodes that a training keeps.

Episodes on disk have no prompts. One is played again with what was said in it, so that the task shows what it showed.
"""

import json
import random
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from llm_sra.episodes import EpisodeRecord, read_training_episodes
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match
from llm_sra.protocol.rules import Rules
from llm_sra.runs import Run
from llm_sra.task import Message, Problem, Task, Turn
from llm_sra.untrusted import one_line, printable

STEPS = 100  # of an episode, to come to the seat's turn
WIDTH = 80  # characters of a prompt in a line of the card


@dataclass(frozen=True)
class Example:
    """What a policy was asked, and what it replied.

    Attributes:
        messages: What its seat saw.
        told: When, and beside whom.
        reply: What it said; None if no episode was kept.
        seat: Where it sat; empty: unknown.
    """

    messages: tuple[Message, ...]
    told: str
    reply: str | None
    seat: str = ""

    def section(self) -> str:
        """What the card says."""
        asked = f"## Example\n\n{self.told}\n\n```python\n{as_python(self.messages)}\n```"
        if self.reply is None:
            return asked
        fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", self.reply))])
        return f"{asked}\n\nIt replied:\n\n{fence}text\n{printable(self.reply)}\n{fence}"


class _Again:
    """A policy that says what was said.

    Args:
        name: As it was called then.
        replies: In order.
    """

    def __init__(self, name: str, replies: Sequence[str]) -> None:
        self.name, self._replies = name, iter(replies)

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """The next of them; nothing where there are no more."""
        return next(self._replies, "")


def find_example(run: Run, policy: str, task: Task) -> Example | None:
    """A turn of a policy in the last step whose episodes were kept, of a solved episode where there is one.

    Args:
        run: That trained it.
        policy: Name of its adapter.
        task: As in training.

    Returns:
        Without a reply, if no episode of the policy was kept, or the task does not show now what it showed then; None
        if it has no turn in the task's first problem.

    Raises:
        OSError, ValueError: If a file of episodes cannot be read, or the task's problems cannot be had.
        TaskError: If the task breaks the protocol.
    """
    rules, seed = Rules(task), int(run.config["seed"])
    record = _last_record(run, policy)
    if record is not None:
        problem = next((one for one in rules.problems("train", seed=seed) if one.id == record.problem), None)
        turn = next((turn for turn in _play_again(record, problem, task, seed) if turn.policy == policy), None)
        if turn:
            others = ", ".join(f"`{one_line(name)}`" for seat, name in record.policies.items() if seat != turn.seat)
            ended = "solved" if record.solved else "did not solve"
            told = (
                f"In step {record.step} of its training, in the seat `{one_line(turn.seat)}` beside {others}, it was "
                f"asked as below. The team {ended} this problem."
            )
            return Example(turn.view, told, turn.reply.text, turn.seat)
    seats = [seat for seat, name in run.heroes.items() if name == policy] or task.seats
    prompts = (first_prompt(task, problem, seats, random.Random(0)) for problem in rules.problems("test", 1))
    messages = next(prompts, ())
    seat = seats[0] if len(seats) == 1 else ""
    return Example(messages, "A prompt of the task:", None, seat) if messages else None


def first_prompt(task: Task, problem: Problem, seats: Sequence[str], rng: random.Random) -> tuple[Message, ...]:
    """What the first of some seats to act sees; others reply nothing, or random choices, before it."""
    state = task.start(problem, rng)
    for _ in range(STEPS):
        actors = task.actors(state)
        for seat in actors:
            if seat in seats:
                return tuple(task.view(state, seat))
        if not actors:
            break
        said = {seat: rng.choice(task.choices_of(seat) or ("",)) for seat in actors}
        state, _ = task.step(state, said, rng)
    return ()


def as_python(messages: Sequence[Message]) -> str:
    """Python that assigns a prompt to `messages`; text over several lines is."""
    lines = ["messages = ["]
    for message in messages:
        role, parts = json.dumps(message.role), _parts(message.content)
        if len(parts) == 1:
            lines.append(f'    {{"role": {role}, "content": {parts[0]}}},')
        else:
            lines += [f'    {{"role": {role}, "content": (', *(f"        {part}" for part in parts), "    )},"]
    return "\n".join([*lines, "]"])


def _parts(text: str) -> list[str]:
    """A text as literals of Python that stand below each other: one a line of it, long lines in several."""
    wrapped = [
        part
        for line in text.splitlines(keepends=True) or [""]
        for part in textwrap.wrap(line, WIDTH, expand_tabs=False, replace_whitespace=False, drop_whitespace=False)
        or [line]
    ]
    return [printable(json.dumps(part, ensure_ascii=False)) for part in wrapped]


def _last_record(run: Run, policy: str) -> EpisodeRecord | None:
    """The episode that is shown; of a checkpoint none that was played after it."""
    last = int(run.checkpoint.rpartition("-")[2]) if run.checkpoint else None
    for path in sorted((run.path / "episodes").glob("step-*.jsonl"), reverse=True):
        if last is not None and int(path.stem.rpartition("-")[2]) > last:
            continue
        found = [record for record in read_training_episodes(path) if policy in record.policies.values()]
        if found:
            return next((record for record in found if record.solved), found[0])
    return None


def _play_again(record: EpisodeRecord, problem: Problem | None, task: Task, seed: int) -> tuple[Turn, ...]:
    """The turns of an episode with what was seen at each; none if it now goes another way than it did."""
    if problem is None or record.step is None:
        return ()
    seats = {
        seat: _Again(record.policies[seat], [turn.text for turn in record.turns if turn.seat == seat])
        for seat in task.seats
        if seat in record.policies
    }
    if len(seats) < len(task.seats):
        return ()
    spec = EpisodeSpec(problem, Match(record.match, seats), record.index)
    [episode] = play(task, [spec], {}, seed=seed, step=record.step - 1)
    went = [(turn.seat, turn.step, turn.reply.text) for turn in episode.turns]
    return episode.turns if went == [(turn.seat, turn.step, turn.text) for turn in record.turns] else ()
