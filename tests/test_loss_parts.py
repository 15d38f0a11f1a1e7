"""How a loss is cut into micro-batches and normalised, and importance ratios of another engine's samples."""

import math
from collections.abc import Sequence

import pytest
import torch
from loss_support import HERO, LIMIT, LOSSES, close, gradient, rows_of, sizes_of, trainer_of, written_out
from training_support import advantage_of, score, worth

from llm_sra.trainer.loss import Share, accumulation_scale, importance_ratios, micro_batches, reduce_tokens
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import Row


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
    trainer.bases.first.engine.shares_weights = False  # type: ignore[misc]
    trainer.use_vllm = True  # as `__init__` sets it for such an engine
    samples = [worth(s.row, HERO, None, advantage_of(s)) for s in rows_of(HERO)]
    policy = written_out(trainer, HERO, samples, loss_type, epsilon=0.0)
    entropy = written_out(trainer, HERO, samples, loss_type) - policy
    said = [sample.row.logprobs for sample in samples]
    try:
        for ratio, weight in ((1.5, 1.5), (3.0, 2.0)):
            for sample, logprobs in zip(samples, said, strict=True):  # as if the engine had thought all less likely
                sample.row.logprobs = [value - math.log(ratio) for value in logprobs]
            score(trainer, Rollout([], [], samples))
            for size in sizes_of(samples):
                assert close(gradient(trainer, HERO, samples, size), weight * policy + entropy), size
    finally:
        for sample, logprobs in zip(samples, said, strict=True):
            sample.row.logprobs = logprobs
