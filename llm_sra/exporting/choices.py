"""How an agent is asked whose replies are chosen from a task's words: measured, and written for the model card.

Sampling and learning renormalise over the words. Asked freely, such an agent may say anything: how often it would say
one of the words is measured here.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm_sra.models.renderer import Renderer
from llm_sra.task import Message, Task
from llm_sra.untrusted import one_line, printable

PROBLEMS = 16  # prompts that are measured
STEPS = 100  # of an episode, to come to the seat's turn


@dataclass(frozen=True)
class Choices:
    """The words of an agent in a seat.

    Attributes:
        seat: Which one, if its words differ from seat to seat; empty: any.
        words: One of them is the reply.
        ids: Their tokens.
        mass: Mean probability of all of them together, among all tokens at temperature 1.
        example: A prompt of the task.
        prompts: How many were measured.
    """

    seat: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    mass: float
    example: tuple[Message, ...]
    prompts: int

    def section(self) -> str:
        """What the card says."""
        shown = ", ".join(f"`{one_line(word).replace('`', chr(39))}`" for word in self.words)
        messages = printable(json.dumps([m.as_dict() for m in self.example], ensure_ascii=False))
        allowed = list(self.ids)
        where = f" in seat {one_line(self.seat)}" if self.seat else ""
        return (
            f"## Asking it{where}\n\nIts reply is one token, one of the words {shown}; in training and evaluation no "
            f"other token could be drawn. Without that restriction it says one of them with probability "
            f"{self.mass:.2f} (mean over {self.prompts} prompts at temperature 1): allow these tokens only.\n\n"
            f"```python\nmessages = {messages}\n"
            'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
            "return_dict=True)\n"
            f"allowed = {allowed}  # {one_line(', '.join(self.words))}\n"
            "output = model.generate(**inputs, max_new_tokens=1, do_sample=True, top_k=0, "
            "prefix_allowed_tokens_fn=lambda batch, ids: allowed)\n"
            "print(tokenizer.decode(output[0, -1]))\n```\n\n"
            f"In vLLM: `SamplingParams(max_tokens=1, allowed_token_ids={allowed})`. Its server takes "
            f'`"max_tokens": 1, "allowed_token_ids": {allowed}` in a request.'
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
    prompts = [_prompt(task, problem, seats, rng) for problem in task.problems("test", PROBLEMS)]
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
    return Choices(name, words, ids, sum(masses) / len(masses), tuple(prompts[0]), len(prompts))


def _prompt(task: Task[Any], problem: Any, seats: Sequence[str], rng: random.Random) -> Sequence[Message]:
    """What the first of the seats to act sees; others say random words before it."""
    state = task.start(problem, rng)
    for _ in range(STEPS):
        actors = task.actors(state)
        for seat in actors:
            if seat in seats:
                return task.view(state, seat)
        if not actors:
            break
        state, _ = task.step(state, {seat: rng.choice(task.choices_of(seat)) for seat in actors}, rng)
    return ()
