"""Partners written in Python: any class with `reply(messages, rng) -> str`."""

import random
from collections.abc import Sequence

from llm_sra.errors import defined_at, raised_at
from llm_sra.policies.base import PolicyError, UnavailableError
from llm_sra.task import Message, ScriptedPartner


class Scripted:
    """Seats a scripted partner.

    Raises:
        PolicyError: From `reply`, if the partner raises or does not return a string. An UnavailableError of its own is
            passed on.
    """

    def __init__(self, name: str, partner: ScriptedPartner) -> None:
        self.name = name
        self.partner = partner

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What the partner says; see `ScriptedPartner.reply`."""
        try:
            text = self.partner.reply([message.as_dict() for message in messages], rng)
        except (UnavailableError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit and asyncio's CancelledError are no Exceptions
            raise PolicyError(
                f"scripted partner {self.name!r} ({type(self.partner).__name__}) failed on {len(messages)} messages, "
                f"the last being {messages[-1].content[-200:]!r}: {error!r}, at "
                f"{raised_at(error, type(self.partner), 'reply')}. `reply(messages, rng)` must return a str, whatever "
                "it is told"
            ) from error
        if not isinstance(text, str):
            raise PolicyError(
                f"scripted partner {self.name!r} must return a string, got {type(text).__name__} {repr(text)[:200]}, "
                f"at {defined_at(type(self.partner), 'reply')}"
            )
        return str.__str__(text)  # of a class of one's own, the text alone
