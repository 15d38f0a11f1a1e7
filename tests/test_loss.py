"""The gradient of an adapter, against one that is written out in plain torch, row by row and without padding."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support import qwen2_folder, scramble
from training_support import Letters, advantage_of, make_trainer, roll, worth

from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.loss import Share, accumulation_scale, importance_ratios, micro_batches, reduce_tokens
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import Row

LOSSES = ("dapo", "dr_grpo", "grpo", "bnpo", "cispo")
HERO, ADVERSARY, PARTNER = "left", "adversary-of-left", "right"
TAU, EPSILON, ADVERSARY_EPSILON, TEMPERATURE = 3.0, 0.3, 0.2, 0.8
LIMIT = 6  # tokens of a reply


@cache
def trainer_of(loss_type: str = "dapo", **options: Any) -> SRPOTrainer:
    """A trainer between two steps; its rows differ in length, and some episodes are more than one row."""
    return make_trainer(
        qwen2_folder().parent / "run",
        Letters(stop=("a", "e", "i", "o", "1", "2", "3", "4")),
        loss_type=loss_type,
        epsilon_high=5.0 if loss_type == "cispo" else None,
        tau=TAU,
        entropy_coef=EPSILON,
        adversary_entropy_coef=ADVERSARY_EPSILON,
        temperature=TEMPERATURE,
        **options,
    )


@cache
def rollout_of() -> Rollout:
    """One rollout for all tests: all trainers have the same adapters."""
    return roll(trainer_of())


def rows_of(adapter: str) -> list[Sample]:
    return [sample for sample in rollout_of().samples if sample.adapter == adapter]


def whole(samples: Sequence[Sample]) -> Share:
    tokens = sum(sample.row.own_tokens for sample in samples)
    return Share(len(samples), tokens, len(samples), processes=1, local=tokens)


def sizes_of(samples: Sequence[Sample]) -> tuple[int, int, int]:
    """Sizes of micro-batches: single rows; some of which the last is not full; all rows at once."""
    return 1, next(size for size in (5, 4, 3) if len(samples) % size), 64


def gradient(
    trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample], size: int = 64, share: Share | None = None
) -> torch.Tensor:
    """The adapter's gradient as the trainer accumulates it, in one vector."""
    trainer.args.per_device_train_batch_size = size
    trainer.bank.model.zero_grad(set_to_none=True)
    trainer._accumulate(trainer.bank.model, adapter, samples, share or whole(samples))
    return torch.cat([parameter.grad.flatten() for parameter in trainer.bank.parameters(adapter)])


def logprobs_of(trainer: SRPOTrainer, adapter: str | None, row: Row) -> torch.Tensor:
    """(T, V) log-probabilities of every token at the places of the completion, of one row without padding."""
    if adapter is not None:
        trainer.bank.activate(adapter)
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = trainer.bank.model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)


def chosen(logprobs: torch.Tensor, row: Row) -> torch.Tensor:
    """(T,), of the tokens that were said."""
    return logprobs.gather(1, torch.tensor(row.completion_ids)[:, None]).squeeze(1)


def normalised(values: Sequence[torch.Tensor], loss_type: str) -> torch.Tensor:
    """One loss of the terms of all own tokens, given by row."""
    if loss_type == "grpo":  # mean over a row's tokens, mean over rows
        return sum(row.mean() for row in values) / len(values)
    if loss_type == "dr_grpo":  # sum over a row's tokens by the reply's limit, mean over rows
        return sum(row.sum() for row in values) / LIMIT / len(values)
    return sum(row.sum() for row in values) / sum(len(row) for row in values)  # mean over all tokens


