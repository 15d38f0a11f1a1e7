"""What a template ends a turn with: found out by asking it."""

from dataclasses import dataclass

from llm_sra.models.chat_template import ChatTemplate, TemplateError
from llm_sra.models.encoding import Encoder
from llm_sra.models.thoughts import inside_reply
from llm_sra.task import Message

_SLOT = "\ue000"  # private-use: no template writes it


@dataclass(frozen=True)
class TurnEnds:
    """What ends a reply.

    Attributes:
        ids: Token ids: the end of a turn, and the beginning of somebody else's.
        strings: The same as text, for a template that separates turns only by text.
    """

    ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()


def turn_ends(template: ChatTemplate, encoder: Encoder) -> TurnEnds:
    """What follows an assistant's text, at a conversation's end and before the next user message.

    A template that ends a whole reply with another token than a message within a conversation (GPT-OSS) lets one reply
    hold several messages: there only the first of the two ends it. Nor does a token of a thought's tags end one.
    """
    said = [Message("user", "word"), Message("assistant", _SLOT)]
    between = _between(template, [*said, Message("user", _SLOT)])
    try:
        last = template.text(said, prompt=False).rpartition(_SLOT)[2]
    except TemplateError:  # it may insist on a user's message at the end
        last = between
    first, next_ones = _control(encoder, last), _control(encoder, between)
    if first and next_ones and first[0] != next_ones[0]:
        return TurnEnds(first[:1])
    if next_ones:
        inside = inside_reply(template, encoder)
        return TurnEnds(tuple(i for i in dict.fromkeys([*first[:1], *next_ones[:2]]) if i not in inside))
    lines = between.splitlines(keepends=True)
    word = next((i for i, line in enumerate(lines) if line.strip()), None)
    strings = () if word is None else ("".join(lines[: word + 1]).rstrip(),)
    return TurnEnds(first[:1], strings)


def _between(template: ChatTemplate, messages: list[Message]) -> str:
    parts = template.text(messages).split(_SLOT)
    return parts[1] if len(parts) == 3 else ""


def _control(encoder: Encoder, text: str) -> tuple[int, ...]:
    """The control tokens that a text begins with, words between them aside; none if a word stands before them."""
    ids = encoder.ids(text) if text else ()
    found = [i for i, index in enumerate(ids) if index in encoder.control_ids]
    if not found or encoder.tokenizer.decode(list(ids[: found[0]])).strip():
        return ()
    return tuple(ids[i] for i in found)
