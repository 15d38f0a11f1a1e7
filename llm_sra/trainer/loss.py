"""How one adapter's loss is cut into micro-batches without changing it.

TRL normalises a loss by the micro-batch that it sees. Here every micro-batch gets a scale such that the parts add up to
the loss over all the adapter's rows on all processes, whatever the micro-batch size. Gradients are averaged over
processes, so losses are multiplied by their number. Only bnpo is, by definition, normalised on each process by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import Row, collate

TOKEN_SUM = ("dapo", "cispo", "vespo", "bnpo")  # normalised by the number of own tokens (bnpo: of its process)
ROW_MEAN = ("grpo", "sapo")  # mean over a row's tokens, then over rows
# dr_grpo and luspo: sum over a row's tokens, mean over rows (dr_grpo: by the reply limit, too)
NEVER = -1e4  # a logit whose probability is 0 in float32; much lower ones make an entropy's gradient infinite times 0


@dataclass(frozen=True, slots=True)
class Share:
    """How much one adapter has to train on in this step.

    Attributes:
        rows: Number of rows, over all processes.
        tokens: Number of own tokens, over all processes.
        most: Number of rows of the process that has the most.
        processes: Number of processes.
        local: Number of own tokens of this process.
    """

    rows: int
    tokens: int
    most: int
    processes: int
    local: int

    @classmethod
    def of(cls, samples: Sequence[Sample], accelerator: Accelerator) -> "Share":
        """Count over all processes; all of them must call this."""
        mine = [len(samples), sum(s.row.own_tokens for s in samples)]
        everyone = accelerator.gather(torch.tensor([mine], device=accelerator.device))
        rows, tokens = everyone.sum(dim=0).tolist()
        return cls(rows, tokens, int(everyone[:, 0].max()), accelerator.num_processes, mine[1])

    def normaliser(self, loss_type: str) -> float:
        """What a sum over the own tokens of this process is divided by, as gradients are averaged over processes."""
        return max(self.local, 1) if loss_type == "bnpo" else self.tokens / self.processes


def micro_batches(samples: Sequence[Sample], size: int, share: Share) -> list[list[Sample]]:
    """Neighbouring samples in batches of at most `size`.

    TRL gathers what it reports, so every process must run the same number of micro-batches with the same number of
    rows. A process that has fewer is filled up with rows without loss.
    """
    batches = [list(batch) for batch in chunks(samples, size)]
    if share.processes == 1:
        return batches
    empty = Sample(Row(0, "", (0,)), "", None)
    empty.old_logprobs = empty.ref_logprobs = empty.importance = empty.values = empty.targets = torch.zeros(0)
    batches += [[] for _ in range(-(-share.most // size) - len(batches))]
    return [batch + [empty] * (min(size, share.most) - len(batch)) for batch in batches]


def accumulation_scale(loss_type: str, rows: int, tokens: int, share: Share, steps_per_generation: int) -> float:
    """What TRL must divide a micro-batch's loss by, as its number of accumulation steps.

    Args:
        loss_type: TRL's.
        rows: Rows of the micro-batch.
        tokens: Own tokens of the micro-batch.
        share: Of the adapter.
        steps_per_generation: TRL multiplies by the scale and divides by this where the loss is a sum over tokens.
    """
    if loss_type == "bnpo":
        return share.normaliser(loss_type) / max(tokens, 1)
    if loss_type in TOKEN_SUM:
        return steps_per_generation
    return share.rows / (rows * share.processes)


def reduce_tokens(
    values: torch.Tensor, mask: torch.Tensor, share: Share, loss_type: str, reply_limit: int, mean: bool = False
) -> torch.Tensor:
    """A micro-batch's part of a further term of the loss: the entropy, the exact tether.

    Args:
        values: (B, T), one number per token.
        mask: (B, T), 1 on own tokens.
        share: Of the adapter.
        loss_type: TRL's; names the policy term's normaliser.
        reply_limit: Token limit of a reply, which normalises dr_grpo.
        mean: Take the mean per own token instead of normalising like the policy term.

    Returns:
        A scalar; the parts of all micro-batches, averaged over processes, add up to the term.
    """
    masked = values * mask
    if mean or loss_type in TOKEN_SUM:
        return masked.sum() / share.normaliser("dapo" if mean else loss_type)
    if loss_type in ROW_MEAN:
        return (masked.sum(-1) / mask.sum(-1).clamp(min=1)).sum() * share.processes / share.rows
    per_row = masked.sum() * share.processes / share.rows
    return per_row / reply_limit if loss_type == "dr_grpo" else per_row


def importance_ratios(
    own: torch.Tensor,
    sampled: torch.Tensor,
    mask: torch.Tensor,
    mode: str,
    highest: float | None,
    lowest: float | None,
) -> torch.Tensor:
    """Importance ratios: what the loss of a token is multiplied by if another engine than the trainer sampled it.

    Truncated importance sampling with TRL's modes and bounds: the trainer's probability of a token, or of a whole row,
    over that of the engine, clamped to the bounds (`*_truncate`) or set to 0 outside them (`*_mask`).

    Args:
        own: (B, T) log-probabilities by the trainer, before any update.
        sampled: (B, T) log-probabilities by the engine.
        mask: (B, T), 1 on own tokens.
        mode: See `ImportanceMode` in `config`.
        highest: Upper bound; None: none.
        lowest: Lower bound; None: none.

    Returns:
        (B, T), 1 where a token is not own.
    """
    differences = (own - sampled) * mask
    if mode.startswith("sequence"):
        differences = differences.sum(-1, keepdim=True).expand_as(differences)
    ratios = differences.exp()
    low, high = lowest if lowest is not None else 0.0, highest if highest is not None else float("inf")
    if mode.endswith("truncate"):
        bounded = ratios.clamp(low, high)
    else:
        bounded = ratios.masked_fill((ratios < low) | (ratios > high), 0.0)
    return torch.where(mask.bool(), bounded, torch.ones_like(bounded))


def loss_inputs(batch: Sequence[Sample], share: Share, pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors that TRL's `_compute_loss` takes, for B rows of at most T completion tokens.

    Returns:
        What `collate` gives; `advantages` (B, T); `num_items_in_batch`, a scalar; and where the samples have them
        `old_per_token_logps`, `ref_per_token_logps`, `importance_sampling_ratio`, `values` and `targets` (B, T).
    """
    inputs = collate([sample.row for sample in batch], pad_id, device)
    width = inputs["completion_ids"].size(1)
    inputs["num_items_in_batch"] = torch.tensor(float(share.tokens), device=device)
    for key, rows in (
        ("advantages", [sample.advantages for sample in batch]),
        ("values", [sample.values for sample in batch]),
        ("targets", [sample.targets for sample in batch]),
        ("old_per_token_logps", [sample.old_logprobs for sample in batch]),
        ("ref_per_token_logps", [sample.ref_logprobs for sample in batch]),
        ("importance_sampling_ratio", [sample.importance for sample in batch]),
    ):
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):  # rows that fill a process up always have them
            fill = float("nan") if key == "targets" else 0.0
            padded = [torch.nn.functional.pad(row.to(device), (0, width - len(row)), value=fill) for row in known]
            inputs[key] = torch.stack(padded)
    return inputs


