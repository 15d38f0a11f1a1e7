"""How an agent is asked whose replies are chosen from a task's words: measured, and written for the model card.

Sampling and learning renormalise over the words. Asked freely, such an agent may say anything: how often it would say
one of the words is measured here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm_sra.exporting.example import first_prompt
from llm_sra.models.renderer import Renderer
from llm_sra.task import Task
from llm_sra.untrusted import one_line

PROBLEMS = 16  # prompts that are measured


@dataclass(frozen=True)
class Choices:
    """The words of an agent in a seat.

    Attributes:
        seat: Which one, if its words differ from seat to seat; empty: any.
        words: One of them is the reply.
        ids: Their tokens.
        mass: Mean probability of all of them together, among all tokens at temperature 1.
        prompts: How many were measured.
    """

    seat: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    mass: float
    prompts: int

    def prose(self) -> str:
        """What the card says."""
        shown = ", ".join(f"`{one_line(word).replace('`', chr(39))}`" for word in self.words)
        where = f"In the seat {one_line(self.seat)} a" if self.seat else "A"
        return (
            f"{where} reply is one token, one of the words {shown}; in training and evaluation no other token could be "
            f"drawn. Without that restriction the agent says one of them with probability {self.mass:.2f} (mean over "
            f"{self.prompts} prompts at temperature 1): allow these tokens only. In vLLM without a server that is "
            f"`SamplingParams(max_tokens=1, allowed_token_ids={list(self.ids)})`."
        )


@torch.no_grad()
def measure(task: Task[Any], seats: Sequence[str], model: torch.nn.Module, renderer: Renderer) -> tuple[Choices, ...]:
    """Measure how much probability the words have.

    Args:
        task: Names the words.
        seats: Seats of the agent; empty: any.
        model: The agent.
        renderer: How it is asked.

    Returns:
        One, or one for each seat if the words of its seats differ; none if replies are not chosen from words.
    """
    seats = seats or task.seats
    differ = len({task.choices_of(seat) for seat in seats}) > 1
    parts = [(seat, [seat]) for seat in seats] if differ else [("", seats)]
    found = [_measure(name, task, part, model, renderer) for name, part in parts]
    return tuple(each for each in found if each is not None)


def _measure(
    name: str, task: Task[Any], seats: Sequence[str], model: torch.nn.Module, renderer: Renderer
) -> Choices | None:
    words = task.choices_of(seats[0])
    ids = renderer.single_tokens(words)
    if not ids:
        return None
    rng = random.Random(0)
    prompts = [first_prompt(task, problem, seats, rng) for problem in task.problems("test", PROBLEMS)]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        return None
    was_training = model.training
    model.eval()
    masses = []
    for prompt in prompts:
        logits = model(input_ids=torch.tensor([renderer.render(prompt)])).logits[0, -1].float()
        masses.append(float(logits.softmax(-1)[list(ids)].sum()))
    model.train(was_training)
    return Choices(name, words, ids, sum(masses) / len(masses), len(prompts))
