"""The cards of Hanabi, what hints tell about a card, and which games can be set up. It knows neither moves nor turns.

Source: the rules of the card game (A. Bauza, 2010), without the sixth colour.
"""

from dataclasses import dataclass

COLOURS = ("red", "green", "blue", "yellow", "white")
MAX_RANK = 5
MAX_PLAYERS = 5


@dataclass(frozen=True, slots=True)
class Card:
    """One card: a colour of `COLOURS` and a rank from 1."""

    colour: str
    rank: int


@dataclass(frozen=True, slots=True)
class Known:
    """What hints alone have told about a card: the colours and ranks that it can still have, in order."""

    colours: tuple[str, ...]
    ranks: tuple[int, ...]

    def after(self, told: str | int, touched: bool) -> "Known":
        """What is known after a hint of a colour or rank to this hand, which did or did not name this card."""
        if isinstance(told, str):
            return Known(tuple(c for c in self.colours if (c == told) == touched), self.ranks)
        return Known(self.colours, tuple(r for r in self.ranks if (r == told) == touched))


@dataclass(frozen=True, slots=True)
class Setup:
    """The game that is played.

    Attributes:
        players: 2 to 5.
        colours: 1 to 5.
        ranks: 2 to 5.
        hand: Cards that each player is dealt, 1 or more.
        information: Information tokens at the start, which is also the most there can be; 1 or more.
        lives: Misplays that end the game, 1 or more.
        keep_score: Whether the cards on the stacks still count when all lives are lost.

    Raises:
        TypeError: If a number is not a whole number, or `keep_score` is not true or false.
        ValueError: If a number is out of range, or the deck is too small for such hands: the full score must be
            possible.
    """

    players: int
    colours: int
    ranks: int
    hand: int
    information: int = 8
    lives: int = 3
    keep_score: bool = False

    def __post_init__(self) -> None:
        _check_range("players", self.players, 2, MAX_PLAYERS)
        _check_range("colours", self.colours, 1, len(COLOURS))
        _check_range("ranks", self.ranks, 2, MAX_RANK)
        _check_range("hand", self.hand, 1)
        _check_range("information", self.information, 1)
        _check_range("lives", self.lives, 1)
        if not isinstance(self.keep_score, bool):
            raise TypeError(f"hanabi option `keep_score` must be true or false, got {self.keep_score!r}")
        if not _can_be_won(self.players, self.colours, self.ranks, self.hand):
            cards = len(full_deck(self.colours, self.ranks))
            raise ValueError(
                f"hanabi: {self.players} hands of {self.hand} are too many for a deck of {cards} cards. After dealing, "
                f"(cards left) + (players) must be at least {self.full_score}, the cards to play: use a smaller `hand`"
                " or leave it out, or take more `colours` or `ranks`"
            )

    @property
    def palette(self) -> tuple[str, ...]:
        """The colours in play."""
        return COLOURS[: self.colours]

    @property
    def full_score(self) -> int:
        """Number of cards on the stacks when all are built."""
        return self.colours * self.ranks

    @property
    def nothing_known(self) -> Known:
        """What is known of a card that has just been drawn."""
        return Known(self.palette, tuple(range(1, self.ranks + 1)))


def full_deck(colours: int, ranks: int) -> tuple[Card, ...]:
    """All cards in order: of each colour three of rank 1, one of the highest rank, two of each rank between."""
    copies = [3, *[2] * (ranks - 2), 1]
    return tuple(
        Card(colour, rank)
        for colour in COLOURS[:colours]
        for rank, count in enumerate(copies, start=1)
        for _ in range(count)
    )


def default_hand(smallest: Setup) -> int:
    """The official hand, 5 for up to three players and 4 for more, or the largest smaller one with which one can win.

    For 4 players, 3 colours and 3 ranks it is 3: with hands of 4 only 2 of the 18 cards would be left to draw, so at
    most 2 + 4 = 6 of the 9 cards could be played.

    Args:
        smallest: The game with hands of one card.
    """
    players, colours, ranks = smallest.players, smallest.colours, smallest.ranks
    official = 5 if players <= 3 else 4
    return max(hand for hand in range(1, official + 1) if _can_be_won(players, colours, ranks, hand))


def _can_be_won(players: int, colours: int, ranks: int, hand: int) -> bool:
    """Whether there are enough turns to play every card: one for each card to draw, then one for each player."""
    left = len(full_deck(colours, ranks)) - players * hand
    return left >= 0 and left + players >= colours * ranks


def _check_range(name: str, value: int, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"hanabi option `{name}` must be a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        wanted = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"hanabi option `{name}` must be {wanted}, got {value}")
