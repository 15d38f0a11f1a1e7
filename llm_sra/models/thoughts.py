"""How models write what they think, told in one way: `<think>...</think>`, which `llm_sra.task` takes out of replies.

Some templates begin the thought in the prompt; some models write it between tokens of their own, which decoding leaves
out. What becomes of a thought is not decided here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_sra.models.chat_template import ChatTemplate
from llm_sra.models.encoding import Encoder
from llm_sra.task import CLOSE_THOUGHT, OPEN_THOUGHT, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where a thought begins and where it ends: Magistral, Command, Seed-OSS, Gemma 4, GPT-OSS. Of two that begin alike the
# longer one stands first.
TAGS = (
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
)
_SLOT = "\ue000"  # private-use: no template writes it


def opened_thought(template: ChatTemplate) -> tuple[str, str]:
    """The beginning of a thought that stands in the prompt, as R1's and Qwen3-Thinking's templates write it.

    Returns:
        As the template writes it, and with `<think>` for its tag; both empty if there is none.
    """
    prompt = template.text([Message("user", _SLOT)]).rpartition(_SLOT)[2]
    for begin, end in ((OPEN_THOUGHT, CLOSE_THOUGHT), *TAGS):
        _, opening, rest = prompt.rpartition(begin)
        if opening and end not in rest:
            return opening + rest, OPEN_THOUGHT + rest
    return "", ""


def inside_reply(template: ChatTemplate, encoder: Encoder) -> frozenset[int]:
    """Control tokens of the tags that a template knows: a reply goes on after them."""
    tags = (tag for begin, end in TAGS if begin in template.source for tag in (begin, end))
    return frozenset(index for tag in tags for index in encoder.control_in(encoder.ids(tag)))


class ThoughtTags:
    """Decodes replies whose thoughts stand between tokens of their own.

    Args:
        encoder: Encoder of the model's tokenizer.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
        self._tags: list[tuple[tuple[int, ...], str]] = []
        for begin, end in TAGS:
            for tag, said in ((begin, OPEN_THOUGHT), (end, CLOSE_THOUGHT)):
                ids = encoder.ids(tag)
                if ids and ids[0] in encoder.control_ids and ids[-1] in encoder.control_ids:
                    self._tags.append((ids, said))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids without special tokens, its thoughts between `<think>` and `</think>`."""
        if not self._tags:
            return self._plain(ids)
        parts, start, at = [], 0, 0
        while at < len(ids):
            tag = next((tag for tag in self._tags if tuple(ids[at : at + len(tag[0])]) == tag[0]), None)
            if tag is None:
                at += 1
                continue
            parts += [self._plain(ids[start:at]), tag[1]]
            at = start = at + len(tag[0])
        return "".join([*parts, self._plain(ids[start:])])

    def _plain(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
