"""Training rows: what a seat's policy said in an episode, as token sequences with a mask on its own tokens.

Where a seat's view only grows by appending, its whole episode is one row: prompt, reply, what came in between
(masked), reply, ... Where a prompt does not begin with all tokens so far, a new row starts. Comparing tokens decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from llm_sra.task import Episode


@dataclass
class Row:
    """One sequence to train on.

    Attributes:
        episode: Position of the episode in its batch.
        seat: Who spoke.
        prompt_ids: Tokens before the first reply of the row.
        completion_ids: Everything after, the seat's own replies and what came between them.
        own: 1 where the token is the seat's own and is trained on, else 0; as long as `completion_ids`.
        turns: Number of the seat's turn that a token belongs to, -1 for what came in between.
        logprobs: Log-probabilities with which own tokens were sampled, 0 elsewhere.
    """

    episode: int
    seat: str
    prompt_ids: tuple[int, ...]
    completion_ids: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def own_tokens(self) -> int:
        """Number of tokens that carry loss."""
        return sum(self.own)

    @property
    def said(self) -> torch.Tensor:
        """Which tokens the seat said, cut replies too: bools, as many as `completion_ids`."""
        return torch.tensor([turn >= 0 for turn in self.turns], dtype=torch.bool)

    def extend(self, ids: Sequence[int], own: int, turn: int, logprobs: Sequence[float]) -> None:
        """Append tokens."""
        self.completion_ids.extend(ids)
        self.own.extend([own] * len(ids))
        self.turns.extend([turn] * len(ids))
        self.logprobs.extend(logprobs)


def rows_of(episode: Episode, position: int, seat: str, mask_truncated: bool = False) -> list[Row]:
    """The rows of one seat of an episode; none if its policy gives text without tokens, or said nothing.

    Args:
        episode: What was played.
        position: The episode's position in its batch.
        seat: Whose replies.
        mask_truncated: Leave replies that were cut at the token limit out of the loss.
    """
    rows: list[Row] = []
    for number, turn in enumerate(episode.turns_of(seat)):
        reply = turn.reply
        if not reply.token_ids:
            continue
        sofar = (*rows[-1].prompt_ids, *rows[-1].completion_ids) if rows else ()
        if rows and turn.prompt_ids[: len(sofar)] == sofar:
            between = turn.prompt_ids[len(sofar) :]
            rows[-1].extend(between, 0, -1, [0.0] * len(between))
        else:
            rows.append(Row(position, seat, turn.prompt_ids))
        own = 0 if mask_truncated and reply.finish == "length" else 1
        rows[-1].extend(reply.token_ids, own, number, reply.logprobs)
    return rows


def joined(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Whole rows of a batch that `collate` made: (B, P + T) token ids, their attention mask, and T."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return ids, mask, inputs["completion_ids"].size(1)


def collate(rows: Sequence[Row], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows as the tensors that TRL's loss takes.

    Args:
        rows: B of them.
        pad_id: Fills the prompts on the left and the completions on the right.
        device: Where the tensors go.

    Returns:
        `prompt_ids`, `prompt_mask` (B, P); `completion_ids`, `completion_mask`, `tool_mask` (B, T), the last being 1
        on own tokens; `sampling_per_token_logps` (B, T).
    """
    left = max(len(row.prompt_ids) for row in rows)
    right = max(2, *(len(row.completion_ids) for row in rows))  # TRL takes one column for one value per row

    def fill(width: int, value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((len(rows), width), value, dtype=dtype)

    batch = {
        "prompt_ids": fill(left, pad_id, torch.long),
        "prompt_mask": fill(left, 0, torch.long),
        "completion_ids": fill(right, pad_id, torch.long),
        "completion_mask": fill(right, 0, torch.long),
        "tool_mask": fill(right, 0, torch.long),
        "sampling_per_token_logps": fill(right, 0.0, torch.float32),
    }
    for i, row in enumerate(rows):
        start, end = left - len(row.prompt_ids), len(row.completion_ids)
        batch["prompt_ids"][i, start:] = torch.tensor(row.prompt_ids)
        batch["prompt_mask"][i, start:] = 1
        batch["completion_ids"][i, :end] = torch.tensor(row.completion_ids)
        batch["completion_mask"][i, :end] = 1
        batch["tool_mask"][i, :end] = torch.tensor(row.own)
        batch["sampling_per_token_logps"][i, :end] = torch.tensor(row.logprobs)
    return {key: value.to(device) for key, value in batch.items()}
