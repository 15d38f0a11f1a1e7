"""Chat messages to token ids: the only place that knows chat templates.

The template is asked for the frame around the messages, never shown their text: text is encoded apart from it, as
plain text. So nothing that an agent says can open a turn, end one, or become a control token. A seat's own replies
enter as the token ids that were sampled, never re-tokenised.

This module does not cut text, choose what a seat sees, or generate.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llm_sra.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SLOT = "\ue000{}\ue001"  # private-use characters: no template and no task writes them
SPAN = 16  # tokens that are decoded together, to see what the last of them adds
_SLOT_PATTERN = re.compile("\ue000(\\d+)\ue001")


class TemplateError(ValueError):
    """The model's chat template cannot frame the messages of the task."""


class Renderer:
    """Renders what a seat sees for one model.

    Args:
        tokenizer: A tokenizer with a chat template.
        template_kwargs: Further arguments of the template, such as `enable_thinking`.

    Raises:
        TemplateError: If the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template_kwargs: Mapping[str, Any] | None = None) -> None:
        if not tokenizer.chat_template:
            raise TemplateError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template: use an instruction-tuned model, or "
                "set `chat_template` on the tokenizer and save it with the model"
            )
        self.tokenizer = tokenizer
        self._template_kwargs = dict(template_kwargs or {})
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        self._control_ids = frozenset(added.values()) - {tokenizer.unk_token_id}
        longer_than_one = sorted((text for text in added if len(text) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(f"(?={re.escape(text)})" for text in longer_than_one) or "(?!)")
        self._frame = lru_cache(maxsize=1024)(self._frame_uncached)
        self.encode_text = lru_cache(maxsize=1024)(self._encode_uncached)  # a group's episodes see the same texts

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        """Token ids of untrusted text. No added or special token is ever among them (but the unknown token).

        Wherever the text spells an added token it is cut after that token's first character, and the pieces are
        encoded apart; what a normaliser should still make of them is dropped.
        """
        pieces, start = [], 0
        for match in self._control.finditer(text):
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
        pieces.append(text[start:])
        ids = [
            index
            for piece in pieces
            if piece
            for index in self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ]
        return tuple(index for index in ids if index not in self._control_ids)

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
        """The text of sampled ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def widths(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """How many characters of a reply each of its sampled ids added.

        Args:
            ids: All of them; those that end the reply add nothing.
            text: The reply. A character that several ids make together is added by the last of them.

        Returns:
            As many as ids, in sum the length of the text; empty if the text is not what the ids say (it was cleaned).
        """
        if not self.decode(ids).startswith(text):
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
        return tuple(after - before for before, after in pairwise(reached))

    def render(self, messages: Sequence[Message], own: Sequence[tuple[str, tuple[int, ...]]] = ()) -> tuple[int, ...]:
        """The prompt for the seat's next reply.

        Args:
            messages: What the seat sees.
            own: Text and sampled token ids of the seat's earlier replies, in order. The `assistant` messages are
                matched with them from the last one backwards; where the text is the same, the sampled ids are used.

        Returns:
            Token ids, ending where the reply begins.
        """
        frame = self._frame(tuple(message.role for message in messages))
        sampled = self._match_own(messages, own)
        ids = list(frame[0])
        for position, (message, after) in enumerate(zip(messages, frame[1:], strict=True)):
            if position in sampled:
                content = sampled[position]
                ids.extend(content)
                # A reply that ended by itself brought its end-of-turn token along: do not write it twice.
                ids.extend(after[1:] if content and after and content[-1] == after[0] else after)
            else:
                ids.extend(self.encode_text(message.content))
                ids.extend(after)
        return tuple(ids)

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

    def _frame_uncached(self, roles: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Token ids of the template before, between and after the contents of messages with these roles."""
        conversation = [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True, **self._template_kwargs
            )
        except Exception as error:
            raise TemplateError(f"the chat template refuses the roles {list(roles)}: {error}") from error
        pieces = _SLOT_PATTERN.split(text)
        if [int(slot) for slot in pieces[1::2]] != list(range(len(roles))):
            raise TemplateError(
                f"the chat template must show each message once and in order; for the roles {list(roles)} it gave "
                f"{text!r}"
            )
        return tuple(tuple(self.tokenizer(p, add_special_tokens=False)["input_ids"]) for p in pieces[::2])
