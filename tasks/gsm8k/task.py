"""The task: its options, problems and splits. `relay` and `debate` have the rules."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.gsm8k.data import DataError, Source
from tasks.gsm8k.debate import PEER, QUESTION, Debate
from tasks.gsm8k.partners import PARTNERS, RightForWrongReasons
from tasks.gsm8k.relay import Relay
from tasks.options import check_asked, check_numbers, check_switches, check_whole

SPLITS = ("train", "dev", "test")
PROTOCOLS = ("debate", "relay")
PROMPTS = Path(__file__).parent / "prompts"


class GSM8K(Task[Any]):
    """Two seats solve a GSM8K problem together.

    `debate`: both answer at once, in `rounds` rounds, each shown its peer's last reply; each earns for its own right
    answers. `relay`: they take turns on one solution; both earn if its answer is right.

    Args:
        data_path: A folder with the data set's files, train.jsonl and test.jsonl (or *.parquet, as on the hub); None
            loads `openai/gsm8k` from the hub.
        protocol: `debate` or `relay`.
        rounds: Rounds of a debate, 1 or more.
        gamma: Discount of a debate's rounds, in [0, 1]: a right answer in round r is worth γ^r.
        turns: Most turns of a relay, both seats together; 2 or more, so that both can finish.
        cost_per_token: What each generated token costs its writer, in units of the reward.
        strict: Read only `#### number` as an answer; the relay always does.
        show_thinking: Whether a model's thoughts (`<think>...</think>`) are shown to the other seat and searched for
            answers. By default they are removed from a reply; a thought that never ends leaves nothing.
        explain: Whether the first prompt begins with two worked examples (`prompts/example.txt`), for small models.
        prompts: Folder with files that replace the files of the same name in `prompts/`.
        max_question_chars: Questions with more characters are left out of all splits; None keeps all (the longest has
            985).
        validation: Number of problems of the training file in the `dev` split, before `max_question_chars` leaves some
            out. They are the last ones by a hash of the question, so they depend on neither seed nor order.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range.
        DataError: If the data set's files or a prompt are missing.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    max_reply_tokens: int = 512
    max_reply_chars: int = 4000
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS
    idle = "silent"

    def __init__(
        self,
        *,
        data_path: str | None = None,
        protocol: str = "debate",
        rounds: int = 3,
        gamma: float = 1.0,
        turns: int = 4,
        cost_per_token: float = 0.0,
        strict: bool = False,
        show_thinking: bool = False,
        explain: bool = False,
        prompts: str | None = None,
        max_question_chars: int | None = None,
        validation: int = 500,
    ) -> None:
        check_whole("gsm8k", 1, rounds=rounds, validation=validation)
        check_whole("gsm8k", 2, turns=turns)
        if max_question_chars is not None:
            check_whole("gsm8k", 1, max_question_chars=max_question_chars)
        check_numbers("gsm8k", cost_per_token=cost_per_token)
        check_numbers("gsm8k", 1.0, gamma=gamma)
        for name, path in (("data_path", data_path), ("prompts", prompts)):
            if path is not None and not isinstance(path, str):
                raise TypeError(f"gsm8k option `{name}` must be a folder's name or null, got {path!r}")
        check_switches("gsm8k", strict=strict, show_thinking=show_thinking, explain=explain)
        if protocol not in PROTOCOLS:
            raise ValueError(f"gsm8k option `protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        self.max_question_chars, self.validation = max_question_chars, validation
        self.cost_per_token, self.show_thinking = float(cost_per_token), show_thinking
        self._source = Source(None if data_path is None else Path(data_path).expanduser())
        self.partners = {**PARTNERS, "right_for_wrong_reasons": partial(RightForWrongReasons, self._source)}
        folder = None if prompts is None else Path(prompts).expanduser()
        before = f"{read_prompt(folder, 'example.txt')}\n\n" if explain else ""
        self._rules: Relay | Debate
        if protocol == "relay":
            self._rules = Relay(self.seats, turns, before + read_prompt(folder, "relay.txt"))
        else:
            first, again = read_prompt(folder, "debate.txt", QUESTION), read_prompt(folder, "debate_again.txt", PEER)
            self._rules = Debate(self.seats, rounds, float(gamma), before + first, again, strict)

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Problems of a split, shuffled: `test` is the data set's own, `train` and `dev` share its training file."""
        check_asked(split, SPLITS, count)
        limit = math.inf if self.max_question_chars is None else self.max_question_chars
        chosen = [problem for problem in self._split(split) if len(problem.data["question"]) <= limit]
        if not chosen:
            raise DataError(
                f"no question of the {split} split has at most {limit} characters: raise `max_question_chars`"
            )
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> Any:
        return self._rules.start(problem.data["question"], Fraction(problem.data["answer"]))

    def actors(self, state: Any) -> tuple[str, ...]:
        return self._rules.actors(state)

    def view(self, state: Any, seat: str) -> Sequence[Message]:
        return self._rules.view(state, seat)

    def step(self, state: Any, replies: Mapping[str, str], rng: random.Random) -> tuple[Any, Mapping[str, Reward]]:
        return self._rules.step(state, replies)

    def outcome(self, state: Any) -> Outcome:
        return self._rules.outcome(state)

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


def read_prompt(folder: Path | None, name: str, placeholder: str = "") -> str:
    """A prompt from the user's folder if that has it, else the task's own.

    Raises:
        DataError: If the folder is missing, or the prompt lacks its placeholder.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"gsm8k option `prompts`: no folder {folder.absolute()}")
    path = PROMPTS / name if folder is None or not (folder / name).is_file() else folder / name
    text = path.read_text(encoding="utf-8")
    if placeholder not in text:
        raise DataError(f"the prompt {path} must contain {placeholder}")
    return text.strip()
