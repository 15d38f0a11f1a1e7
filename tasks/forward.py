"""Games of other packages that only go forward, as values: older states are played again. And their chance, seeded."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

Game = TypeVar("Game")
Path = tuple[tuple[Any, int], ...]


class Forward(Generic[Game]):
    """A game that cannot be copied, and goes on from any of its states: the last one at once, others once replayed.

    It is no part of what a state is: states are told apart by their paths, and may share it.

    Args:
        begin: Makes the game and brings it to its first state, always the same.
        play: Makes a move in it, and says what it gave.
    """

    def __init__(self, begin: Callable[[], Game], play: Callable[[Game, Any], Any]) -> None:
        self._begin, self._play = begin, play
        self.game = begin()
        self._path: Path = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Forward[Game]":
        return self

    def go(self, path: Path, move: Any, seed: int) -> tuple[Path, Any]:
        """Make a move in the state that a path leads to; `game` is then in the new state.

        Args:
            path: As this method returned it, or empty in the first state.
            move: What `play` takes.
            seed: Seeds what the game draws from Python's and numpy's global generators.

        Returns:
            The path to the new state, and what the move gave.
        """
        if path is not self._path:
            self.game = self._begin()
            for made, seeded in path:
                with chance(seeded):
                    self._play(self.game, made)
        self._path = (*path, (move, seed))
        with chance(seed):
            given = self._play(self.game, move)
        return self._path, given


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators (below 2**32) while a game draws from them, then put them back."""
    before, numpys = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)
