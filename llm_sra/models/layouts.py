"""A conversation as a template renders it, and from which message each stretch of text comes.

The template is asked twice: with the text as it is, and with marks around each message's text, which show where that
text went. If the marks change what the template writes, the first answer counts, and the origin of its text stays
unknown. Token ids are not known here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_sra.models.chat_template import ChatTemplate, TemplateError
from llm_sra.models.encoding import Encoder
from llm_sra.task import CLOSE_THOUGHT, Message

_PRIVATE = (*range(0xE000, 0xF8FF), *range(0xF0000, 0xFFFFD))  # characters without a meaning, to mark text with


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a rendered conversation.

    Attributes:
        text: With the layout's mark wherever untrusted text must be cut.
        message: Whose text it is, by the message's place; None: the template's, or unknown.
    """

    text: str
    message: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A rendered conversation.

    Attributes:
        spans: All of it, in order.
        mark: Where text must be cut.
    """

    spans: tuple[Span, ...]
    mark: str

    def up_to(self, message: int | None = None) -> str:
        """What stands before a message's text; all of it if None."""
        before = []
        for span in self.spans:
            if message is not None and span.message == message:
                break
            before.append(span.text)
        return "".join(before).replace(self.mark, "")

    def shows(self, message: int, text: str) -> bool:
        """Whether a message's text stands there as it is, white space around it aside."""
        return [s.text for s in self.spans if s.message == message] == [text.strip()]


def lay_out(template: ChatTemplate, encoder: Encoder, messages: Sequence[Message], drops_thoughts: bool) -> Layout:
    """Ask a template.

    Args:
        template: Template of the model.
        encoder: Knows what spells a control token.
        messages: What the seat sees.
        drops_thoughts: Whether the template leaves earlier thoughts out, and so must see where they end.

    Raises:
        TemplateError: If it refuses them, or does not show each message once and in order.
    """
    begin, end, mark = _unused("".join(message.content for message in messages), 3)
    broken = [_broken(message, encoder, mark, drops_thoughts) for message in messages]
    plain = template.text([Message(m.role, head + text) for m, (head, text) in zip(messages, broken, strict=True)])
    marked = template.text(
        [
            Message(message.role, head + _wrapped(text, f"{begin}{i}{begin}", end))
            for i, (message, (head, text)) in enumerate(zip(messages, broken, strict=True))
        ]
    )
    pieces = re.split(f"{begin}(\\d+){begin}(.*?){end}", marked, flags=re.DOTALL)
    spans = tuple(
        Span(text, message)
        for i in range(0, len(pieces), 3)
        for text, message in (
            (pieces[i], None),
            *(((pieces[i + 2], int(pieces[i + 1])),) if i + 2 < len(pieces) else ()),
        )
        if text or message is not None
    )
    _check_shown(template, messages, [span.message for span in spans if span.message is not None], plain)
    layout = Layout(spans, mark)
    text = "".join(span.text for span in spans)
    if text == plain or any(encoder.control_in(encoder.whole(head + said, mark)) for head, said in broken):
        return layout
    return Layout((Span(plain, None),), mark)


def _check_shown(template: ChatTemplate, messages: Sequence[Message], shown: Sequence[int], text: str) -> None:
    """Check that the template hides nothing that a seat should see; it may put a system text anywhere."""
    expected = [i for i, message in enumerate(messages) if message.content.strip()]
    shown = [i for i in shown if i in expected]
    order = [i for i in shown if messages[i].role != "system"]
    if sorted(shown) != expected or order != sorted(order):
        roles = [message.role for message in messages]
        raise TemplateError(
            f"the chat template of {template.name!r} must show each message once and in order; for the roles {roles} "
            f"it gave {text[:300]!r}. Set another `chat_template` on the tokenizer and save it, or take another model"
        )


def _broken(message: Message, encoder: Encoder, mark: str, drops_thoughts: bool) -> tuple[str, str]:
    """A message's text with marks where it must be cut: the thought that the template drops, and the rest."""
    thought, closing, said = message.content.rpartition(CLOSE_THOUGHT)
    if not drops_thoughts or message.role != "assistant" or not closing:
        return "", encoder.broken(message.content, mark)
    return encoder.broken(thought, mark) + closing, encoder.broken(said, mark)


def _wrapped(text: str, begin: str, end: str) -> str:
    """Text between two marks, which stand within the white space around it: templates may strip it."""
    said = text.strip()
    at = text.find(said) if said else len(text)
    return text[:at] + begin + said + end + text[at + len(said) :]


def _unused(text: str, count: int) -> list[str]:
    """Characters that a text does not have."""
    there = set(text)
    free = (character for character in map(chr, _PRIVATE) if character not in there)
    return [next(free) for _ in range(count)]
