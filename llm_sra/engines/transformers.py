"""Generation by transformers, in the process and on the weights that are being trained: nothing to synchronise.

Every reply is a function of its prompt, the weights and its seed: tokens are drawn by inverting the cumulative
distribution at uniform numbers that belong to the request, so neither the batch around it nor a global generator
has a say (up to the float error that another batch shape brings).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from llm_sra.engines.base import Completion, Request
from llm_sra.engines.drawing import Ended, SeededDraw, StopInReply
from llm_sra.engines.prefixes import repeated
from llm_sra.engines.prompts import PromptReader, ReadPrompts, Runs
from llm_sra.engines.replies import completion, end_of_turn_ids, ended_by_template
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.mixed_adapters import CannotShareError, MixedAdapters
from llm_sra.models.renderer import Renderer
from llm_sra.models.usable import context_of

SCORED = 32  # replies in one forward pass of `logprobs`
LEAVING = 4  # once a fourth of the rows has ended they leave the batch
LEAST_ROWS = 16  # below this, fewer rows take about as long


class TransformersEngine:
    """Generates with `model.generate`, one batch per kind of sampling.

    Adapters share a batch, except those that cannot (`MixedAdapters.apart`): each of these has batches of its own.

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
        self.context_length: int = context_of(bank.base.config)
        self._ends = end_of_turn_ids(bank.base, renderer)
        self._prompts = PromptReader(bank, next(iter(renderer.ends.ids), renderer.tokenizer.eos_token_id))
        self._stops: dict[tuple[str, ...], StopInReply | None] = {}
        self._mixed: MixedAdapters | None = None

    def sync(self) -> None:
        """Nothing to do: these are the weights that are trained."""

    def rest(self) -> None:
        """Forget what was read."""
        self._prompts.forget()

    def close(self) -> None:
        """Nothing to do."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. See `Engine.generate`."""
        requests = ended_by_template(self.renderer, requests)
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        apart = self._apart(requests)
        for position, request in enumerate(requests):
            kind = request.sampling, request.max_tokens, request.stop, request.choices
            groups[*kind, request.adapter if request.adapter in apart else None].append(position)
        completions: dict[int, Completion] = {}
        for positions in groups.values():
            positions.sort(key=lambda position: len(requests[position].prompt_ids))  # little padding
            for start in range(0, len(positions), self.batch_size):
                batch = positions[start : start + self.batch_size]
                try:
                    done = self._generate_batch([requests[i] for i in batch])
                except CannotShareError:
                    batch.sort(key=lambda i: requests[i].adapter or "")
                    parts = groupby(batch, lambda i: requests[i].adapter)
                    done = [one for _, part in parts for one in self._generate_batch([requests[i] for i in part])]
                completions.update(zip(batch, done, strict=True))
        return [completions[i] for i in range(len(requests))]

    @torch.no_grad()
    def logprobs(
        self,
        said: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        adapter: str | None,
        choices: Sequence[int] = (),
    ) -> list[float]:
        """Log-probabilities of whole replies at temperature 1.

        Args:
            said: Prompts and replies, as token ids.
            adapter: Who is asked; None is the base model.
            choices: Token ids that replies are drawn from; empty: all.

        Returns:
            Natural logs, one for each reply.
        """
        found = [0.0] * len(said)
        order = sorted(range(len(said)), key=lambda i: len(said[i][0]) + len(said[i][1]))  # little padding
        was_training = self.bank.model.training
        self.bank.model.eval()
        try:
            with self.bank.using(adapter):
                for start in range(0, len(order), SCORED):
                    batch = order[start : start + SCORED]
                    for i, logprob in zip(batch, self._score([said[i] for i in batch], list(choices)), strict=True):
                        found[i] = logprob
        finally:
            self.bank.model.train(was_training)
        return found

    def _score(self, said: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], choices: list[int]) -> list[float]:
        whole = [torch.tensor((*prompt, *reply)) for prompt, reply in said]
        ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True).to(self.bank.model.device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in whole], batch_first=True).to(ids.device)
        keep = (
            max(ids.size(1) - len(prompt) for prompt, _ in said) + 1
        )  # places from the first that says a reply's token
        logits = self.bank.base(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits.float()
        first = ids.size(1) - logits.size(1)
        if choices:
            others = torch.full_like(logits, -torch.inf)
            others[..., choices] = logits[..., choices]
            logits = others
        sums = []
        for row, (prompt, reply) in enumerate(said):
            start = len(prompt) - 1 - first
            given = logits[row, start : start + len(reply)].log_softmax(-1)
            sums.append(given.gather(1, torch.tensor(reply, device=ids.device)[:, None]).sum().item())
        return sums

    @torch.no_grad()
    def _generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        model, tokenizer = self.bank.model, self.renderer.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._ends[0]
        was_training = model.training
        model.eval()
        try:
            with self._adapters(requests) as running:
                return self._say(requests, self._prompts.read(requests, pad, running), pad, running)
        finally:
            model.train(was_training)

    def _say(self, requests: Sequence[Request], read: ReadPrompts, pad: int, running: Runs) -> list[Completion]:
        """Generate all replies. Where the cache is ours, rows that have ended leave the batch, a share at a time.

        There the first tokens are drawn from what reading gave: rows with one prompt have one distribution.
        """
        first, layout, cache = requests[0], read.layout, read.cache
        ids, mask = read.ids, read.mask
        draw = SeededDraw([r.seed for r in requests], first.max_tokens, first.sampling, first.choices)
        rows, found = list(range(len(requests))), {}
        places = read.rows  # where each row stands in the cache
        said: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        while rows:
            leave = cache is not None and len(rows) >= LEAST_ROWS and first.max_tokens > 1
            most = len(rows) // LEAVING if leave else len(rows)
            ended = Ended(self._ends, self._stop_of([requests[row] for row in rows], layout.width), most)
            if read.logits is not None and not said[rows[0]]:
                token = draw.draw(ids, read.logits, places)
                ids, mask = ids[places], mask[places]
                output = torch.cat([ids, token], dim=1)
                ended(output, None)  # the scores play no part
            else:
                if cache is not None:
                    cache = repeated(cache, places, layout.width + first.max_tokens)
                    places = list(range(len(rows)))
                with running([requests[row].adapter for row in rows]):
                    output = self.bank.base.generate(
                        input_ids=ids,
                        attention_mask=mask,
                        past_key_values=cache,
                        generation_config=self._config(first.max_tokens - (ids.size(1) - layout.width), pad),
                        logits_processor=LogitsProcessorList([draw]),
                        stopping_criteria=StoppingCriteriaList([ended]),
                    )
            over = [True] * len(rows)
            if output.size(1) < layout.width + first.max_tokens and ended.rows is not None:
                over = ended.rows.tolist()
            tokens = output[:, ids.size(1) :].tolist()
            drawn = torch.stack(draw.logprobs, dim=1).tolist()
            for number, row in enumerate(rows):
                said[row] += tokens[number]
                logprobs[row] += drawn[number]
                if over[number]:
                    found[row] = completion(self.renderer, self._ends, said[row], logprobs[row], requests[row])
                    if cache is not None:
                        self._prompts.keep(requests[row], found[row], layout, read.rows[row], cache, places[number])
            on = [number for number, gone in enumerate(over) if not gone]
            rows, places = [rows[number] for number in on], [places[number] for number in on]
            if rows:
                assert cache is not None  # else nobody leaves before the end
                draw.go_on(on)
                mask = torch.nn.functional.pad(mask[on], (0, output.size(1) - ids.size(1)), value=1)
                ids = output[on]
        return [found[row] for row in range(len(requests))]

    def _config(self, tokens: int, pad: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,  # the draw leaves one token to choose
            eos_token_id=list(self._ends),
            pad_token_id=pad,
            disable_compile=True,
        )

    def _stop_of(self, requests: Sequence[Request], prompt_width: int) -> StopInReply | None:
        """What ends a batch's rows at stop strings; a reply of one token ends anyhow."""
        strings = requests[0].stop
        if not strings or requests[0].max_tokens == 1:
            return None
        if strings not in self._stops:  # compares each string with every token of the vocabulary
            try:
                self._stops[strings] = StopInReply(self.renderer, strings)
            except ValueError:  # no token has a part of one: no reply can say them
                self._stops[strings] = None
        stop = self._stops[strings]
        if stop is not None:
            stop.prompt_width = prompt_width
            stop.openings = [self.renderer.opening(request.prompt_ids) for request in requests]
        return stop

    def _apart(self, requests: Sequence[Request]) -> set[str | None]:
        """The adapters that cannot share a batch."""
        names = {request.adapter for request in requests}
        for name in names - {None}:
            self.bank.revision(str(name))  # says which adapters there are, if this one is not
        if not isinstance(self.bank.model, PeftModel):
            return set()
        if self._mixed is None or not self._mixed.describes(self.bank.model):
            self._mixed = MixedAdapters(self.bank.model)
        return names & self._mixed.apart

    @contextmanager
    def _adapters(self, requests: Sequence[Request]) -> Iterator[Runs]:
        """Make ready the adapters of a batch, which are gathered once; gives what runs rows with them."""
        names = [name for name in self.bank.names if any(name == request.adapter for request in requests)]
        with _plain_generation(self.bank.base):
            if self._apart(requests) or self._mixed is None or not names:
                with self.bank.using(requests[0].adapter):
                    yield lambda rows: nullcontext()
            else:
                yield self._mixed.gather(names).rows


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