def written_out(
    trainer: SRPOTrainer,
    adapter: str,
    samples: Sequence[Sample],
    loss_type: str,
    reduction: str = "sum",
    epsilon: float | None = None,
    beta: float = 0.0,
    exact_tether: bool = False,
) -> torch.Tensor:
    """-(Σ A log π + ε Σ H), with the terms that are asked for, by plain autograd."""
    policy, entropy, tether, reference = [], [], [], []
    for sample in samples:
        row, own = sample.row, torch.tensor(sample.row.own).bool()
        with torch.no_grad(), trainer.bank.model.disable_adapter():
            base = chosen(logprobs_of(trainer, None, row), row)
        with torch.no_grad():
            partner = logprobs_of(trainer, PARTNER, row)
        logprobs = logprobs_of(trainer, adapter, row)
        said = chosen(logprobs, row)
        policy.append(advantage_of(sample) * said[own])
        entropy.append(-(logprobs.exp() * logprobs).sum(-1)[own])
        tether.append((partner.exp() * (partner - logprobs)).sum(-1)[own])
        # TRL multiplies by the ratio to the old policy, which is 1 here: so the gradient is that of the divergence.
        ratio = (said - said.detach()).exp()
        reference.append((ratio * ((base - said).exp() - (base - said) - 1))[own])
    if epsilon is None:
        epsilon = ADVERSARY_EPSILON if adapter == ADVERSARY else EPSILON
    loss = -normalised(policy, loss_type) - epsilon * normalised(entropy, "dapo" if reduction == "mean" else loss_type)
    if exact_tether:
        loss = loss + normalised(tether, loss_type) / TAU
    if beta:
        loss = loss + beta * normalised(reference, loss_type)
    trainer.bank.model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in trainer.bank.parameters(adapter)])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to float32's error over a few hundred tokens."""
    return bool((one - other).norm() < 2e-5 * other.norm()) and other.norm() > 1e-3


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
    trainer._score(Rollout([], [], samples), trainer._reused)
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
    trainer._score(Rollout([], [], samples), trainer._reused)
    before = gradient(trainer, HERO, samples, size=5)
    for sample in samples:
        other = torch.tensor(sample.row.own) == 0
        sample.old_logprobs[other] += 5.0
        sample.row.logprobs = [0.0 if own else -99.0 for own in sample.row.own]
    assert torch.equal(gradient(trainer, HERO, samples, size=5), before)


def test_the_loss_of_one_adapter_moves_no_other() -> None:
    trainer = trainer_of(kl_direction="partner_adversary", num_iterations=2, beta=0.1)
    rollout = Rollout([], [], [worth(s.row, s.adapter, s.tether, advantage_of(s)) for s in rollout_of().samples])
    trainer._score(rollout, trainer._reused)
    for adapter in trainer.arm.adapters:
        gradient(trainer, adapter, [sample for sample in rollout.samples if sample.adapter == adapter], size=5)
        own = {id(parameter) for parameter in trainer.bank.parameters(adapter)}
        with_gradient = {id(parameter) for parameter in trainer.bank.model.parameters() if parameter.grad is not None}
        assert with_gradient == own
        assert all(parameter.grad.abs().max() > 0 for parameter in trainer.bank.parameters(adapter))


def test_only_adapters_are_trainable_whichever_is_active() -> None:
    trainer = trainer_of()
    adapters = {id(parameter) for name in trainer.arm.adapters for parameter in trainer.bank.parameters(name)}
    for name in trainer.arm.adapters:
        trainer.bank.activate(name)
        assert {id(parameter) for parameter in trainer.bank.model.parameters() if parameter.requires_grad} == adapters


def one_row(advantage: float, old_shift: float, trainer: SRPOTrainer) -> Sample:
    """A row whose every token is e^-old_shift times as likely as before an update."""
    sample = worth(rows_of(HERO)[0].row, HERO, None, advantage)
    trainer._score(Rollout([], [], [sample]), trainer._reused)
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
    trainer._means.reduce()
    gradient(trainer, HERO, [sample])
    own = torch.tensor(sample.row.own)
    expected = -advantage * factor * own / sample.row.own_tokens
    assert torch.allclose(spied[0].grad[0], expected, rtol=1e-4, atol=1e-9)
    assert trainer._means.reduce()[f"policy/{HERO}/clip_fraction"] == float(factor == 0)


