"""The head in pieces gives what the model's whole logits give, and never holds them."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, Qwen2Config
from trl.trainer.utils import add_fused_lm_head

from llm_sra.objectives import exact_tether
from llm_sra.trainer import head as module
from llm_sra.trainer.head import Head
from llm_sra.trainer.loss import missing_probability, token_statistics
from llm_sra.trainer.reading import States

TEMPERATURE, WORDS, HIDDEN = 0.7, 50, 16
CHOICES = torch.tensor([7, 3, 20])
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": HIDDEN, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
KINDS = {
    "plain": Qwen2Config(**SHAPE, initializer_range=0.5),
    "soft cap": Gemma2Config(**SHAPE, initializer_range=0.5, final_logit_softcapping=2.0),
    "scale": CohereConfig(**SHAPE, initializer_range=0.5, logit_scale=0.3),
    "divided": GraniteConfig(**SHAPE, initializer_range=0.5, logits_scaling=3.0),
}
IDS = torch.tensor([[7, 3, 3, 0], [7, 20, 0, 0], [7, 3, 20, 7]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])


def make_model(kind: str = "plain") -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS[kind])
    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    return model


def states(shared: bool = True) -> States:
    """A table of states of which several places have the same, or the same without."""
    torch.manual_seed(1)
    table = torch.randn(6, HIDDEN, requires_grad=True)
    index = torch.tensor([[0, 1, 2, 2], [0, 3, 3, 3], [0, 1, 4, 5]])
    return States(table, index, shared)


def head_of(model: Any, choices: torch.Tensor | None = None) -> Head:
    return Head(model, TEMPERATURE, choices, nullcontext)


def written_out(
    model: Any, given: States, choices: torch.Tensor | None, partner: torch.Tensor | None, ids: torch.Tensor = IDS
) -> Any:
    """The four numbers of all places by the model's whole logits: its layers are passed by as their output is given."""
    hidden = given.rows()

    def logits_of(states: torch.Tensor) -> torch.Tensor:
        layers = model.base_model.register_forward_hook(lambda m, a, out: setattr(out, "last_hidden_state", states))
        try:
            logits: torch.Tensor = model(input_ids=IDS, use_cache=False).logits / TEMPERATURE
        finally:
            layers.remove()
        return logits

    logits = logits_of(hidden)
    chosen = logits if choices is None else logits[..., choices]
    missing = None if choices is None else missing_probability(logits, chosen)
    theirs = None if partner is None else logits_of(partner)
    theirs = theirs if theirs is None or choices is None else theirs[..., choices]
    divergence = None if theirs is None else exact_tether(theirs, chosen)
    return (*token_statistics(chosen, ids, choices), missing, divergence)


@pytest.mark.parametrize("asked", ["", "choices", "partner", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_gradients_are_those_of_whole_logits(
    kind: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 2 * WORDS)  # two tokens at a time
    model = make_model(kind)
    choices = CHOICES if asked in ("choices", "both") else None
    partner = torch.randn(*IDS.shape, HIDDEN) if asked in ("partner", "both") else None
    one, other = states(), states()
    found = head_of(model, choices).statistics(one, IDS, MASK, partner)
    mine = (found.logprobs, found.entropies, found.missing, found.divergences)
    theirs = written_out(model, other, choices, partner)
    sums = []
    for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b * MASK, atol=1e-5, rtol=1e-5)
            sums.append(((number + 1) * a.sum(), (number + 1) * (b * MASK).sum()))
    for total, table in zip((sum(a for a, _ in sums), sum(b for _, b in sums)), (one.table, other.table), strict=True):
        total.backward()
        assert table.grad is not None and table.grad.abs().max() > 1e-3
    torch.testing.assert_close(one.table.grad, other.table.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_numbers_and_gradients_of_each_row_are_those_of_its_seats_words(shared: bool) -> None:
    model, partner = make_model(), torch.randn(*IDS.shape, 16)
    lists, seats = [torch.tensor([7, 3, 20]), torch.tensor([3, 7])], torch.tensor([0, 0, 1])
    ids = torch.tensor([[7, 3, 3, 0], [7, 20, 0, 0], [7, 3, 7, 7]])
    head = head_of(model, torch.tensor([[7, 3, 20], [3, 7, -1]]))
    for others in (None, partner):
        one, other = states(shared), states(shared)
        found = head.statistics(one, ids, MASK, others, seats)
        mine = (found.logprobs, found.entropies, found.missing, found.divergences)
        exact = [written_out(model, other, words, others, ids) for words in lists]
        total = torch.zeros(())
        for number, numbers in enumerate(mine):
            if numbers is not None:
                theirs = torch.stack([exact[seat][number][row] for row, seat in enumerate(seats.tolist())]) * MASK
                torch.testing.assert_close(numbers, theirs, atol=1e-5, rtol=1e-5)
                total = total + (number + 1) * theirs.sum()
        sum((number + 1) * each.sum() for number, each in enumerate(mine) if each is not None).backward()  # type: ignore[union-attr]
        total.backward()
        assert one.table.grad is not None and one.table.grad.abs().max() > 1e-3
        torch.testing.assert_close(one.table.grad, other.table.grad, atol=1e-5, rtol=1e-5)


class Largest(TorchDispatchMode):
    """The most numbers of a tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() > 0 and not func.is_view:
            self.size = max(self.size, result.numel())
        return result


@pytest.mark.parametrize(
    ("choices", "most"),
    [
        (CHOICES, 400 * HIDDEN),  # the states, 400 x 16; whole logits would be 400 x 50
        (None, 8 * 32768),  # TRL's buffer for 8 tokens; for all it would be 400 x 32,768
    ],
)
def test_no_tensor_grows_with_tokens_times_words_forward_or_backward(
    choices: torch.Tensor | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 8 * WORDS)
    monkeypatch.setattr(module, "TRL_TILE", WORDS)
    model, tokens = make_model(), 400
    model.requires_grad_(False)
    ids = CHOICES[torch.arange(tokens) % 3][None]
    given = States(torch.randn(tokens, HIDDEN, requires_grad=True), torch.arange(tokens)[None], shared=False)
    with Largest() as seen:
        found = head_of(model, choices).statistics(given, ids, torch.ones_like(ids))
        (found.logprobs + found.entropies).sum().backward()
    assert seen.size <= most
    assert given.table.grad is not None and given.table.grad.abs().max() > 0


def test_a_token_that_is_predicted_from_one_state_twice_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    inner = Head.logits

    def counted(self: Head, hidden: torch.Tensor) -> torch.Tensor:
        rows.append(len(hidden))
        return inner(self, hidden)

    monkeypatch.setattr(Head, "logits", counted)
    model = make_model()
    with torch.no_grad():
        for shared in (True, False):
            head_of(model, CHOICES).statistics(states(shared), IDS, MASK)
    # Nine tokens. State 0 predicts 7 three times, state 1 predicts 3 twice: six different pairs.
    assert rows == [6, 9]


def test_rows_without_any_token_are_worth_nothing_and_harm_nothing() -> None:
    for choices in (None, CHOICES):
        given = states()
        found = head_of(make_model(), choices).statistics(given, IDS, torch.zeros_like(MASK))
        (found.logprobs.sum() + found.entropies.sum()).backward()
        assert not found.logprobs.any() and not found.entropies.any()
        assert given.table.grad is not None and not given.table.grad.any()


def test_the_model_runs_its_layers_again_after_a_pass_of_its_head() -> None:
    model = make_model()
    before = model(input_ids=IDS).logits
    head_of(model).statistics(states(), IDS, MASK)
    assert torch.equal(model(input_ids=IDS).logits, before)
