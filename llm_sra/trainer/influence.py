"""How much each turn of a rollout changed what another seat said next, and that as credit (see `objectives.influence`).

Two forward passes over each reply that answers another seat's: after what its writer saw, and after the same without
the reply that it answers.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate.utils import gather_object

from llm_sra.errors import UserError
from llm_sra.models.renderer import Renderer
from llm_sra.objectives.influence import shared_influence, standardised
from llm_sra.task import Episode, Message, Turn
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.player_episodes import PlayerEpisode
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import Row
from llm_sra.trainer.scorer import Scorer


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn, and the reply to it.

    Attributes:
        episode: Position in the rollout.
        seat: Who spoke.
        number: Which of the seat's turns.
        text: What it said.
        full: The reply to it after what its writer saw.
        without: The same reply after a view without the turn.
    """

    episode: int
    seat: str
    number: int
    text: str
    full: Sample
    without: Sample


def measure_influence(rollout: Rollout, scorer: Scorer, bases: Bases) -> None:
    """Fill in the rollout's `influence`: of each turn that another seat answered, text and Δℓ in nats."""
    answered = list(answered_turns(rollout, bases))
    full = scorer.reply_logprobs([one.full for one in answered])
    without = scorer.reply_logprobs([one.without for one in answered])
    for one, with_it, without_it in zip(answered, full, without, strict=True):
        rollout.influence[one.episode, one.seat, one.number] = one.text, with_it - without_it


def add_influence(rollout: Rollout, episodes: Sequence[PlayerEpisode], coef: float) -> None:
    """Add α C̃ to the advantages of every turn that was answered; all processes must call this.

    Args:
        rollout: Its samples' advantages are changed, and its notes filled in.
        episodes: See `player_episodes`.
        coef: α, in units of the reward.

    Raises:
        UserError: If no turn was answered by one that shows it.
    """
    found = [
        (played, number, *rollout.influence[played.episode, played.seat, number])
        for played in episodes
        for number in range(len(played.rewards))
        if (played.episode, played.seat, number) in rollout.influence
    ]
    alike = [
        (played.player.adapter, played.seat, rollout.episodes[played.episode].problem.id, text.strip())
        for played, _, text, _ in found
    ]
    shared = shared_influence(alike, [nats for *_, nats in found])
    mine: dict[str, list[float]] = defaultdict(list)
    for (played, *_), value in zip(found, shared, strict=True):
        mine[played.player.adapter].append(value)
    everyone: dict[str, list[float]] = defaultdict(list)
    for one in gather_object([dict(mine)]):
        for adapter, values in one.items():
            everyone[adapter] += values
    if not everyone:
        raise UserError(
            f"influence_coef is {coef:g}, but no seat saw what another one had said: the task's views must show the "
            "text of replies. Leave it out"
        )
    for adapter, values in everyone.items():
        rollout.notes[f"policy/{adapter}/influence"] = sum(values) / len(values)
    for (played, number, *_), value in zip(found, shared, strict=True):
        [credit] = standardised([value], everyone[played.player.adapter])
        for sample in played.samples:
            sample.advantages = sample.advantages + coef * credit * (torch.tensor(sample.row.turns) == number)


def answered_turns(rollout: Rollout, bases: Bases) -> Iterator[Answered]:
    """Turns that were answered by a policy under training which saw them, with both rows of the reply."""
    for position, (episode, training) in enumerate(zip(rollout.episodes, rollout.matches, strict=True)):
        counts: dict[str, int] = defaultdict(int)
        for turn in episode.turns:
            number, counts[turn.seat] = counts[turn.seat], counts[turn.seat] + 1
            reply = _reply_to(turn, episode)
            if reply is None or reply.seat not in training.players or turn.seat not in training.players:
                continue
            view = without(reply.view, turn.reply.text)
            if view is None:
                continue
            adapter = training.players[reply.seat].adapter
            renderer = bases.of(adapter).engine.renderer
            prompt = renderer.render(view, _own(reply, episode, renderer))
            rows = [_row(position, reply, ids) for ids in (reply.prompt_ids, prompt)]
            full, masked = (Sample(row, adapter, None) for row in rows)
            yield Answered(position, turn.seat, number, turn.reply.text, full, masked)


def without(view: Sequence[Message], text: str) -> tuple[Message, ...] | None:
    """A view in which the last place that shows a text to the seat is empty; None if there is no such place."""
    said = text.strip()
    for at in range(len(view) - 1, -1, -1):
        message = view[at]
        if said and message.role == "user" and said in message.content:
            before, after = message.content.rsplit(said, 1)
            return (*view[:at], replace(message, content=before + after), *view[at + 1 :])
    return None


def _reply_to(turn: Turn, episode: Episode) -> Turn | None:
    """The first turn of another seat at a later step, if a policy of tokens took it."""
    later = (other for other in episode.turns if other.step > turn.step and other.seat != turn.seat)
    reply = next(later, None)
    return reply if reply is not None and reply.reply.token_ids else None


def _own(reply: Turn, episode: Episode, renderer: Renderer) -> list[tuple[str, tuple[int, ...]]]:
    """What the seat had said before, as prompts have it."""
    before = [turn.reply for turn in episode.turns_of(reply.seat) if turn.step < reply.step]
    return [(said.text, said.token_ids if renderer.decode(said.token_ids) == said.text else ()) for said in before]


def _row(position: int, reply: Turn, prompt_ids: tuple[int, ...]) -> Row:
    row = Row(position, reply.seat, prompt_ids)
    row.extend(reply.reply.token_ids, 1, 0, reply.reply.logprobs)
    return row