def test_one_adapters_gradient_norm_does_not_limit_anothers() -> None:
    trainer = trainer_of()
    trainer.args.max_grad_norm = 0.01
    try:
        left, right = ([s for s in rollout_of().samples if s.adapter == name] for name in (HERO, PARTNER))
        trainer.bank.model.zero_grad(set_to_none=True)
        for adapter, samples in ((HERO, left), (PARTNER, right)):
            trainer._accumulate(trainer.bank.model, adapter, samples, whole(samples))
        before = {
            name: torch.cat([p.grad.flatten() for p in trainer.bank.parameters(name)]) for name in (HERO, PARTNER)
        }
        assert trainer._reduce_and_clip(HERO, trainer.bank.parameters(HERO)) == pytest.approx(
            before[HERO].norm().item(), rel=1e-5
        )
        after = {name: torch.cat([p.grad.flatten() for p in trainer.bank.parameters(name)]) for name in (HERO, PARTNER)}
    finally:
        trainer.args.max_grad_norm = 1.0
    assert before[HERO].norm() > 0.1
    assert after[HERO].norm().item() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(after[HERO] / 0.01, before[HERO] / before[HERO].norm(), atol=1e-4)
    assert torch.equal(after[PARTNER], before[PARTNER])


def entropy_of(trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample]) -> float:
    with torch.no_grad():
        rows = [(logprobs_of(trainer, adapter, s.row), torch.tensor(s.row.own).bool()) for s in samples]
    return sum(-(logprobs.exp() * logprobs).sum(-1)[own].sum().item() for logprobs, own in rows)


def descend(trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample], size: float) -> None:
    """One small step down the adapter's loss."""
    gradient(trainer, adapter, samples)
    with torch.no_grad():
        for parameter in trainer.bank.parameters(adapter):
            parameter -= size * parameter.grad


@pytest.fixture
def fresh_trainer() -> Iterator[SRPOTrainer]:
    """One whose adapters a test may change."""
    trainer = trainer_of(kl_direction="partner_adversary")
    yield trainer
    for number, name in enumerate(trainer.arm.adapters):
        scramble(trainer.bank, name, seed=number)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_entropy_bonus_raises_entropy(
    reduction: str, fresh_trainer: SRPOTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_trainer.args, "entropy_reduction", reduction)
    samples = [worth(sample.row, HERO, None, 0.0) for sample in rows_of(HERO)]
    before = entropy_of(fresh_trainer, HERO, samples)
    descend(fresh_trainer, HERO, samples, 0.1)
    assert entropy_of(fresh_trainer, HERO, samples) > before * 1.001


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_what_was_said_with_an_advantage_becomes_more_likely(
    advantage: float, fresh_trainer: SRPOTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_trainer.args, "entropy_coef", 0.0)
    row = rows_of(HERO)[0].row

    def likelihood() -> float:
        with torch.no_grad():
            return chosen(logprobs_of(fresh_trainer, HERO, row), row)[torch.tensor(row.own).bool()].sum().item()

    before = likelihood()
    descend(fresh_trainer, HERO, [worth(row, HERO, None, advantage)], 0.001)
    assert advantage * (likelihood() - before) > 0.01


def test_the_exact_tether_draws_the_adversary_to_its_partner(fresh_trainer: SRPOTrainer) -> None:
    samples = [worth(sample.row, ADVERSARY, PARTNER, 0.0) for sample in rows_of(ADVERSARY)]

    def divergence() -> float:
        with torch.no_grad():
            partner = torch.cat([logprobs_of(fresh_trainer, PARTNER, s.row) for s in samples])
            adversary = torch.cat([logprobs_of(fresh_trainer, ADVERSARY, s.row) for s in samples])
        return (partner.exp() * (partner - adversary)).sum().item()

    before = divergence()
    descend(fresh_trainer, ADVERSARY, samples, 0.05)
    assert divergence() < before * 0.999


