"""Text to token ids, where part of the text is untrusted.

Text that spells a control token is cut inside the spelling, and what follows the cut is encoded as a continuation: so
it stays what it says and never becomes the token. What text is to be trusted is said by others.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANK = " \t\r\n\u2581"  # added tokens of these alone are words: some vocabularies hold runs of them
# Text before which a continuation is encoded, and whose tokens are then dropped: the first that stays apart from it.
ANCHORS = ("\ue0ff", "\n", ".", "a", "0")


class Encoder:
    """Encodes with one tokenizer, without ever adding tokens of its own accord.

    Args:
        tokenizer: A tokenizer of any kind.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        added = {text: index for text, index in added.items() if text.strip(BLANK)}
        self.control_ids = frozenset(added.values()) - {tokenizer.unk_token_id}
        longer_than_one = sorted((text for text in added if len(text) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(f"(?={re.escape(text)})" for text in longer_than_one) or "(?!)")
        self._letters = re.compile("|".join(re.escape(text) for text in added if len(text) == 1) or "(?!)")
        self.ids = lru_cache(maxsize=4096)(self._ids)
        self.plain = lru_cache(maxsize=1024)(self._plain)  # a group's episodes see the same texts

    def parts(self, text: str) -> list[str]:
        """Untrusted text, cut after the first character of whatever spells a control token."""
        cuts = [match.start() + 1 for match in self._control.finditer(text)]
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    def broken(self, text: str, mark: str) -> str:
        """Untrusted text with a mark wherever it must be cut; added tokens of one character are left out."""
        return mark.join(self.parts(self._letters.sub("", text)))

    def control_in(self, ids: Sequence[int]) -> list[int]:
        """The control tokens among ids, in order."""
        return [index for index in ids if index in self.control_ids]

    def whole(self, text: str, mark: str, continued: bool = False) -> tuple[int, ...]:
        """Token ids of text that is encoded as one, but for its marks.

        Args:
            text: What it spells between marks becomes control tokens.
            mark: Where to cut; is not encoded.
            continued: Whether other tokens stand before it.
        """
        return tuple(chain.from_iterable(self._cut(text.split(mark), continued)))

    def after(self, text: str) -> tuple[int, ...]:
        """Token ids of text before which others stand: without the space that some tokenizers begin a text with."""
        for anchor in ANCHORS:
            before = self.ids(anchor)
            both = self.ids(anchor + text)
            if before and self.tokenizer.unk_token_id not in before and both[: len(before)] == before:
                return both[len(before) :]
        return self.ids(text)

    def _plain(self, text: str, continued: bool = False) -> tuple[int, ...]:
        """Token ids of untrusted text. No control token is ever among them.

        What a normaliser should still make of the cut parts is dropped.
        """
        ids = chain.from_iterable(self._cut(self.parts(text), continued))
        return tuple(index for index in ids if index not in self.control_ids)

    def _cut(self, parts: Sequence[str], continued: bool) -> Iterator[tuple[int, ...]]:
        """Token ids of each part, all but the first as continuations."""
        for number, part in enumerate(parts):
            if part:
                yield self.after(part) if continued or number else self.ids(part)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
