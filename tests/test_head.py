"""Places without a label are left out of the head's work, and of nothing else."""

from typing import Any

import torch
from support import qwen2_folder
from trl.trainer.utils import add_fused_lm_head

from llm_sra.models.loading import load_model
from llm_sra.trainer.head import head_on_labels_only

LABELS = torch.tensor([[-100, -100, -100, 7, 8, 9], [-100, -100, 5, 6, -100, -100]])
IDS = torch.tensor([[3, 4, 6, 7, 8, 9], [3, 4, 5, 6, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def model_with_head() -> Any:
    model, _ = load_model(str(qwen2_folder()))
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model


def read(model: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies, and the gradient of their sum by the embeddings."""
    model.zero_grad()
    output = model(input_ids=IDS, attention_mask=MASK, labels=labels, fused_lm_head=True)
    (output.log_probs.sum() + output.entropy.sum()).backward()
    return output.log_probs.detach(), output.entropy.detach(), model.get_input_embeddings().weight.grad.clone()


def test_numbers_and_gradients_are_those_of_the_whole_rows() -> None:
    model = model_with_head()
    whole = read(model, LABELS)
    with head_on_labels_only(model):
        cut = read(model, LABELS)
    assert cut[0].shape == (2, 5)
    assert (cut[0] != 0).tolist() == (LABELS[:, 1:] != -100).tolist()
    for one, other in zip(cut, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert other.abs().max() > 1e-3


def test_only_places_with_a_label_are_projected_and_only_inside_the_block(monkeypatch: Any) -> None:
    rows, mm = [], torch.mm

    def counted(a: torch.Tensor, b: torch.Tensor, **options: Any) -> torch.Tensor:
        rows.append(len(a))
        return mm(a, b, **options)

    model = model_with_head()
    monkeypatch.setattr(torch, "mm", counted)
    with torch.no_grad():
        for expected in (10, 5, 10):  # two rows of five places; three and two of them have labels
            rows.clear()
            if expected == 5:
                with head_on_labels_only(model):
                    model(input_ids=IDS, attention_mask=MASK, labels=LABELS, fused_lm_head=True)
            else:
                model(input_ids=IDS, attention_mask=MASK, labels=LABELS, fused_lm_head=True)
            assert set(rows) == {expected}


def test_rows_without_any_label_are_worth_nothing_and_harm_nothing() -> None:
    model = model_with_head()
    with head_on_labels_only(model):
        logprobs, entropies, gradient = read(model, torch.full_like(LABELS, -100))
    assert not logprobs.any() and not entropies.any() and not gradient.any()
