"""Partners that say what people once said: from episodes that were kept with their consent."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_sra.episodes.people import check_task, read_people
from llm_sra.policies.base import Place, UnavailableError
from llm_sra.task import Message, merge_roles

View = tuple[tuple[str, str], ...]


class Replayed:
    """Says what a person said: in the same situation if there was one, else at the same turn of the same problem.

    A turn of the same problem is looked for in the same seat, then in any; after the last turn that was kept, the last
    one is said again. Where people said several things, one is drawn.

    Args:
        name: Shown in transcripts and results.
        path: As `llm-sra play --keep` wrote it.
        task: Class that is played; episodes of another one cannot be used.
        who: Only the person of this name; None: all of them.

    Raises:
        UnavailableError: If the file is missing or cannot be used; from `reply_at`, if nobody played the problem.
    """

    def __init__(self, name: str, path: str | Path, task: str, who: str | None = None) -> None:
        self.name, self._path = name, Path(path)
        try:
            episodes = read_people(self._path)
            check_task(self._path, episodes, task)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"partner {name!r}: cannot read {self._path.absolute()}: {error}") from error
        self._seen: dict[View, list[str]] = {}
        self._at: dict[tuple[str, str, int], list[str]] = {}
        for episode in episodes:
            for number, turn, view in episode.turns(who):
                self._seen.setdefault(_key(view), []).append(turn.text)
                self._at.setdefault((episode.record.problem, turn.seat, number), []).append(turn.text)
        if not self._at:
            people = sorted({person for one in episodes for person in one.people.values()})
            what = f"nothing that {who!r} said; there are: {', '.join(people)}" if people else "no episode"
            raise UnavailableError(f"partner {name!r}: {self._path} holds {what}")

    @property
    def facts(self) -> Any:
        """All that its replies depend on, as JSON can hold it."""
        return [sorted(map(list, self._seen.items())), sorted([*key, said] for key, said in self._at.items())]

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What was said in this very situation.

        Raises:
            UnavailableError: If nobody was in it.
        """
        said = self._seen.get(_key(messages))
        if said is None:
            raise UnavailableError(f"partner {self.name!r}: nobody in {self._path} was ever shown this")
        return rng.choice(said)

    def reply_at(self, place: Place, messages: Sequence[Message], rng: random.Random) -> str:
        """What was said in this situation, or at this turn of this problem."""
        said = self._seen.get(_key(messages))
        return rng.choice(self._of_turn(place) if said is None else said)

    def _of_turn(self, place: Place) -> list[str]:
        there = [key for key in self._at if key[0] == place.problem]
        if not there:
            known = len({problem for problem, _, _ in self._at})
            raise UnavailableError(
                f"partner {self.name!r}: nobody in {self._path} played problem {place.problem!r}; {known} others were "
                "played. Evaluate those, by the same --split, --seed and number of --problems"
            )
        own = [key for key in there if key[1] == place.seat] or there
        last = min(place.turn, max(turn for _, _, turn in own))
        return [text for key in own if key[2] == last for text in self._at[key]]


def _key(messages: Sequence[Message]) -> View:
    return tuple((message.role, message.content) for message in merge_roles(messages))
