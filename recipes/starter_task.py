"""A task in one file to start from: two proofreaders, and answering has a private cost. Change it to yours.

`python recipes/starter_task.py` plays one page. `llm-sra check recipes/starter_task.py:Proofread` checks that the class
keeps the task protocol and shows what each seat sees; the page "Your own task" of the documentation explains it all.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm_sra import Task
from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, merge_roles

WORDS = ("garden", "window", "letter", "silver", "market", "bridge", "winter", "summer", "pocket", "candle", "forest")
SPLITS = {"train": range(0, 70), "dev": range(70, 85), "test": range(85, 100)}  # no problem is in two splits


class Page(NamedTuple):
    """The state. It is a value: `step` returns a new one."""

    shown: str
    misspelt: str
    said: tuple[str, ...] = ()


class Idle(ScriptedPartner):
    """Leaves the work to the other."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return "pass"


class Proofread(Task[Page]):
    """Each seat in turn names the misspelt word or says `pass`. The word named last counts; naming one costs `cost`."""

    seats = ("first", "second")
    stop = ("\n",)
    max_reply_tokens = 8
    idle = "idle"  # what a seat contributes is measured against this partner

    def __init__(self, cost: float = 0.2) -> None:  # options come from `--task_args '{"cost": 0.1}'`
        self.cost = cost
        self.partners = {"idle": Idle}  # by the names that rosters use

    # Which problems a split has. Training uses "train", evaluation "test"; none may be in two.
    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        numbers = random.Random(seed).sample(SPLITS[split], len(SPLITS[split]))
        return [Problem(f"page-{number}", number) for number in numbers[:count]]

    # The state before anybody has spoken.
    def start(self, problem: Problem, rng: random.Random) -> Page:
        own = random.Random(problem.data)  # not the episode's: all episodes of a problem begin alike
        words, at = own.sample(WORDS, 4), own.randrange(1, 5)
        words[0] = words[0][:at] + "x" + words[0][at:]
        return Page(" ".join(own.sample(words, 4)), words[0])

    # Who speaks next: one seat, several at once, or () at the end.
    def actors(self, state: Page) -> tuple[str, ...]:
        return self.seats[len(state.said) :][:1]  # one after the other, then nobody: the end

    # What a seat sees, as chat messages; the last one has the role "user".
    def view(self, state: Page, seat: str) -> Sequence[Message]:
        before = [Message("user", f"Your partner said: {text}") for text in state.said]
        return merge_roles([Message("user", f"{state.shown}\nName the misspelt word, or pass."), *before])

    # The new state, and what each seat is paid now. A reply may be any text: never raise, never execute it.
    def step(self, state: Page, replies: Mapping[str, str], rng: random.Random) -> tuple[Page, Mapping[str, Reward]]:
        ((writer, text),) = replies.items()
        state = state._replace(said=(*state.said, text.strip()))
        team = float(not self.actors(state) and self.outcome(state).solved)  # paid once, at the end
        costs = {writer: 0.0 if state.said[-1] == "pass" else self.cost}
        return state, {seat: Reward(team, cost=costs.get(seat, 0.0)) for seat in self.seats}

    # How it ended: whether the team solved it, and each seat's effort. Both are for reports and are not rewards.
    def outcome(self, state: Page) -> Outcome:
        effort = {seat: float(text != "pass") for seat, text in zip(self.seats, state.said, strict=False)}
        return Outcome([word for word in state.said if word != "pass"][-1:] == [state.misspelt], effort)


if __name__ == "__main__":
    task, rng = Proofread(), random.Random(1)
    state = task.start(task.problems("train")[0], rng)
    for seat, said in zip(task.seats, ("pass", state.misspelt), strict=True):
        print(task.view(state, seat)[0].content)
        state, rewards = task.step(state, {seat: said}, rng)
        print(f"-> {seat}: {said}", {paid: reward.total for paid, reward in rewards.items()})
