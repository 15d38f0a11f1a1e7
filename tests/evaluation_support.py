"""What tests of evaluations share: rosters, records by what they are of, and what was said in an episode."""

from collections.abc import Sequence
from pathlib import Path

from partners_support import roster

from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import read_episodes
from llm_sra.runs import Run

__all__ = ["SHORT", "pick", "replies", "roster", "said", "scripted"]
SHORT = {"max_completion_length": 4}


def scripted(*names: str) -> list[str]:
    return [f"name: {name}, kind: scripted, policy: {name}" for name in names]


def pick(records: Sequence[Record], **which: str) -> Record:
    [record] = [r for r in records if all(getattr(r, key) == value for key, value in which.items())]
    return record


def said(episode: EpisodeRecord) -> list[tuple[str, str]]:
    """Who said what."""
    return [(turn.seat, turn.text) for turn in episode.turns]


def replies(run: Run, partner: str, folder: Path, seat: str = "first") -> list[list[str]]:
    """What a partner of a roster says while the run's agent sits in `seat`."""
    from llm_sra import evaluate

    evaluate([run], roster(folder, partner), folder / "out", problems=3, decodings=["greedy"], trust_scripts=True)
    return [
        [text for who, text in said(line.episode) if who != seat]
        for line in read_episodes(folder / "out")
        if line.seat == seat and line.partner != "self-play"
    ]
