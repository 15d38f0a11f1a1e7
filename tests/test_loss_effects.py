"""What a step down the loss does: entropy, likelihood, the tether; and how divergences are measured."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from loss_support import ADVERSARY, HERO, PARTNER, chosen, gradient, logprobs_of, rollout_of, rows_of, trainer_of
from support import scramble
from training_support import score, worth

from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.rollout import Rollout, Sample


def entropy_of(trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample]) -> float:
    with torch.no_grad():
        rows = [(logprobs_of(trainer, adapter, s.row), torch.tensor(s.row.own).bool()) for s in samples]
    return sum(-(logprobs.exp() * logprobs).sum(-1)[own].sum().item() for logprobs, own in rows)


def descend(trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample], size: float) -> None:
    """One small step down the adapter's loss."""
    gradient(trainer, adapter, samples)
    with torch.no_grad():
        for parameter in trainer.bases.parameters(adapter):
            parameter -= size * parameter.grad


@pytest.fixture
def fresh_trainer() -> Iterator[SRPOTrainer]:
    """One whose adapters a test may change."""
    trainer = trainer_of(kl_direction="partner_adversary")
    yield trainer
    for number, name in enumerate(trainer.arm.adapters):
        scramble(trainer.bases.first.bank, name, seed=number)


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
    fresh_trainer.bases.first.bank.copy(PARTNER, ADVERSARY)
    samples = [Sample(sample.row, ADVERSARY, PARTNER) for sample in rows_of(ADVERSARY)]
    score(fresh_trainer, Rollout([], [], samples))
    assert [sample.kl_sum for sample in samples] == [0.0] * len(samples)


def test_replies_that_are_left_out_of_the_loss_are_still_tethered() -> None:
    trainer = trainer_of()
    cut = []
    for sample in rows_of(ADVERSARY):
        cut.append(Sample(replace(sample.row, own=[0] * len(sample.row.own)), ADVERSARY, PARTNER))
    score(trainer, Rollout([], [], cut))
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
            with torch.no_grad(), trainer.bases.first.bank.using(adapter):
                found = chosen(logprobs_of(trainer, adapter, row), row)
            differences[whose] += (found - torch.tensor(row.logprobs))[own].abs().tolist()
    assert max(differences["own"]) < 1e-4
    assert fmean(differences["base"]) > 0.1
    assert fmean(differences["other"]) > 0.1
