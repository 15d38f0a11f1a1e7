"""Scripted partners for Hanabi. Each reads only the text that its seat sees, and keeps no memory."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llm_sra.task import ScriptedPartner
from tasks.hanabi.cards import Card, Known
from tasks.hanabi.rules import Held
from tasks.hanabi.words import ANY, told_text

STACKS, OWN, NEXT, MOVES = "Stacks, up to ", "Your cards: ", "Player 1: ", "Your moves:"
NONE = "none"


@dataclass(frozen=True)
class Seen:
    """The parts of a view that the partners use.

    Attributes:
        stacks: By colour, the highest rank on its stack.
        own: What is known of each own card, oldest first.
        following: The hand of the next player, oldest card first.
        moves: The legal moves, as the view writes them.
    """

    stacks: Mapping[str, int]
    own: tuple[Known, ...]
    following: tuple[Held, ...]
    moves: tuple[str, ...]

    def fits(self, card: Card) -> bool:
        """Whether the card is the next one of its colour."""
        return self.stacks[card.colour] + 1 == card.rank

    def proven(self, known: Known) -> bool:
        """Whether a card fits for sure: every card that hints allow it to be does."""
        return all(self.fits(Card(colour, rank)) for colour in known.colours for rank in known.ranks)

    def moves_of(self, *kinds: str) -> Sequence[str]:
        """The moves of the first of these kinds that has any; all moves if none has."""
        by_kind = ([move for move in self.moves if move.startswith(kind)] for kind in kinds)
        return next((moves for moves in by_kind if moves), self.moves)


def read_view(messages: Sequence[Mapping[str, str]]) -> Seen:
    """What a seat sees, read from its last message.

    Raises:
        ValueError: If that is not a view of Hanabi.
    """
    view = messages[-1]["content"]
    lines = view.split("\n")
    try:
        most, _, stacked = _after(STACKS, lines).partition(": ")
        stacks = {colour: int(rank) for colour, rank in (entry.split(" ") for entry in stacked.split(", "))}
        ranks = tuple(range(1, int(most) + 1))
        own = [entry.split(" ", 1)[1] for entry in _entries(_after(OWN, lines))]
        following = [entry.removesuffix(")").split(" (") for entry in _entries(_after(NEXT, lines))]
        return Seen(
            stacks=stacks,
            own=tuple(_known(text, tuple(stacks), ranks) for text in own),
            following=tuple(Held(_card(card), _known(text, tuple(stacks), ranks)) for card, text in following),
            moves=tuple(lines[lines.index(MOVES) + 1 :]),
        )
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"Hanabi's partners play Hanabi only: a view has lines that begin with {STACKS!r}, {OWN!r}, {NEXT!r} and "
            f"{MOVES!r}, got {view[:200]!r}"
        ) from error


class Careful(ScriptedPartner):
    """Plays the oldest card that hints prove to fit; else hints a card that fits to the next player; else discards.

    The card that it hints is the oldest one that fits and is not yet proven to. It names the rank or colour that proves
    this, else what tells something new, the rank first. It discards its oldest card. If neither is possible, it gives
    the first legal hint.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        seen = read_view(messages)
        for at, known in enumerate(seen.own, start=1):
            if seen.proven(known):
                return f"play {at}"
        hints = [hint for held in seen.following if (hint := self._hint(seen, held)) in seen.moves]
        return hints[0] if hints else seen.moves_of("discard", "hint")[0]

    @staticmethod
    def _hint(seen: Seen, held: Held) -> str | None:
        if not seen.fits(held.card) or seen.proven(held.known):
            return None
        options: tuple[str | int, ...] = (held.card.rank, held.card.colour)
        after = {told: held.known.after(told, touched=True) for told in options}
        useful = sorted(
            (told for told in options if after[told] != held.known), key=lambda t: not seen.proven(after[t])
        )
        return f"hint 1 {told_text(useful[0])}" if useful else None


class Hinter(ScriptedPartner):
    """Gives a random hint whenever it may; else discards its oldest card."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        moves = read_view(messages).moves_of("hint", "discard")
        return rng.choice(moves) if moves[0].startswith("hint") else moves[0]


class Discarder(ScriptedPartner):
    """Discards its oldest card whenever it may; else gives a random hint."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        moves = read_view(messages).moves_of("discard", "hint")
        return rng.choice(moves) if moves[0].startswith("hint") else moves[0]


class Gambler(ScriptedPartner):
    """Always plays its newest card, whatever it knows."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return read_view(messages).moves_of("play")[-1]


class RandomLegal(ScriptedPartner):
    """Makes a random legal move, all with the same probability."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return rng.choice(read_view(messages).moves)


def _after(start: str, lines: Sequence[str]) -> str:
    """The rest of the line that begins with `start`.

    Raises:
        ValueError: If there is no such line.
    """
    for line in lines:
        if line.startswith(start):
            return line.removeprefix(start)
    raise ValueError(f"no line begins with {start!r}")


def _entries(text: str) -> list[str]:
    return [] if text == NONE else text.split(", ")


def _card(text: str) -> Card:
    colour, rank = text.split(" ")
    return Card(colour, int(rank))


def _known(text: str, colours: tuple[str, ...], ranks: tuple[int, ...]) -> Known:
    colour, rank = text.split(" ")
    return Known(
        colours if colour == ANY else tuple(colour.split("/")),
        ranks if rank == ANY else tuple(int(r) for r in rank.split("/")),
    )


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "careful": Careful,
    "hinter": Hinter,
    "discarder": Discarder,
    "gambler": Gambler,
    "random_legal": RandomLegal,
}
