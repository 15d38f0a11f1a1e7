"""The average of partners' weights over steps."""

from typing import Any

import torch


class SmoothedWeights:
    """An exponential average of weights over steps, with Adam's bias correction (arXiv 1412.6980, section 3).

    After t steps the weights of step k count in proportion to decay^(t - k). So the average sums to 1 from the first
    step on, at which it equals the weights themselves.
    """

    def __init__(self, decay: float) -> None:
        """Start with no steps.

        Args:
            decay: At least 0 (no smoothing), below 1; the average reaches back over about 1 / (1 - decay) steps.

        Raises:
            ValueError: If it is not.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.steps = 0
        self.total: torch.Tensor | None = None

    def update(self, weights: torch.Tensor) -> torch.Tensor:
        """Take in a step's weights and return the average so far.

        Args:
            weights: (Z,), sum to 1, of the same partners in the same order at every step.

        Returns:
            (Z,), sum to 1.

        Raises:
            ValueError: If their number changed.
        """
        fresh = weights.detach().to(torch.float64)
        before = torch.zeros_like(fresh) if self.total is None else self.total.to(fresh.device)
        if before.shape != fresh.shape:
            raise ValueError(f"expected weights of shape {tuple(before.shape)} as before, got {tuple(fresh.shape)}")
        self.steps += 1
        self.total = self.decay * before + (1 - self.decay) * fresh
        return (self.total / (1 - self.decay**self.steps)).to(weights.dtype)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"steps": self.steps, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the decay is the configuration's."""
        self.steps, self.total = state["steps"], state["total"]
