"""Scripted partners for games of TextArena: those that choose among listed moves, and one for all games."""

import random
import re
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.movers import MOVERS


class Examples(ScriptedPartner):
    """Says one of the things in brackets that it was ever shown, such as examples of moves; they may be illegal."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """One of them; `[pass]` if there are none."""
        shown = "\n".join(message["content"] for message in messages if message["role"] == "user")
        said = re.sub(r"^\[[^]]*\] ", "", shown, flags=re.MULTILINE)  # without who speaks
        found: list[str] = re.findall(r"\[[^][\n]{1,60}\]", said)
        return rng.choice(list(dict.fromkeys(found)) or ["[pass]"])


ANY: Mapping[str, Callable[[], ScriptedPartner]] = {"examples": Examples}
LISTED: Mapping[str, Callable[[], ScriptedPartner]] = {**MOVERS, **ANY}
