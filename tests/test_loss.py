"""The gradient of an adapter, against one that is written out in plain torch, row by row and without padding."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from loss_support import (
    ADVERSARY,
    HERO,
    LOSSES,
    PARTNER,
    close,
    gradient,
    rollout_of,
    rows_of,
    sizes_of,
    trainer_of,
    whole,
    written_out,
)
from training_support import accumulate, advantage_of, score, worth

from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.loss import Share
from llm_sra.trainer.rollout import Rollout, Sample


def test_the_rows_of_these_tests_are_of_unequal_length_and_number() -> None:
    for adapter in (HERO, ADVERSARY):
        samples = rows_of(adapter)
        assert len({sample.row.own_tokens for sample in samples}) > 1
        assert len(samples) > len({sample.row.episode for sample in samples})
        assert len(samples) % sizes_of(samples)[1]


@pytest.mark.parametrize("adapter", [HERO, ADVERSARY])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_gradient_is_the_written_out_one_whatever_the_micro_batch(
    loss_type: str, reduction: str, adapter: str
) -> None:
    trainer, samples = trainer_of(loss_type, entropy_reduction=reduction), rows_of(adapter)
    expected = written_out(trainer, adapter, samples, loss_type, reduction)
    for size in sizes_of(samples):
        assert close(gradient(trainer, adapter, samples, size), expected), size


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_exact_tether_is_in_the_gradient_whatever_the_micro_batch(loss_type: str) -> None:
    trainer, samples = trainer_of(loss_type, kl_direction="partner_adversary"), rows_of(ADVERSARY)
    expected = written_out(trainer, ADVERSARY, samples, loss_type, exact_tether=True)
    assert not close(written_out(trainer, ADVERSARY, samples, loss_type), expected)
    for size in sizes_of(samples):
        assert close(gradient(trainer, ADVERSARY, samples, size), expected), size


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_divergence_from_the_base_is_in_the_gradient_whatever_the_micro_batch(loss_type: str) -> None:
    beta = 0.02
    trainer = trainer_of(loss_type, beta=beta)
    samples = [worth(s.row, HERO, None, advantage_of(s)) for s in rows_of(HERO)]
    score(trainer, Rollout([], [], samples))
    expected = written_out(trainer, HERO, samples, loss_type, beta=beta)
    assert not close(written_out(trainer, HERO, samples, loss_type), expected)
    for size in sizes_of(samples):
        assert close(gradient(trainer, HERO, samples, size), expected), size


@pytest.mark.parametrize("loss_type", LOSSES)
def test_rows_that_fill_up_for_another_process_add_nothing(loss_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    trainer, samples = trainer_of(loss_type), rows_of(HERO)
    alone = whole(samples)
    # As one of two processes of which the other has 7 rows more, all of them empty: the mean of both is this half.
    share = Share(alone.rows, alone.tokens, alone.rows + 7, processes=2, local=alone.tokens)
    # bnpo is a mean over what one process has, and the mean of both a mean of means.
    expected = (1 if loss_type == "bnpo" else 2) * written_out(trainer, HERO, samples, loss_type)
    for size in sizes_of(samples)[1:]:
        assert close(gradient(trainer, HERO, samples, size, share), expected), size
    assert gradient(trainer, HERO, [], 5, share).abs().max() == 0


def test_sum_and_mean_of_the_entropy_differ_where_the_policy_term_is_no_mean_over_tokens() -> None:
    for loss_type in LOSSES:
        one, other = (
            written_out(trainer_of(loss_type), HERO, rows_of(HERO), loss_type, reduction)
            for reduction in ("sum", "mean")
        )
        assert close(one, other) == (loss_type not in ("grpo", "dr_grpo")), loss_type


def test_the_estimators_differ() -> None:
    gradients = [gradient(trainer_of(loss_type), HERO, rows_of(HERO)) for loss_type in ("dapo", "dr_grpo", "grpo")]
    for i, one in enumerate(gradients):
        for other in gradients[i + 1 :]:
            assert (one - other).norm() > 0.02 * other.norm()


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The (B, T) log-probabilities that losses are made of, with their gradients after the backward pass."""
    seen: list[torch.Tensor] = []
    original = SRPOTrainer._get_per_token_logps_and_entropies

    def spy(self: SRPOTrainer, *args: Any, **kwargs: Any) -> tuple:
        result = original(self, *args, **kwargs)
        if result[0].requires_grad:
            result[0].retain_grad()
            seen.append(result[0])
        return result

    monkeypatch.setattr(SRPOTrainer, "_get_per_token_logps_and_entropies", spy)
    yield seen


def test_every_own_token_is_trained_and_no_other(spied: list[torch.Tensor]) -> None:
    trainer = trainer_of()
    for adapter in (HERO, ADVERSARY):
        samples = sorted(rows_of(adapter), key=lambda sample: len(sample.row))
        spied.clear()
        gradient(trainer, adapter, samples)
        (logprobs,) = spied
        between = 0
        for sample, grads in zip(samples, logprobs.grad, strict=True):
            own = torch.tensor(sample.row.own)
            assert own[-1] == 1  # the last token of the reply, its end of turn if it has one
            padding = torch.zeros(len(grads) - len(own))
            # -A / N at each own token, 0 at the partner's, the template's and the padding's
            expected = torch.cat([-advantage_of(sample) * own / whole(samples).tokens, padding])
            assert torch.allclose(grads, expected, rtol=1e-5, atol=1e-9)
            between += int((own == 0).sum())
        assert between > 0


