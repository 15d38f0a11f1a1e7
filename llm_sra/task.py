"""The task protocol and its records: what a shared text task is, how a reply is drawn, what an episode leaves behind.

A task is rules: its problems, whose turn it is, what a seat sees, how replies change the state, what the seats are
paid and whether the team solved it. It holds no state of its own, knows no model, no policy and no template, and
draws random numbers only from the generator that it is handed.
"""

import inspect
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import typing_extensions

    # `Task` without brackets is then `Task[Any]` for a type checker; at run time only Python 3.13 has the default.
    State = typing_extensions.TypeVar("State", default=Any)
else:
    State = TypeVar("State")
Role = Literal["system", "user", "assistant"]
OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Problem:
    """One item of a task.

    Attributes:
        id: Unique within the task; the same item has the same id in every run.
        data: What the task needs to play and score it. JSON-serialisable.
    """

    id: str
    data: Any


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message of what a seat sees: its own replies are `assistant`, everything else is `user`."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The form that chat templates and scripted partners take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws tokens.

    Attributes:
        temperature: Logits are divided by it; 0 takes the most likely token. Log-probabilities are those of the
            distribution that was sampled from; at temperature 0 those of temperature 1.
        top_p: Keep the smallest set of tokens with at least this probability; 1 keeps all.
        top_k: Keep this many tokens; 0 keeps all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or more, got {self.top_k}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a policy said at one turn.

    Attributes:
        text: The reply as text, without end-of-turn tokens and cut before the task's stop string (see `stop_at`).
        token_ids: The sampled token ids, end-of-turn token included; empty for policies that speak text.
        logprobs: Natural log of the probability of each of `token_ids` under the distribution that it was sampled
            from (temperature applied); as long as `token_ids`.
        finish: `stop` (ended by itself), `length` (cut at the token or character limit), `context` (the prompt left
            no room in the model's context: nothing was generated).
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length", "context"] = "stop"


@dataclass(frozen=True, slots=True)
class Reward:
    """What one seat gets at one step. Its return is the sum of `team + own - cost` over the steps.

    Attributes:
        team: Shared by all seats (the sheet is solved).
        own: Earned by this seat alone (its own answer is right).
        cost: Private cost of effort, 0 or more.
    """

    team: float = 0.0
    own: float = 0.0
    cost: float = 0.0

    @property
    def total(self) -> float:
        """`team + own - cost`, in units of the reward."""
        return self.team + self.own - self.cost


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode ended.

    Attributes:
        solved: Whether the team solved the problem.
        effort: Work done by each seat, 0 or more, in the task's unit (lines written, moves made).
        metrics: Further named numbers of the task, finite; one without a value is left out. Never used as rewards.
    """

    solved: bool
    effort: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One seat's reply within an episode.

    Attributes:
        seat: Who spoke.
        policy: Name of the policy in that seat.
        step: Index of the step of the episode; seats that move at once share it.
        view: What the seat saw.
        prompt_ids: The tokens that were sent to the engine; empty for policies that speak text.
        reply: What it said.
    """

    seat: str
    policy: str
    step: int
    view: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Episode:
    """One problem played to its end by the policies in its seats.

    Attributes:
        problem: What was played.
        match: Name of the match (which policy sat where).
        index: Number of the episode within its group (same problem, same match), from 0.
        policies: Policy name by seat.
        turns: In the order in which they were spoken.
        rewards: By seat, one `Reward` per step of the episode, also for steps at which the seat did not move.
        outcome: How it ended.
    """

    problem: Problem
    match: str
    index: int
    policies: Mapping[str, str]
    turns: tuple[Turn, ...]
    rewards: Mapping[str, tuple[Reward, ...]]
    outcome: Outcome

    def turns_of(self, seat: str) -> tuple[Turn, ...]:
        """The turns of one seat, in order."""
        return tuple(turn for turn in self.turns if turn.seat == seat)

    def total(self, seat: str) -> float:
        """Undiscounted return of a seat, in units of the reward."""
        return sum(reward.total for reward in self.rewards[seat])

    def team_reward(self, seat: str) -> float:
        """The shared part of a seat's return."""
        return sum(reward.team for reward in self.rewards[seat])

    def cost(self, seat: str) -> float:
        """The private cost that a seat paid."""
        return sum(reward.cost for reward in self.rewards[seat])


class Task(ABC, Generic[State]):
    """A shared text task. Subclass it, and name it to the command line as `path/to/file.py:Class`.

    The constructor takes the task's options as keyword arguments (`task_args` in a recipe) and checks them.

    Attributes:
        seats: Names of the places at the table, in seating order.
        stop: Strings that end a reply during generation; not part of the reply. One ends a reply only once the reply
            has said something, a character that is not white, and never within a thought that is still open. So where
            a line break is one, replies may begin with line breaks, and think in lines. See `stop_at`.
        max_reply_tokens: Token limit of a reply; a recipe may lower it (`max_completion_length`).
        max_reply_chars: Longest text that is taken from any policy; the rest is cut before the task sees it.
        max_turns: Most replies of one seat in an episode; one that goes on is an error.
        cost_per_token: What each generated token costs its writer, on top of what `step` makes it pay; policies that
            speak text generate none.
        choices: If given, a model's reply is one of these words, each a single token of its tokenizer: sampling,
            log-probabilities and entropy are those of the distribution over them alone. One tuple for all seats, or a
            mapping of every seat to its own. Partners that speak text may say anything.
        show_thinking: Whether `step` is told what a model thought (`<think>...</think>`), too. By default a thought is
            taken out of a reply before the task sees it, and one that never ends leaves nothing behind it.
        headline: Name of one of the outcome's metrics, a share in [0, 1] that all episodes have, by which evaluations
            compare agents; empty: the share of problems solved.
        partners: Scripted partners that ship with the task, by the name that rosters use.
        idle: The one of `partners` that does no work, if there is one: what a seat contributes is measured against it.
    """

    seats: ClassVar[tuple[str, ...]]
    stop: tuple[str, ...] = ()
    max_reply_tokens: int = 256
    max_reply_chars: int = 8192
    max_turns: int = 1000
    cost_per_token: float = 0.0
    choices: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    show_thinking: bool = False
    headline: str = ""
    partners: Mapping[str, Callable[[], "ScriptedPartner"]] = {}
    idle: str | None = None

    @abstractmethod
    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Problems of a split (`train`, `dev` or `test`), without repetition and in a fixed order.

        Args:
            split: No problem is in two splits, whatever the seed.
            count: How many; all of them if None, fewer than asked for if there are no more.
            seed: Chooses and orders them.
        """

    @abstractmethod
    def start(self, problem: Problem, rng: random.Random) -> State:
        """The state before the first turn. States are values: never changed in place."""

    @abstractmethod
    def actors(self, state: State) -> tuple[str, ...]:
        """The seats that speak next: one (alternating), several (at once), or none (the episode is over)."""

    @abstractmethod
    def view(self, state: State, seat: str) -> Sequence[Message]:
        """What the seat sees, ending with a `user` message. Neighbouring messages of one role are to be joined."""

    @abstractmethod
    def step(self, state: State, replies: Mapping[str, str], rng: random.Random) -> tuple[State, Mapping[str, Reward]]:
        """The next state, and what each seat gets now. Never fails, whatever the text.

        Args:
            state: Where the episode stands.
            replies: Untrusted text of each seat that `actors` named, at most `max_reply_chars` long, without thoughts.
            rng: The only source of chance.

        Returns:
            The new state, and a reward, finite, for every seat that gets something (missing: zero).
        """

    def choices_of(self, seat: str) -> tuple[str, ...]:
        """The words that a model in a seat chooses from; none: it writes freely."""
        return tuple(self.choices[seat] if isinstance(self.choices, Mapping) else self.choices)

    def legal_replies(self) -> Sequence[str]:
        """Replies that a model must be able to write within the token limit, the longest among them; none: unknown."""
        return tuple(dict.fromkeys(word for seat in self.seats for word in self.choices_of(seat)))

    @abstractmethod
    def outcome(self, state: State) -> Outcome:
        """How it ended; called once `actors` is empty."""


class ScriptedPartner(ABC):
    """A partner written in Python: a pure function of what its seat sees and of the generator.

    Any class with this `reply` will do; inheriting is not needed.
    """

    @abstractmethod
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """What to say next.

        Args:
            messages: What the seat sees, as `{"role": ..., "content": ...}`.
            rng: Seeded for this turn; the only source of chance.
        """


def description(task: Task) -> tuple[str, ...]:
    """What a task is in words: the paragraphs of its class's docstring, each in one line, up to `Args:` or the like."""
    documented = next(cls for cls in type(task).__mro__ if cls.__doc__)
    paragraphs = [] if documented is Task else inspect.cleandoc(str(documented.__doc__)).split("\n\n")
    prose = takewhile(lambda paragraph: not re.match(r"\w+:\n", paragraph), paragraphs)
    return tuple(" ".join(paragraph.split()) for paragraph in prose)


def without_thoughts(text: str) -> str:
    """A reply without what its model thought: up to the last `</think>`, and from a `<think>` that does not end."""
    if OPEN_THOUGHT not in text and CLOSE_THOUGHT not in text:
        return text
    return text.rpartition(CLOSE_THOUGHT)[2].partition(OPEN_THOUGHT)[0].lstrip()


def stop_at(text: str, stop: Sequence[str], opening: str = "") -> int | None:
    """Where a reply ends at a stop string.

    A stop string ends a reply that has said something by then: a character that is not white, in front of the string or
    in it. What is thought says nothing, and within a thought that is still open no stop string ends a reply.

    Args:
        text: The reply, as far as it is known; what follows does not matter.
        stop: The strings.
        opening: What the prompt began the reply with, such as `<think>`. No stop string is looked for in it.

    Returns:
        Where the first string that ends it begins; None if none does.
    """
    found = [_first_that_ends(text, string, opening) for string in stop]
    return min((at for at in found if at is not None), default=None)


def _first_that_ends(text: str, string: str, opening: str) -> int | None:
    at = text.find(string)
    while at >= 0:
        before = opening + text[:at]
        if not thinks(before) and (string.strip() or without_thoughts(before).strip()):
            return at
        at = text.find(string, at + 1)
    return None


def thinks(text: str) -> bool:
    """Whether a reply, as far as it is known, is within a thought."""
    return OPEN_THOUGHT in text.rpartition(CLOSE_THOUGHT)[2]


def merge_roles(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Join neighbouring messages of the same role with a newline, as chat templates expect alternating roles."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, f"{merged[-1].content}\n{message.content}")
        else:
            merged.append(message)
    return tuple(merged)