def test_the_tether_sums_log_ratios_of_all_that_the_adversary_said() -> None:
    trainer = trainer_of()
    for sample in rows_of(ADVERSARY):
        row = sample.row
        with torch.no_grad():
            ratio = chosen(logprobs_of(trainer, ADVERSARY, row), row) - chosen(logprobs_of(trainer, PARTNER, row), row)
        expected = ratio[torch.tensor(row.own).bool()].sum().item()
        assert sample.kl_sum == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert sum(sample.kl_sum for sample in rows_of(ADVERSARY)) > 10  # KL(φ ‖ π) on samples of φ, not the other way
    assert all(sample.kl_sum == 0 for sample in rows_of(HERO))


def test_an_adversary_equal_to_its_partner_has_a_divergence_of_exactly_zero(fresh_trainer: SRPOTrainer) -> None:
    fresh_trainer.bank.copy(PARTNER, ADVERSARY)
    samples = [Sample(sample.row, ADVERSARY, PARTNER) for sample in rows_of(ADVERSARY)]
    fresh_trainer._score(Rollout([], [], samples), fresh_trainer._reused)
    assert [sample.kl_sum for sample in samples] == [0.0] * len(samples)


def test_replies_that_are_left_out_of_the_loss_are_still_tethered() -> None:
    trainer = trainer_of()
    cut = []
    for sample in rows_of(ADVERSARY):
        cut.append(Sample(replace(sample.row, own=[0] * len(sample.row.own)), ADVERSARY, PARTNER))
    trainer._score(Rollout([], [], cut), trainer._reused)
    assert [sample.kl_sum for sample in cut] == pytest.approx(
        [sample.kl_sum for sample in rows_of(ADVERSARY)], rel=1e-5
    )


def test_the_engine_and_the_trainer_agree_on_what_was_sampled() -> None:
    # Same tokens, same adapter, same temperature; the bare base or another adapter would say something else.
    trainer = trainer_of()
    differences: dict[str, list[float]] = {"own": [], "base": [], "other": []}
    for sample in rollout_of().samples:
        row, own = sample.row, torch.tensor(sample.row.own).bool()
        other = HERO if sample.adapter != HERO else PARTNER
        for whose, adapter in (("own", sample.adapter), ("other", other), ("base", None)):
            with torch.no_grad(), trainer.bank.using(adapter):
                found = chosen(logprobs_of(trainer, adapter, row), row)
            differences[whose] += (found - torch.tensor(row.logprobs))[own].abs().tolist()
    assert max(differences["own"]) < 1e-4
    assert fmean(differences["base"]) > 0.1
    assert fmean(differences["other"]) > 0.1


def sample_of(own: Sequence[int], length: int) -> Sample:
    return Sample(Row(0, "left", (1,), [2] * length, list(own), [0] * length, [0.0] * length), HERO, None)


def test_processes_run_micro_batches_of_the_same_size_and_number() -> None:
    samples = [sample_of([1], 1) for _ in range(5)]
    share = Share(rows=13, tokens=13, most=8, processes=2, local=5)
    for mine in (samples, samples * 2, []):
        batches = micro_batches(mine[:8], size=3, share=share)
        assert [len(batch) for batch in batches] == [3, 3, 3]  # 8 rows in batches of 3
        assert [sample for batch in batches for sample in batch if sample.row.own_tokens] == mine[:8]


def test_one_process_alone_fills_nothing_up() -> None:
    samples = [sample_of([1], 1) for _ in range(5)]
    assert [len(batch) for batch in micro_batches(samples, 3, Share(5, 5, 5, processes=1, local=5))] == [3, 2]


