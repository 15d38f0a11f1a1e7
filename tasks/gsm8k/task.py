"""The rules of the relay: problems and splits, turns, what a seat sees, pay, and how an episode ended.

It does not know how a solution is written down (`scratchpad`), what an answer is (`answers`), where the problems lie
(`data`) or who plays (`partners`).
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task, merge_roles
from tasks.gsm8k.data import DataError, Source
from tasks.gsm8k.partners import PARTNERS
from tasks.gsm8k.scratchpad import Scratchpad, opening

SPLITS = ("train", "dev", "test")
PROMPT = Path(__file__).parent / "prompts" / "relay.txt"


class GSM8K(Task[Scratchpad]):
    """Two seats relay one solution of a GSM8K problem, step by step, on a scratchpad that both see.

    A reply is a step: it goes on, corrects, or finishes with `#### number`, and is put onto the scratchpad as it is.
    The episode ends with the first reply that holds a `#### number`, of which the last is the final answer, or after
    `turns` turns. Both seats get 1 if the final answer is the reference.

    Args:
        data_path: A folder with the data set's train.jsonl and test.jsonl; None loads `openai/gsm8k` from the hub.
        turns: Most turns of an episode, both seats together; 2 or more, so that both can finish.
        cost_per_char: What each character that a seat writes costs it, in units of the team reward. By default
            nothing, as in the paper's LLM task; at 1e-4 a solution of 300 characters costs 0.03.
        max_question_chars: Leaves longer questions out, of all splits; None keeps all (the longest has 985).
        validation: Number of problems of the training file that make up the `dev` split, before `max_question_chars`
            thins it out. They are the last by a hash of the question, so neither seed nor order changes them.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range.
        DataError: If the data set's files are missing.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    max_reply_tokens: int = 512
    max_reply_chars: int = 4000
    partners: ClassVar[Mapping[str, Callable[[], ScriptedPartner]]] = PARTNERS

    def __init__(
        self,
        *,
        data_path: str | None = None,
        turns: int = 4,
        cost_per_char: float = 0.0,
        max_question_chars: int | None = None,
        validation: int = 500,
    ) -> None:
        _check_whole("turns", turns, 2)
        _check_whole("validation", validation, 1)
        if max_question_chars is not None:
            _check_whole("max_question_chars", max_question_chars, 1)
        _check_cost(cost_per_char)
        if data_path is not None and not isinstance(data_path, str):
            raise TypeError(f"gsm8k option `data_path` must be a folder's name or null, got {data_path!r}")
        self.turns, self.cost_per_char = turns, float(cost_per_char)
        self.max_question_chars, self.validation = max_question_chars, validation
        self._source = Source(None if data_path is None else Path(data_path).expanduser())
        self._instructions = PROMPT.read_text(encoding="utf-8")

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Problems of a split, shuffled: `test` is the data set's own, `train` and `dev` share its training file."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if count is not None and count < 0:
            raise ValueError(f"count must be 0 or more (None for all problems), got {count}")
        limit = math.inf if self.max_question_chars is None else self.max_question_chars
        chosen = [problem for problem in self._split(split) if len(problem.data["question"]) <= limit]
        if not chosen:
            raise DataError(
                f"no question of the {split} split has at most {limit} characters: raise `max_question_chars`"
            )
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> Scratchpad:
        """A scratchpad without steps."""
        return Scratchpad(problem.data["question"], Decimal(problem.data["answer"]))

    def actors(self, state: Scratchpad) -> tuple[str, ...]:
        """The seats in turn, the first one first, until one has finished or the turns are used up."""
        if state.answer is not None or len(state.steps) >= self.turns:
            return ()
        return (self._writer(len(state.steps)),)

    def view(self, state: Scratchpad, seat: str) -> Sequence[Message]:
        """Instructions and question, the same for every seat; then the steps, the seat's own as `assistant`."""
        messages = [Message("user", opening(self._instructions, state.question))]
        for index, step in enumerate(state.steps):
            messages.append(Message("assistant" if self._writer(index) == seat else "user", step))
        return merge_roles(messages)

    def step(
        self, state: Scratchpad, replies: Mapping[str, str], rng: random.Random
    ) -> tuple[Scratchpad, Mapping[str, Reward]]:
        """Write one step; its writer pays for its length, and if it finishes rightly both are paid."""
        writer = self._writer(len(state.steps))
        state = state.with_step(replies[writer])
        cost = self.cost_per_char * len(replies[writer])
        return state, {
            seat: Reward(team=float(state.solved), cost=cost if seat == writer else 0.0) for seat in self.seats
        }

    def outcome(self, state: Scratchpad) -> Outcome:
        """Whether the final answer is right. A seat's effort is what it wrote, in hundreds of characters.

        `finished`: whether there is a final answer; `finished/SEAT`: whether the seat gave it; `steps/SEAT`: its
        replies that hold more than white space.
        """
        finished = state.answer is not None
        effort: dict[str, float] = {}
        metrics = {"finished": float(finished)}
        for index, seat in enumerate(self.seats):
            steps = state.steps[index :: len(self.seats)]
            effort[seat] = sum(map(len, steps)) / 100
            metrics[f"finished/{seat}"] = float(finished and self._writer(len(state.steps) - 1) == seat)
            metrics[f"steps/{seat}"] = float(sum(bool(step.strip()) for step in steps))
        return Outcome(state.solved, effort, metrics)

    def _split(self, name: str) -> Sequence[Problem]:
        if name == "test":
            return self._source.part("test")
        by_hash = sorted(self._source.part("train"), key=lambda problem: problem.id)
        if self.validation >= len(by_hash):
            raise DataError(
                f"gsm8k option `validation` must be below the {len(by_hash)} problems of the training file, got "
                f"{self.validation}"
            )
        return by_hash[: -self.validation] if name == "train" else by_hash[-self.validation :]

    def _writer(self, index: int) -> str:
        return self.seats[index % len(self.seats)]


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"gsm8k option `{name}` must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"gsm8k option `{name}` must be {least} or more, got {value}")


def _check_cost(cost: float) -> None:
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        raise TypeError(f"gsm8k option `cost_per_char` must be a number, got {cost!r}")
    if not math.isfinite(cost) or cost < 0:
        raise ValueError(f"gsm8k option `cost_per_char` must be finite and 0 or more, got {cost}")