def token_statistics(
    logits: torch.Tensor, ids: torch.Tensor, choices: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of sampled tokens, and entropies of the distributions that they were drawn from.

    Args:
        logits: (B, T, V), divided by the temperature; (B, T, C) where there are C choices.
        ids: (B, T), the sampled tokens; one that is no choice gets the log-probability of the first choice.
        choices: (C,) or (B, T, C), token ids, if replies are chosen from some.

    Returns:
        (B, T) and (B, T), in nats.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    places = ids if choices is None else (ids[..., None] == choices).int().argmax(dim=-1)
    return logprobs.gather(-1, places[..., None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(dim=-1)


def restricted(logits: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Logits of the choices alone.

    Args:
        logits: (..., V).
        choices: (C,), token ids; or (..., C), each token's own, -1 where it has fewer than C.

    Returns:
        (..., C); `NEVER` where there is no choice.
    """
    if choices.dim() == 1:
        return logits[..., choices]
    chosen = logits.gather(-1, choices.clamp(min=0))
    return chosen.masked_fill(choices < 0, NEVER)


def missing_probability(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """How improbable it is, in nats, that a token is one of the choices: -log P(choices) without restriction.

    Args:
        logits: (..., V), of the whole vocabulary.
        chosen: (..., C), those of the choices.

    Returns:
        (...), 0 or more.
    """
    return logits.float().logsumexp(-1) - chosen.float().logsumexp(-1)


def by_length(samples: Sequence[Sample]) -> list[Sample]:
    """Sorted by length, so that neighbours need little padding."""
    return sorted(samples, key=lambda sample: len(sample.row))


def by_beginning(samples: Sequence[Sample]) -> list[Sample]:
    """Sorted by prompt and then by length, so that neighbours share most."""
    return sorted(
        samples, key=lambda sample: (sample.row.prompt_ids, len(sample.row), tuple(sample.row.completion_ids))
    )


def cheapest_order(samples: Sequence[Sample], size: int, cost: Callable[[Sequence[Row]], float]) -> list[Sample]:
    """Sorted by length, or by beginning if micro-batches then cost less in all.

    Args:
        samples: In any order.
        size: Of a micro-batch.
        cost: Of the rows of one.
    """

    def total(order: Sequence[Sample]) -> float:
        return sum(cost([sample.row for sample in batch]) for batch in chunks(order, size))

    return min(by_length(samples), by_beginning(samples), key=total)


def chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """Neighbouring samples, at most `size` at a time."""
    return (samples[start : start + size] for start in range(0, len(samples), size))
