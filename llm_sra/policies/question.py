"""What a server is asked for: one chat completion."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from llm_sra.task import Message, Sampling


@dataclass(frozen=True, slots=True)
class Question:
    """What decides a reply, together with the server's address.

    Attributes:
        model: As the server calls it.
        messages: The conversation.
        sampling: How tokens are drawn.
        seed: In [0, 2**31); None for greedy replies.
        max_tokens: Longest reply.
        stop: Strings that end it.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int | None
    max_tokens: int
    stop: tuple[str, ...] = ()

    def key(self, base_url: str) -> str:
        """Names the reply in a cache."""
        content = json.dumps([base_url, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def body(self) -> bytes:
        """The request, in OpenAI's form."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.as_dict() for message in self.messages],
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_tokens": self.max_tokens,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.stop:
            body["stop"] = list(self.stop)
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