def test_nothing_that_is_known_of_tokens_between_replies_has_an_effect() -> None:
    trainer = trainer_of(num_iterations=2)
    samples = [worth(replace(s.row), HERO, None, advantage_of(s)) for s in rows_of(HERO)]
    score(trainer, Rollout([], [], samples))
    before = gradient(trainer, HERO, samples, size=5)
    for sample in samples:
        other = torch.tensor(sample.row.own) == 0
        sample.old_logprobs[other] += 5.0
        sample.row.logprobs = [0.0 if own else -99.0 for own in sample.row.own]
    assert torch.equal(gradient(trainer, HERO, samples, size=5), before)


def test_the_loss_of_one_adapter_moves_no_other() -> None:
    trainer = trainer_of(kl_direction="partner_adversary", num_iterations=2, beta=0.1)
    rollout = Rollout([], [], [worth(s.row, s.adapter, s.tether, advantage_of(s)) for s in rollout_of().samples])
    score(trainer, rollout)
    for adapter in trainer.arm.adapters:
        gradient(trainer, adapter, [sample for sample in rollout.samples if sample.adapter == adapter], size=5)
        own = {id(parameter) for parameter in trainer.bases.parameters(adapter)}
        with_gradient = {
            id(parameter) for parameter in trainer.bases.first.bank.model.parameters() if parameter.grad is not None
        }
        assert with_gradient == own
        assert all(parameter.grad.abs().max() > 0 for parameter in trainer.bases.parameters(adapter))


def test_only_adapters_are_trainable_whichever_is_active() -> None:
    trainer = trainer_of()
    adapters = {id(parameter) for name in trainer.arm.adapters for parameter in trainer.bases.parameters(name)}
    for name in trainer.arm.adapters:
        trainer.bases.first.bank.activate(name)
        assert {
            id(parameter) for parameter in trainer.bases.first.bank.model.parameters() if parameter.requires_grad
        } == adapters


def one_row(advantage: float, old_shift: float, trainer: SRPOTrainer) -> Sample:
    """A row whose every token is e^-old_shift times as likely as before an update."""
    sample = worth(rows_of(HERO)[0].row, HERO, None, advantage)
    score(trainer, Rollout([], [], [sample]))
    sample.old_logprobs += old_shift
    return sample


@pytest.mark.parametrize(
    ("advantage", "ratio", "factor"),
    [
        # min(r A, clip(r, 0.8, 1.2) A): its derivative by log π is r A where r A is the smaller, else 0.
        (0.5, 1.0, 1.0),
        (0.5, 1.1, 1.1),
        (0.5, 1.3, 0.0),
        (0.5, 0.5, 0.5),
        (-0.5, 1.3, 1.3),
        (-0.5, 0.5, 0.0),
    ],
)
def test_the_ratio_to_the_policy_before_the_first_update_is_clipped(
    advantage: float, ratio: float, factor: float, spied: list[torch.Tensor]
) -> None:
    trainer = trainer_of(num_iterations=2)
    sample = one_row(advantage, -math.log(ratio), trainer)
    spied.clear()
    trainer.means.reduce()
    gradient(trainer, HERO, [sample])
    own = torch.tensor(sample.row.own)
    expected = -advantage * factor * own / sample.row.own_tokens
    assert torch.allclose(spied[0].grad[0], expected, rtol=1e-4, atol=1e-9)
    assert trainer.means.reduce()[f"policy/{HERO}/clip_fraction"] == float(factor == 0)


def test_one_adapters_gradient_norm_does_not_limit_anothers() -> None:
    trainer = trainer_of()
    trainer.args.max_grad_norm = 0.01
    try:
        left, right = ([s for s in rollout_of().samples if s.adapter == name] for name in (HERO, PARTNER))
        trainer.bases.first.bank.model.zero_grad(set_to_none=True)
        for adapter, samples in ((HERO, left), (PARTNER, right)):
            accumulate(trainer, adapter, samples, whole(samples))
        before = {
            name: torch.cat([p.grad.flatten() for p in trainer.bases.parameters(name)]) for name in (HERO, PARTNER)
        }
        assert trainer.updater.reduce_and_clip(HERO, trainer.bases.parameters(HERO)) == pytest.approx(
            before[HERO].norm().item(), rel=1e-5
        )
        after = {
            name: torch.cat([p.grad.flatten() for p in trainer.bases.parameters(name)]) for name in (HERO, PARTNER)
        }
    finally:
        trainer.args.max_grad_norm = 1.0
    assert before[HERO].norm() > 0.1
    assert after[HERO].norm().item() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(after[HERO] / 0.01, before[HERO] / before[HERO].norm(), atol=1e-4)
    assert torch.equal(after[PARTNER], before[PARTNER])
