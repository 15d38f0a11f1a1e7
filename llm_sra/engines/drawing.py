"""How `generate` draws and ends the replies of the transformers engine: by their seeds, at stop strings, and in parts.

Which rows are in a batch, and what becomes of what they said, is the engine's part.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StopStringCriteria
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling, stop_at


class StopInReply(StopStringCriteria):  # type: ignore[misc]
    """Ends a row at a stop string in its reply's text (see `stop_at`).

    One in the prompt's end does not count, nor one in the name of a special token.
    """

    def __init__(self, renderer: Renderer, stop: Sequence[str]) -> None:
        super().__init__(renderer.tokenizer, list(stop))
        self._renderer = renderer
        self.prompt_width = 0  # columns before the replies, in the batch at hand
        self.openings: Sequence[str] = ()  # what prompts began the replies with, of each of its rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.Tensor:
        replies = input_ids[:, self.prompt_width :]
        done: torch.Tensor = super().__call__(replies, scores, **kwargs)
        for row in done.nonzero().flatten().tolist():
            text = self._renderer.decode(replies[row].tolist())
            done[row] = stop_at(text, self.stop_strings, self.openings[row]) is not None
        return done


class SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Draws one token per row and leaves it as the only choice; keeps the log-probability that it had."""

    def __init__(self, seeds: Sequence[int], max_tokens: int, sampling: Sampling, choices: Sequence[int]) -> None:
        self.logprobs: list[torch.Tensor] = []
        self._choices = list(choices)
        self._greedy = sampling.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self._greedy:
            if sampling.temperature != 1:
                self._warpers.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k:
                self._warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))
            uniform = [np.random.Generator(np.random.Philox(key=seed)).random(max_tokens) for seed in seeds]
            self._uniform = torch.from_numpy(np.stack(uniform))  # (B, max_tokens), in [0, 1)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        token = self.draw(input_ids, scores)
        chosen = torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
        return cast(torch.FloatTensor, chosen)

    def draw(self, input_ids: torch.Tensor, scores: torch.Tensor, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Draw the next token of each row.

        Args:
            input_ids: (P, L) tokens of the different prompts.
            scores: (P, V), their logits.
            rows: Of each of the B rows, which prompt it has; None: each has its own, B is P.

        Returns:
            (B, 1) tokens.
        """
        scores = scores.float()
        if self._choices:
            others = torch.full_like(scores, -torch.inf)
            others[:, self._choices] = scores[:, self._choices]
            scores = others
        logprobs: torch.Tensor = self._warpers(input_ids, scores).log_softmax(dim=-1)
        index = None if rows is None else torch.tensor(rows, device=scores.device)
        if self._greedy:
            token = logprobs.argmax(dim=-1, keepdim=True)
            token = token if index is None else token[index]
        else:
            cumulative = logprobs.double().exp().cumsum(dim=-1)
            uniform = self._uniform[:, len(self.logprobs), None].to(scores.device)
            token = _inverted(cumulative, uniform) if index is None else _inverted_by_row(cumulative, uniform, index)
        self.logprobs.append(logprobs.gather(1, token)[:, 0] if index is None else logprobs[index, token[:, 0]])
        return token

    def go_on(self, rows: Sequence[int]) -> None:
        """Draw for these rows alone from now on, from where they are."""
        if not self._greedy:
            self._uniform = self._uniform[list(rows), len(self.logprobs) :]
        self.logprobs = []


class Ended(StoppingCriteria):  # type: ignore[misc]
    """Ends rows at end tokens and stop strings, and the whole batch once a share of it has ended.

    `generate` computes every row until the last one ends. Those that go on are to be given to it again.

    Args:
        ends: Token ids that end a reply.
        stop: Ends rows at stop strings; None: there are none.
        most: How many rows may have ended before the batch does.

    Attributes:
        rows: (B,) whether each row has ended.
    """

    def __init__(self, ends: Sequence[int], stop: StopInReply | None, most: int) -> None:
        self._ends, self._stop, self._most = torch.tensor(list(ends)), stop, most
        self.rows: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._ends = self._ends.to(input_ids.device)
        done = torch.isin(input_ids[:, -1], self._ends)
        if self._stop is not None:
            done = done | self._stop(input_ids, scores, **kwargs)
        self.rows = done if self.rows is None else self.rows | done
        return torch.ones_like(done) if int(self.rows.sum()) > self._most else self.rows


def _inverted(cumulative: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(B, N): where sums (B, V) reach shares (B, N) of their last ones."""
    found = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return found.clamp(max=cumulative.size(1) - 1)  # where rounding brought the product up to the sum


def _inverted_by_row(cumulative: torch.Tensor, uniform: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(B, 1): where sums (P, V) reach shares (B, 1) of their last ones; `rows` (B,) says which sums are whose."""
    order = rows.argsort(stable=True)
    counts = torch.bincount(rows, minlength=len(cumulative))
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows[order]]
    shares = uniform.new_zeros(len(cumulative), int(counts.max()))  # those of each row side by side
    shares[rows[order], places] = uniform[order, 0]
    token = torch.empty_like(uniform, dtype=torch.long)
    token[order, 0] = _inverted(cumulative, shares)[rows[order], places]
    return token
