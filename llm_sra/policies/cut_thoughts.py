"""Thoughts that a server leaves in its replies: told in one way, and noticed where they may be cut.

A server's chat template may begin the thought in the prompt. A reply then closes one that it did not open, and a reply
that was cut has no tag at all: the protocol does not tell it from an answer.
"""

import logging
import re
import threading

from llm_sra.task import CLOSE_THOUGHT, OPEN_THOUGHT

logger = logging.getLogger(__name__)

# How servers spell a thought that they leave in the reply: Magistral, Seed-OSS, Command, Kimi, Gemma 4, GPT-OSS, models
# without a parser.
_SPELT = re.compile(
    r"\[THINK\]|<seed:think>|<\|START_THINKING\|>|\u25c1think\u25b7|<\|channel>|"
    r"<\|channel\|>(?:analysis|commentary)<\|message\|>|<(?:thinking|thought|reasoning)>"
    r"|(?P<end>\[/THINK\]|</seed:think>|<\|END_THINKING\|>|\u25c1/think\u25b7|<channel\|>|"
    r"(?:<\|end\|><\|start\|>assistant)?<\|channel\|>final<\|message\|>|</(?:thinking|thought|reasoning)>)",
)


def respelt(text: str) -> str:
    """A reply with its thoughts between `<think>` and `</think>`, as tasks know them."""
    return _SPELT.sub(lambda tag: CLOSE_THOUGHT if tag["end"] else OPEN_THOUGHT, text)


class CutThoughts:
    """What was seen of the models of one server; says once of each what a roster should say.

    Args:
        url: The server's address.
    """

    def __init__(self, url: str) -> None:
        self._url, self._lock = url, threading.Lock()
        self._closing: set[str] = set()  # models that closed a thought which they did not open
        self._cut: set[str] = set()  # models of which a reply without a tag was cut
        self._said: set[str] = set()

    def saw(self, model: str, text: str, cut: bool) -> None:
        """Look at a reply.

        Args:
            model: Who said it.
            text: What was said.
            cut: Whether it ended at its token limit.
        """
        before, closed, _ = respelt(text).partition(CLOSE_THOUGHT)
        with self._lock:
            if OPEN_THOUGHT not in before and (closed or cut):
                (self._closing if closed else self._cut).add(model)
            if model not in self._closing & self._cut or model in self._said:
                return
            self._said.add(model)
        logger.warning(
            "%s: some replies of %r close a thought that they did not open, and some ended at their token limit "
            "without closing one. Those are thoughts that were cut, but count as answers: set opens_thought: true for "
            "this partner, and raise its max_tokens",
            self._url,
            model,
        )
