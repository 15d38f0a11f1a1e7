"""τ at each step: constant, along a line, or controlled so that adversaries stay at a target divergence.

Source of the last: Ziegler et al., *Fine-Tuning Language Models from Human Preferences* (arXiv 1909.08593), section
2.2, a proportional controller of the weight of a KL penalty, here 1/τ.
"""

from typing import Any, Literal

Schedule = Literal["constant", "linear", "target_kl"]
GAIN, LARGEST_ERROR = 0.1, 0.2


class TauSchedule:
    """The degree of risk aversion of a training, step by step.

    Args:
        kind: See `Schedule`.
        tau: The constant; the end of the line; the start of the controller.
        start: The start of the line, above 0.
        steps: Length of the line; after it τ stays at `tau`.
        target: Mean divergence of adversaries from their partners, in nats an episode, for `target_kl`.
    """

    def __init__(
        self, kind: Schedule, tau: float, start: float = 0.0, steps: int = 1, target: float | None = None
    ) -> None:
        self._kind, self._tau, self._start, self._steps, self._target = kind, tau, start, steps, target

    def at(self, step: int) -> float:
        """τ of a step, counted from 0."""
        if self._kind == "linear":
            return self._start + (self._tau - self._start) * min(1.0, step / self._steps)
        return self._tau

    def observe(self, divergence: float) -> None:
        """Take in a step's mean divergence, in nats: if it is too large, the tether grows and τ falls."""
        if self._kind == "target_kl":
            assert self._target is not None
            error = min(max(divergence / self._target - 1, -LARGEST_ERROR), LARGEST_ERROR)
            self._tau /= 1 + GAIN * error

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"tau": self._tau} if self._kind == "target_kl" else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._tau = state.get("tau", self._tau)
