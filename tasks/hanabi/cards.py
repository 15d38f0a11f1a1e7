"""The cards of Hanabi, what hints tell about a card, and which games can be set up. It knows neither moves nor turns.

Source: the rules of the card game (A. Bauza, 2010), without the sixth colour.
"""

from dataclasses import dataclass

from tasks.options import check_switches, check_whole

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
        check_whole("hanabi", 2, MAX_PLAYERS, players=self.players)
        check_whole("hanabi", 1, len(COLOURS), colours=self.colours)
        check_whole("hanabi", 2, MAX_RANK, ranks=self.ranks)
        check_whole("hanabi", 1, hand=self.hand, information=self.information, lives=self.lives)
        check_switches("hanabi", keep_score=self.keep_score)
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