def test_terms_beside_the_policys_are_normalised_like_it() -> None:
    values = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])  # 1 + 2 and 4
    share = Share(rows=4, tokens=10, most=2, processes=2, local=5)  # a half of all rows, and of two processes
    for loss_type in ("dapo", "bnpo", "cispo", "vespo"):
        assert reduce_tokens(values, mask, share, loss_type, LIMIT).item() == pytest.approx(7 * 2 / 10)
    for loss_type in ("grpo", "sapo"):  # (1.5 + 4) x 2 processes / 4 rows
        assert reduce_tokens(values, mask, share, loss_type, LIMIT).item() == pytest.approx(2.75)
    assert reduce_tokens(values, mask, share, "luspo", LIMIT).item() == pytest.approx(7 * 2 / 4)
    assert reduce_tokens(values, mask, share, "dr_grpo", LIMIT).item() == pytest.approx(7 * 2 / 4 / 6)
    for loss_type in ("grpo", "dr_grpo", "luspo"):
        assert reduce_tokens(values, mask, share, loss_type, LIMIT, mean=True).item() == pytest.approx(7 * 2 / 10)


def test_trls_mean_over_a_micro_batch_is_scaled_to_its_part_of_the_whole() -> None:
    share = Share(rows=12, tokens=60, most=6, processes=2, local=40)
    # bnpo: mean over 5 tokens, which are 5 of the 40 on this process: x 5 / 40. Row means: 3 rows of 12: x 3 x 2 / 12.
    assert accumulation_scale("bnpo", 3, 5, share, 7) == 40 / 5
    assert accumulation_scale("grpo", 3, 5, share, 7) == accumulation_scale("dr_grpo", 3, 5, share, 7) == 12 / (3 * 2)
    assert accumulation_scale("dapo", 3, 5, share, 7) == 7  # TRL divides by the whole, and by this over this


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Ratios 2, 0.5, 8, beside a token that is not own; of the row 2 * 0.5 * 8 = 8.
        ("token_truncate", [2.0, 0.6, 3.0, 1.0]),
        ("token_mask", [2.0, 0.0, 0.0, 1.0]),
        ("sequence_truncate", [3.0, 3.0, 3.0, 1.0]),
        ("sequence_mask", [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_importance_ratios_are_kept_in_bounds(mode: str, expected: list[float]) -> None:
    own = torch.tensor([[-1.0, -2.0, -3.0, -9.0]])
    sampled = own - torch.tensor([[2.0, 0.5, 8.0, 7.0]]).log()
    mask = torch.tensor([[1, 1, 1, 0]])
    ratios = importance_ratios(own, sampled, mask, mode, highest=3.0, lowest=0.6)
    torch.testing.assert_close(ratios, torch.tensor([expected]))


def test_without_bounds_importance_ratios_are_the_plain_ones() -> None:
    own, sampled, mask = torch.tensor([[-1.0]]), torch.tensor([[-4.0]]), torch.ones(1, 1)
    assert importance_ratios(own, sampled, mask, "token_truncate", None, None).item() == pytest.approx(math.exp(3))


@pytest.mark.parametrize("loss_type", LOSSES)
def test_what_another_engine_sampled_is_weighed_by_the_ratio(loss_type: str) -> None:
    trainer = trainer_of(loss_type, vllm_importance_sampling_clip_max=2.0)  # not the other tests' trainer
    trainer.engine.shares_weights = False  # type: ignore[misc]
    trainer.use_vllm = True  # as `__init__` sets it for such an engine
    samples = [worth(s.row, HERO, None, advantage_of(s)) for s in rows_of(HERO)]
    policy = written_out(trainer, HERO, samples, loss_type, epsilon=0.0)
    entropy = written_out(trainer, HERO, samples, loss_type) - policy
    said = [sample.row.logprobs for sample in samples]
    try:
        for ratio, weight in ((1.5, 1.5), (3.0, 2.0)):
            for sample, logprobs in zip(samples, said, strict=True):  # as if the engine had thought all less likely
                sample.row.logprobs = [value - math.log(ratio) for value in logprobs]
            trainer._score(Rollout([], [], samples), trainer._reused)
            for size in sizes_of(samples):
                assert close(gradient(trainer, HERO, samples, size), weight * policy + entropy), size
    finally:
        for sample, logprobs in zip(samples, said, strict=True):
            sample.row.logprobs = logprobs
