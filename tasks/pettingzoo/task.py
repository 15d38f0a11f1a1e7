"""An environment that PettingZoo knows by name, as a task: its numbers are shown as they are."""

from collections.abc import Mapping
from typing import Any

from tasks.pettingzoo.environment import Environment


class PettingZoo(Environment):
    """An environment of PettingZoo (https://pettingzoo.farama.org) by its name, with numbers for what is seen and done.

    It is for trying. A task of one's own subclasses `tasks.pettingzoo.environment.Environment`, which takes any
    environment, and shows it in words.

    Args:
        env: Its name in PettingZoo's registry: `classic/connect_four-v3`.
        env_args: What it is made with.
        parallel: Whether agents act at once, in the environment's parallel version.
        shared: Whether the mean of the agents' rewards is a `team` reward, and only the rest of each its `own`.
        strict: Whether a reply must be a move and nothing else.
        letters: Whether moves are shown with letters, and a model chooses among these alone.
        max_replies: Replies of a seat after which an episode is cut.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range, PettingZoo is not installed, or it has no such environment.
    """

    def __init__(
        self,
        *,
        env: str = "classic/tictactoe-v3",
        env_args: Mapping[str, Any] | None = None,
        parallel: bool = False,
        shared: bool = False,
        strict: bool = True,
        letters: bool = False,
        max_replies: int = 1000,
    ) -> None:
        if not isinstance(env, str) or not isinstance(env_args or {}, Mapping) or not isinstance(parallel, bool):
            raise TypeError(
                "pettingzoo takes `env`, a name; `env_args`, a mapping; and `parallel`, true or false; got "
                f"{env!r}, {env_args!r} and {parallel!r}"
            )
        self.env, self.env_args, self.parallel = env, dict(env_args or {}), parallel
        self.game = " ".join([env, *(f"{name}={value!r}" for name, value in sorted(self.env_args.items()))])
        super().__init__(shared=shared, strict=strict, letters=letters, max_replies=max_replies)

    def make(self) -> Any:
        """The environment of that name."""
        try:
            import pettingzoo
        except ImportError as error:
            raise ValueError(
                f"pettingzoo cannot be imported ({error}): pip install 'pettingzoo==1.27.*' pygame-ce"
            ) from error
        known = pettingzoo.parallel_registry if self.parallel else pettingzoo.aec_registry
        if self.env not in known:
            kind = "parallel environment" if self.parallel else "environment"
            raise ValueError(f"PettingZoo has no {kind} {self.env!r}; it has {', '.join(sorted(known))}")
        try:
            return pettingzoo.make("parallel" if self.parallel else "aec", self.env, **self.env_args)
        except (ImportError, TypeError) as error:
            raise ValueError(f"PettingZoo cannot make {self.env}: {error}") from error
