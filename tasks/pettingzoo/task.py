"""An environment that PettingZoo knows by name, as a task: its numbers are shown as they are."""

from collections.abc import Mapping
from typing import Any

from tasks.pettingzoo.environment import Environment

MPE = "mpe/"  # how names of mpe2's environments begin


class PettingZoo(Environment):
    """An environment of PettingZoo (https://pettingzoo.farama.org) by its name, with numbers for what is seen and done.

    It is for trying. Names that begin with `mpe/` are those of mpe2, whose environments once were PettingZoo's. A task
    of one's own subclasses `tasks.pettingzoo.environment.Environment`, which takes any environment, and shows it in
    words.

    Args:
        env: Its name in PettingZoo's registry, `classic/connect_four-v3`, or in mpe2's list, `mpe/simple_spread_v3`.
        env_args: What it is made with.
        parallel: Whether agents act at once, in the environment's parallel version.
        shared: Whether the mean of the agents' rewards is a `team` reward, and only the rest of each its `own`.
        strict: Whether a reply must be a move and nothing else.
        letters: Whether moves are shown with letters, and a model chooses among these alone.
        max_replies: Replies of a seat after which an episode is cut.
        goal: The team solved it if every seat got more than this in all.

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
        goal: float = 0.0,
    ) -> None:
        if not isinstance(env, str) or not isinstance(env_args or {}, Mapping) or not isinstance(parallel, bool):
            raise TypeError(
                "pettingzoo takes `env`, a name; `env_args`, a mapping; and `parallel`, true or false; got "
                f"{env!r}, {env_args!r} and {parallel!r}"
            )
        if isinstance(goal, bool) or not isinstance(goal, int | float):
            raise TypeError(f"pettingzoo option `goal` must be a number, got {goal!r}")
        self.env, self.env_args, self.parallel, self.goal = env, dict(env_args or {}), parallel, goal
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
        registry = pettingzoo.parallel_registry if self.parallel else pettingzoo.aec_registry
        particles = _particles() if self.env.startswith(MPE) else {}
        if self.env not in (known := {*registry, *particles}):
            kind = "parallel environment" if self.parallel else "environment"
            raise ValueError(f"PettingZoo has no {kind} {self.env!r}; it has {', '.join(sorted(known))}")
        try:
            if self.env in particles:
                module = particles[self.env]
                return (module.parallel_env if self.parallel else module.env)(**self.env_args)
            return pettingzoo.make("parallel" if self.parallel else "aec", self.env, **self.env_args)
        except (ImportError, TypeError) as error:
            raise ValueError(f"PettingZoo cannot make {self.env}: {error}") from error

    def solved(self, returns: Mapping[str, float]) -> bool:
        """Whether every seat got more than the goal."""
        return min(returns.values()) > self.goal


def _particles() -> Mapping[str, Any]:
    """The modules of mpe2's environments, by their names in its list."""
    try:
        from mpe2.all_modules import mpe_environments
    except ImportError as error:
        raise ValueError(f"mpe2 cannot be imported ({error}): pip install 'mpe2==1.1.*'") from error
    return dict(mpe_environments)
