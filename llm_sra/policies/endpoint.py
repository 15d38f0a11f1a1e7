"""Partners behind a server that speaks OpenAI's chat completions: vLLM, a provider on the internet, or a proxy of one.

A reply is a function of the model's name, the messages, the sampling and a seed, so that a cached reply is as good as a
new one. How the server is asked is `chat_client`'s part.
"""

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from llm_sra.policies.base import UnavailableError
from llm_sra.policies.chat_client import ChatClient
from llm_sra.policies.cut_thoughts import respelt
from llm_sra.policies.question import Question
from llm_sra.task import CLOSE_THOUGHT, OPEN_THOUGHT, Message, Sampling, stop_at


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        name: Shown in transcripts and results.
        model: As the server calls it.
        client: How the server is asked; several policies may share one, and with it its limits and its cache.
        max_tokens: Longest reply.
        stop: Strings that end a reply; not part of it.
        temperature: Used where `decoded` is asked for temperature 1.
        sampling: How tokens are drawn; `top_k` is left to the server, as the protocol does not know it. At temperature
            0 no seed is sent.
        opens_thought: Whether the server's chat template begins a thought that the reply goes on with. Only then is it
            known that a reply without `</think>` is a thought that was cut.
    """

    name: str
    model: str
    client: ChatClient = field(repr=False)
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    sampling: Sampling = Sampling()
    opens_thought: bool = False

    def decoded(self, sampling: Sampling) -> "Endpoint":
        """The same policy, with its tokens drawn this way; temperature 1 is `temperature`."""
        temperature = self.temperature if sampling.temperature == 1 else sampling.temperature
        return replace(self, sampling=replace(sampling, temperature=temperature))

    def at_temperature(self, temperature: float) -> "Endpoint":
        """The same policy at exactly this temperature."""
        return replace(self, sampling=replace(self.sampling, temperature=float(temperature)))

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What the model says; see `replies`."""
        return self.replies([(messages, rng)])[0]

    def replies(self, turns: Sequence[tuple[Sequence[Message], random.Random]]) -> list[str]:
        """What the model says at each of these turns, several of which are asked for at a time.

        Raises:
            UnavailableError: If the server will not say it; what it has said until then is kept.
        """
        futures = self.submit(turns)
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(self, turns: Sequence[tuple[Sequence[Message], random.Random]]) -> list[Future[str]]:
        """Ask for what the model says at each of these turns.

        Returns:
            A future per turn, in order. It holds an UnavailableError if the server will not say it.
        """
        return [self._said(asked) for asked in self.client.submit([self._question(*turn) for turn in turns])]

    def _said(self, asked: Future[str]) -> Future[str]:
        """The client's reply as this partner says it; cancelling it cancels the other."""
        said: Future[str] = Future()

        def say(asked: Future[str]) -> None:
            if not said.set_running_or_notify_cancel():
                return
            if error := asked.exception():
                missing = UnavailableError(f"partner {self.name!r}: {error}")
                missing.__cause__ = error
                said.set_exception(missing if isinstance(error, UnavailableError) else error)
            else:
                said.set_result(self._before_stop(self._told(asked.result())))

        said.add_done_callback(lambda _: asked.cancel())
        asked.add_done_callback(say)
        return said

    def _question(self, messages: Sequence[Message], rng: random.Random) -> Question:
        return Question(
            model=self.model,
            messages=tuple(messages),
            sampling=self.sampling,
            seed=rng.getrandbits(31) if self.sampling.temperature else None,
            max_tokens=self.max_tokens,
            stop=() if self.opens_thought else self.stop,  # the server would cut the thought
        )

    def _told(self, text: str) -> str:
        """A reply with its thought between `<think>` and `</think>`, as tasks know it."""
        text = respelt(text)
        begun = OPEN_THOUGHT in text.partition(CLOSE_THOUGHT)[0]
        return OPEN_THOUGHT + text if self.opens_thought and not begun else text

    def _before_stop(self, text: str) -> str:
        """Without what comes after a stop string, of a server that ignores them or was sent none."""
        return text[: stop_at(text, self.stop)]
