"""Critics: the return that each policy expects, by a LoRA adapter and a linear head of its own on the base.

The value before a token is computed from the hidden state that the token was drawn from. Advantages are computed
elsewhere, in `critic_credit`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from llm_sra.files import readable_as_others
from llm_sra.models.adapters import AdapterError
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.rows import joined

HEADS = "value_heads.safetensors"


def critic_of(policy: str) -> str:
    """Name of the critic's adapter."""
    return f"critic-of-{policy}"


class Critics:
    """One critic for each policy that is trained.

    Args:
        bases: Have an adapter `critic_of(policy)` for each, where the policy lives.
        policies: Their adapters.
    """

    def __init__(self, bases: Bases, policies: Sequence[str]) -> None:
        self._bases, self.policies = bases, tuple(policies)
        self.heads = torch.nn.ModuleDict({policy: _head(bases.of(policy).bank.base) for policy in policies})
        for parameter in self.heads.parameters():  # an untrained critic predicts 0
            torch.nn.init.zeros_(parameter)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the critics' adapters."""
        return tuple(map(critic_of, self.policies))

    def parameters(self, policy: str) -> list[torch.nn.Parameter]:
        """All that is trained of a policy's critic, in a fixed order."""
        return [*self._bases.parameters(critic_of(policy)), *self.heads[policy].parameters()]

    def values(self, policy: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, T) values before each completion token, in units of the reward; the critic's adapter is left active.

        Args:
            policy: Whose critic.
            inputs: What `collate` gives.
        """
        base = self._bases.of(policy)
        base.bank.activate(critic_of(policy))
        states = base.reader.states(*joined(inputs))
        values: torch.Tensor = self.heads[policy](states.table.float()).squeeze(-1)
        return values[states.index]

    def save(self, folder: Path) -> None:
        """Write the heads beside the adapters."""
        save_file({key: value.contiguous() for key, value in self.heads.state_dict().items()}, folder / HEADS)
        readable_as_others(folder)

    def load(self, folder: Path) -> None:
        """Read the heads again.

        Raises:
            AdapterError: If they are not there.
        """
        if not (folder / HEADS).is_file():
            raise AdapterError(f"{folder} holds no {HEADS}: it was not written by a training with a critic")
        self.heads.load_state_dict(load_file(folder / HEADS, device=str(self._bases.first.bank.base.device)))


def _head(base: PreTrainedModel) -> torch.nn.Linear:
    """A linear map from a hidden state of a model to a value."""
    return torch.nn.Linear(base.config.get_text_config().hidden_size, 1, device=base.device)
