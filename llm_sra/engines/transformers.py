"""Generation by transformers, in the process and on the weights that are being trained: nothing to synchronise.

Every reply is a function of its prompt, the weights and its seed: tokens are drawn by inverting the cumulative
distribution at uniform numbers that belong to the request, so neither the batch around it nor a global generator
has a say (up to the float error that another batch shape brings).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llm_sra.adapters import AdapterBank
from llm_sra.engines.base import Completion, Request
from llm_sra.engines.replies import completion, end_of_turn_ids
from llm_sra.render import Renderer
from llm_sra.task import Sampling

PEFT_BASE = "__base__"  # how PEFT calls a row without an adapter


class TransformersEngine:
    """Generates with `model.generate`, one batch per kind of sampling, whatever the adapters.

    Args:
        bank: The model and its adapters.
        tokenizer: The model's tokenizer.
        renderer: How messages become its prompts.
        batch_size: Most replies in one forward pass.
    """

    shares_weights = True

    def __init__(self, bank: AdapterBank, renderer: Renderer, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"the engine's batch size must be 1 or more, got {batch_size}")
        self.bank = bank
        self.renderer = renderer
        self.batch_size = batch_size
        self.context_length: int = bank.base.config.get_text_config().max_position_embeddings
        self._ends = end_of_turn_ids(bank, renderer.tokenizer)

    def sync(self) -> None:
        """Nothing to do: these are the weights that are trained."""

    def rest(self) -> None:
        """Nothing to do: no memory is kept between batches."""

    def close(self) -> None:
        """Nothing to do."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. See `Engine.generate`."""
        groups: dict[tuple, list[int]] = defaultdict(list)
        for position, request in enumerate(requests):
            kind = request.sampling, request.max_tokens, request.stop, request.choices
            groups[kind].append(position)
        completions: dict[int, Completion] = {}
        for positions in groups.values():
            positions.sort(key=lambda position: len(requests[position].prompt_ids))  # little padding
            for start in range(0, len(positions), self.batch_size):
                batch = positions[start : start + self.batch_size]
                completions.update(zip(batch, self._generate_batch([requests[i] for i in batch]), strict=True))
        return [completions[i] for i in range(len(requests))]

    @torch.no_grad()
    def _generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        first = requests[0]
        model, tokenizer = self.bank.model, self.renderer.tokenizer
        width = max(len(request.prompt_ids) for request in requests)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._ends[0]
        input_ids = torch.full((len(requests), width), pad, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, request in enumerate(requests):
            input_ids[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            attention_mask[row, width - len(request.prompt_ids) :] = 1
        draw = _SeededDraw([request.seed for request in requests], first.max_tokens, first.sampling, first.choices)
        stop = [_StopInReply(self.renderer, first.stop, width)] if first.stop else []
        config = GenerationConfig(
            max_new_tokens=first.max_tokens,
            do_sample=False,  # `draw` leaves one token to choose
            eos_token_id=list(self._ends),
            pad_token_id=pad,
            disable_compile=True,
        )
        was_training = model.training
        model.eval()
        try:
            with self._adapters(requests) as generate:
                output = generate(
                    input_ids=input_ids.to(model.device),
                    attention_mask=attention_mask.to(model.device),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([draw]),
                    stopping_criteria=StoppingCriteriaList(stop),
                )
        finally:
            model.train(was_training)
        tokens = output[:, width:].cpu().tolist()
        logprobs = torch.stack(draw.logprobs, dim=1).cpu().tolist()
        return [
            completion(self.renderer, self._ends, row_tokens, row_logprobs, first.stop)
            for row_tokens, row_logprobs in zip(tokens, logprobs, strict=True)
        ]

    @contextmanager
    def _adapters(self, requests: Sequence[Request]) -> Iterator[Callable[..., torch.Tensor]]:
        """How to generate: with the one adapter of all requests, or, by PEFT, each row with its own."""
        names = [request.adapter for request in requests]
        if len(set(names)) == 1:
            with self.bank.using(names[0]), _plain_generation(self.bank.base):
                yield self.bank.base.generate
            return
        for name in set(names) - {None}:
            self.bank.revision(str(name))  # says which adapters there are, if this one is not
        with _plain_generation(self.bank.base), _plain_generation(self.bank.model):
            yield partial(self.bank.model.generate, adapter_names=[name or PEFT_BASE for name in names])


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Without the penalties and suppressed tokens of the model's own generation config.

    They would change the distribution that is sampled from, and `generate` takes them wherever its argument is silent.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


class _StopInReply(StopStringCriteria):
    """Ends a row at a stop string in its reply's text: not in the prompt's end, nor in the name of a special token."""

    def __init__(self, renderer: Renderer, stop: Sequence[str], prompt_width: int) -> None:
        super().__init__(renderer.tokenizer, list(stop))
        self._renderer, self._prompt_width = renderer, prompt_width

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.Tensor:
        replies = input_ids[:, self._prompt_width :]
        done = super().__call__(replies, scores, **kwargs)
        for row in done.nonzero().flatten().tolist():
            text = self._renderer.decode(replies[row].tolist())
            done[row] = any(string in text for string in self.stop_strings)
        return done


class _SeededDraw(LogitsProcessor):
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
        scores = cast(torch.FloatTensor, scores.float())
        if self._choices:
            others = torch.full_like(scores, -torch.inf)
            others[:, self._choices] = scores[:, self._choices]
            scores = cast(torch.FloatTensor, others)
        logprobs = self._warpers(input_ids, scores).log_softmax(dim=-1)
        if self._greedy:
            token = logprobs.argmax(dim=-1, keepdim=True)
        else:
            cumulative = logprobs.double().exp().cumsum(dim=-1)
            uniform = self._uniform[:, len(self.logprobs), None].to(scores.device)
            token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
            token = token.clamp(max=scores.size(1) - 1)  # where rounding brought the product up to the sum
        self.logprobs.append(logprobs.gather(1, token).squeeze(1))
        chosen = torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
        return cast(torch.FloatTensor, chosen)
