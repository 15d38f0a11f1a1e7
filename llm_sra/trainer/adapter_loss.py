"""One adapter's loss on a micro-batch: TRL's policy term, the entropy bonus, and the tether where it is exact."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from llm_sra.objectives import Tether
from llm_sra.trainer import metrics
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.loss import Share, accumulation_scale, loss_inputs, reduce_tokens
from llm_sra.trainer.rollout import Sample

FROM_TRL = {"clip_ratio/region_mean": "clip_fraction", "cispo_clip_ratio": "clip_fraction", "kl": "kl_to_base"}
Reported = Mapping[str, Sequence[float]]
TrlLoss = Callable[[torch.nn.Module, dict[str, Any], float], tuple[torch.Tensor, Reported]]


class AdapterLoss:
    """The loss of adapters, micro-batch by micro-batch; parts add up to the same whatever the micro-batch size.

    Args:
        args: See `SRPOConfig`.
        arm: Says which adapters are adversaries.
        bases: Where the adapters live.
        trl_loss: (model, inputs, scale) to TRL's loss divided by the scale, and what TRL reports of it.
        means: Gets what is measured by token.
        reply_limit: Token limit of a reply.
    """

    def __init__(
        self,
        args: SRPOConfig,
        arm: Arm,
        bases: Bases,
        trl_loss: TrlLoss,
        means: metrics.TokenMeans,
        reply_limit: int,
    ) -> None:
        self._args, self._arm, self._bases = args, arm, bases
        self._trl_loss, self._means, self._reply_limit = trl_loss, means, reply_limit
        self.parts: dict[str, torch.Tensor] = {}  # sums of the loss's parts; whoever reads them clears them

    def __call__(
        self, model: torch.nn.Module, adapter: str, batch: Sequence[Sample], share: Share, tether: Tether
    ) -> torch.Tensor:
        """One micro-batch's part of the adapter's loss, with its graph."""
        args, base = self._args, self._bases.of(adapter)
        inputs = loss_inputs(batch, share, base.pad_id, args.device)
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        adversary = adapter in self._arm.adversaries
        partner = base.forward.partner_states(batch, inputs) if adversary and not tether.in_reward else None
        base.bank.activate(adapter)
        steps = args.steps_per_generation
        scale = accumulation_scale(args.loss_type, len(batch), int(mask.sum()), share, steps)
        with base.forward.reading(batch, partner):
            loss, reported = self._trl_loss(model, inputs, scale)
        found = base.forward.latest
        assert found is not None
        entropies, missing = found.entropies, found.missing
        self._report(adapter, batch, reported, entropies, mask)
        coef = args.adversary_entropy_coef if adversary else args.entropy_coef
        mean = args.entropy_reduction == "mean"
        bonus = coef * reduce_tokens(entropies, mask, share, args.loss_type, self._reply_limit, mean)
        self.add("the policy term of its loss", loss)
        self.add("the entropy bonus of its loss", bonus)
        loss = loss - bonus
        if args.choices_coef and missing is not None:
            words = args.choices_coef * reduce_tokens(missing, mask, share, args.loss_type, self._reply_limit)
            self.add("the choices' term of its loss", words)
            loss = loss + words
        if found.divergences is not None:
            cost = tether.cost(reduce_tokens(found.divergences, mask, share, args.loss_type, self._reply_limit))
            self.add("the exact tether of its loss", cost)
            loss = loss + cost
        return loss

    def add(self, part: str, value: torch.Tensor) -> None:
        """Add to the sum of a part of the loss."""
        value = value.detach()
        self.parts[part] = self.parts[part] + value if part in self.parts else value

    def _report(
        self, adapter: str, batch: Sequence[Sample], reported: Reported, entropies: torch.Tensor, mask: torch.Tensor
    ) -> None:
        tokens = mask.sum()
        metrics.add_entropies(self._means, adapter, entropies, mask, [sample.row.turns for sample in batch])
        for theirs, ours in FROM_TRL.items():
            for value in reported.get(theirs, ()):
                self._means.add(f"policy/{adapter}/{ours}", value * tokens, tokens)
