"""Chat messages to token ids: the only place that knows how a model is asked.

The ids are those of the tokenizer's own `apply_chat_template`, but for two things. Text of messages is never to be
trusted: what in it spells a control token stays text, so nothing that an agent says can open a turn, end one, or become
a control token. And a seat's own replies enter as the token ids that were sampled, never re-tokenised.

The template is asked with marks around each message's text, which say what in its answer is whose. This module does
not cut text, choose what a seat sees, or generate.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from llm_sra.models.chat_template import (
    DAY,
    JOINED,
    SYSTEM_FIRST,
    SYSTEM_LATER,
    USER_FIRST,
    ChatTemplate,
    TemplateError,
    arguments_taken,
)
from llm_sra.models.encoding import Encoder
from llm_sra.models.layouts import Layout, Span, lay_out
from llm_sra.models.thoughts import ThoughtTags, opened_thought
from llm_sra.models.turn_ends import TurnEnds, turn_ends
from llm_sra.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

SPAN = 16  # tokens that are decoded together, to see what the last of them adds
_THOUGHT = "\ue000thought"  # as no template writes it
_said: set[tuple[str, str]] = set()  # what the log was told of each model


class Renderer:
    """Renders what a seat sees for one model.

    Args:
        tokenizer: A tokenizer with a chat template.
        template_kwargs: Further arguments of the template, such as `enable_thinking`.
        day: What a template is told that asks for today's date: YYYY-MM-DD.

    Attributes:
        template: The template, as it is asked.
        ends: What ends a reply, besides the tokens that model and tokenizer name themselves.
        opened: How prompts begin a thought that the reply goes on with; empty if they do not. See `opening`.

    Raises:
        TemplateError: If the model cannot be asked with this template, whatever the task.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", template_kwargs: Mapping[str, Any] | None = None, day: str = DAY
    ) -> None:
        self.template = ChatTemplate(tokenizer, template_kwargs, day)
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.encode_text = self.encoder.plain
        self._thoughts = ThoughtTags(self.encoder)
        self._drops_thoughts = False
        self._layout = lru_cache(maxsize=1024)(self._layout_uncached)
        self._encode = lru_cache(maxsize=2048)(self._encode_uncached)
        self._adapt()
        self.ends: TurnEnds = turn_ends(self.template, self.encoder)
        written, self.opened = opened_thought(self.template)
        self._written = "".join(written.split())  # decoding may move white space

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", config: Mapping[str, Any]) -> "Renderer":
        """As a run's configuration, or a roster's entry, asks: by its `chat_template_kwargs` and `template_date`.

        Where seats have different models, each is given the arguments that its template takes.
        """
        arguments = config.get("chat_template_kwargs")
        if config.get("seat_models"):
            arguments = arguments_taken(tokenizer, arguments)
        return cls(tokenizer, arguments, str(config.get("template_date") or DAY))

    def asks_as(self, config: Mapping[str, Any]) -> bool:
        """Whether it asks as a configuration does, where that says how."""
        arguments = config.get("chat_template_kwargs") or self.template.given
        return self.template.given == arguments and self.template.day == str(
            config.get("template_date") or self.template.day
        )

    @property
    def identity(self) -> list[Any]:
        """All that prompts depend on besides messages and the tokenizer's words."""
        day = [self.template.day] if self.template.depends_on_day else []
        return [self.template.source, self.template.given or None, len(self.tokenizer), *day]

    def _adapt(self) -> None:
        """Find out what the template takes, and change it where there is one usual way."""
        user, assistant, system, later = (
            Message("user", "word"),
            Message("assistant", "word"),
            Message("system", "word"),
            Message("system", "more"),  # a template may leave out a system text that it has shown before
        )
        self._layout_uncached((user,))
        orders: tuple[tuple[str, tuple[tuple[Message, ...], ...]], ...] = (
            (SYSTEM_FIRST, ((system, user, assistant, user),)),
            (JOINED, ((user, user),)),
            (SYSTEM_LATER, ((system, later, user, assistant, later, user), (system, user, later, user))),
            (USER_FIRST, ((assistant, user),)),
        )
        for step, conversations in orders:
            if not all(self._takes(*messages) for messages in conversations):
                self.template.adapt(step)
        for messages in ((user, assistant, user), (system, user)):
            self._layout_uncached(messages)
        what = "; ".join(self.template.adapted)
        if what and (self.template.name, what) not in _said:
            _said.add((self.template.name, what))
            logger.warning("The chat template of %r is adapted: %s", self.template.name, what)
        thought = (user, Message("assistant", f"<think>\n{_THOUGHT}\n</think>\n\nword"), user)
        self._drops_thoughts = _THOUGHT not in self.template.text(thought)

    def _takes(self, *messages: Message) -> bool:
        try:
            self._layout_uncached(messages)
        except TemplateError:
            return False
        return True

    def single_tokens(self, words: Sequence[str]) -> tuple[int, ...]:
        """Token ids of words that are one token each.

        Raises:
            ValueError: If one is none or several, or two are the same: then they cannot be chosen from.
        """
        ids = []
        for word in words:
            encoded = self.encode_text(word)
            if len(encoded) != 1 or encoded[0] in ids:
                raise ValueError(
                    f"a task's choices must be one token each, and all different, but the tokenizer of "
                    f"{self.tokenizer.name_or_path!r} makes {len(encoded)} of {word!r} (or the same as of another "
                    "word): choose other words, or another model"
                )
            ids.append(encoded[0])
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids: no special tokens, nor the one that ended the reply; thoughts in `<think>` tags."""
        return self._thoughts.decode(ids[:-1] if ids and ids[-1] in self.ends.ids else ids)

    def opening(self, prompt_ids: Sequence[int]) -> str:
        """How a prompt begins a thought: `opened`, unless a message switched thinking off, as some templates allow."""
        if not self.opened:
            return ""
        tail = self.tokenizer.decode(list(prompt_ids[-len(self._written) :]), skip_special_tokens=False)
        return self.opened if "".join(tail.split()).endswith(self._written) else ""

    def widths(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """How many characters of a reply each of its sampled ids added.

        Args:
            ids: All of them; those that end the reply add nothing.
            text: The reply. A character that several ids make together is added by the last of them. The thought's
                opening, if the prompt has it, counts with the first.

        Returns:
            As many as ids, in sum the length of the text; empty if the text is not what the ids say (it was cleaned).
        """
        said = self.decode(ids)
        opening = len(self.opened) if ids and not said.startswith(text) and text.startswith(self.opened) else 0
        text = text[opening:]
        if not said.startswith(text):
            return ()
        reached = [0]
        first = begin = 0  # the id that is decoded from, and the character that its text begins at
        for count in range(1, len(ids) + 1):
            said = self.decode(ids[first:count])
            whole = said.rstrip("\ufffd")  # half a character
            reached.append(max(reached[-1], min(begin + len(whole), len(text))))
            # The last id stays, since some tokenizers drop the space that a text begins with; if it is of whole
            # characters, since some read bytes in a row as one.
            if count - first > SPAN and "\ufffd" not in (last := self.decode(ids[count - 1 : count])):
                begin, first = begin + len(said) - len(last), count - 1
        reached[-1] = len(text)
        widths = [after - before for before, after in pairwise(reached)]
        if opening:
            widths[0] += opening
        return tuple(widths)

    def render(self, messages: Sequence[Message], own: Sequence[tuple[str, tuple[int, ...]]] = ()) -> tuple[int, ...]:
        """The prompt for the seat's next reply.

        Args:
            messages: What the seat sees.
            own: Text and sampled token ids of the seat's earlier replies, in order. The `assistant` messages are
                matched with them from the last one backwards; where the text is the same, and the template shows it as
                it is, the sampled ids are used.

        Returns:
            Token ids, ending where the reply begins.

        Raises:
            TemplateError: If the template refuses the messages, or does not show one of them.
        """
        messages = tuple(messages)
        layout = self._layout(messages)
        own_ids = self._match_own(messages, own)
        sampled = {i: ids for i, ids in own_ids.items() if layout.shows(i, messages[i].content)}
        ids: list[int] = []
        piece: list[Span] = []
        white = ""  # the end of a sampled reply, which the template wrote once more
        for span in layout.spans:
            if span.message is None or span.message not in sampled:
                piece.append(Span(span.text.removeprefix(white), span.message))
                white = ""
                continue
            piece = self._up_to_reply(piece, layout.up_to(span.message), messages[: span.message])
            ids += self._between(ids, piece, layout.mark)
            ids += sampled[span.message]
            said = messages[span.message].content
            piece, white = [], said[len(said.rstrip()) :]
        return (*ids, *self._between(ids, piece, layout.mark))

    def _layout_uncached(self, messages: tuple[Message, ...]) -> Layout:
        return lay_out(self.template, self.encoder, messages, self._drops_thoughts)

    def _between(self, before: Sequence[int], piece: list[Span], mark: str) -> tuple[int, ...]:
        """Ids of what stands before, between or after replies that were sampled."""
        ids = self._encode(tuple(piece), mark, bool(before))
        if not before or before[-1] not in self.encoder.control_ids or before[-1] not in ids:
            return ids
        # A reply that ended by itself brought its end-of-turn token along: do not write it twice.
        at = ids.index(before[-1])
        if self.encoder.control_in(ids[:at]) or self.tokenizer.decode(list(ids[:at])).strip():
            return ids
        return ids[at + 1 :]

    def _up_to_reply(self, piece: list[Span], text: str, before: tuple[Message, ...]) -> list[Span]:
        """What stands before a reply that was sampled: no more white space than where it was asked for.

        Some templates write a space before each reply, but not where a reply begins: there it is the model's to say.

        Args:
            piece: The end of what stands before the reply.
            text: All of it.
            before: The messages that the reply answered.
        """
        try:
            asked = self._layout(before).up_to()
        except TemplateError:
            return piece
        more = text[len(asked) :]
        if not piece or not text.startswith(asked) or not more.isspace() or not piece[-1].text.endswith(more):
            return piece
        return [*piece[:-1], Span(piece[-1].text.removesuffix(more), piece[-1].message)]

    def _encode_uncached(self, piece: tuple[Span, ...], mark: str, continued: bool) -> tuple[int, ...]:
        """Token ids of a stretch: as one text, if that makes control tokens of nothing but the template's text."""
        encoder = self.encoder
        whole = encoder.whole("".join(span.text for span in piece), mark, continued)
        parts: list[tuple[int, ...]] = []
        for span in piece:
            behind = continued or any(parts)
            if span.message is None:
                parts.append(encoder.whole(span.text, mark, behind))
            else:
                parts.append(encoder.plain(span.text.replace(mark, ""), behind))
        if encoder.control_in(whole) == [index for part in parts for index in encoder.control_in(part)]:
            return whole
        return tuple(chain.from_iterable(parts))

    @staticmethod
    def _match_own(
        messages: Sequence[Message], own: Sequence[tuple[str, tuple[int, ...]]]
    ) -> dict[int, tuple[int, ...]]:
        positions = [i for i, message in enumerate(messages) if message.role == "assistant"]
        return {
            position: ids
            for position, (text, ids) in zip(reversed(positions), reversed(own), strict=False)
            if ids and messages[position].content == text
        }
