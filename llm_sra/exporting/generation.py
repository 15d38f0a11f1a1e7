"""How an export generates when nobody says how: as its training did, and until its template's end of a turn.

A base model's own generation config is its makers' taste (top_k 20, repetition_penalty 1.05), and may not know what the
chat template ends a turn with. transformers and vLLM read it as defaults of every request.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from llm_sra.engines.replies import end_of_turn_ids
from llm_sra.models.renderer import Renderer
from llm_sra.task import Task


@dataclass(frozen=True)
class Generation:
    """How replies are drawn.

    Attributes:
        config: For transformers and vLLM: the whole distribution, and every token that ends a turn.
        stop: Strings that end a reply, of the task and of a template whose turns are told apart by text; no file of
            transformers' can hold them.
        max_tokens: Token limit of a reply.
    """

    config: GenerationConfig
    stop: tuple[str, ...]
    max_tokens: int

    @classmethod
    def of(cls, model: PreTrainedModel, renderer: Renderer, task: Task[Any], config: Mapping[str, Any]) -> "Generation":
        """As a run's agents reply.

        Args:
            model: Their base.
            renderer: How they are asked.
            task: What they play.
            config: The run's.
        """
        drawn = GenerationConfig(
            do_sample=True,
            temperature=float(config["temperature"]),
            top_p=1.0,
            top_k=0,
            eos_token_id=list(end_of_turn_ids(model, renderer)),
            pad_token_id=renderer.tokenizer.pad_token_id,
            bos_token_id=renderer.tokenizer.bos_token_id,
        )
        limit = config.get("max_completion_length") or task.max_reply_tokens
        return cls(drawn, (*task.stop, *renderer.ends.strings), int(limit))

    @property
    def request(self) -> dict[str, Any]:
        """The same as fields of a request to a vLLM server, whatever defaults that has."""
        return {
            "temperature": self.config.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "repetition_penalty": 1.0,
            "max_tokens": self.max_tokens,
            "stop_token_ids": self.config.eos_token_id,
            **({"stop": list(self.stop)} if self.stop else {}),
        }

    def prose(self) -> str:
        """What the card says."""
        strings = f" and at {json.dumps(list(self.stop))}, which no file holds" if self.stop else ""
        return (
            "`generation_config.json` draws replies as the training did, from the whole distribution, and ends them "
            f"where the chat template ends a turn. A reply also ended after {self.max_tokens} tokens{strings}: the "
            f"lines above say so. {self._early()}The file takes the place of the base model's own, whose makers may "
            "have set `top_k`, `top_p`, a temperature or a `repetition_penalty`: with these the agent draws other "
            "replies than in its training and evaluation."
        )

    def _early(self) -> str:
        """What the card says of stop strings that end a reply elsewhere than they did in the training."""
        if not self.stop:
            return ""
        return (
            "In the training a string ended a reply only once the reply had said something, a character that is not "
            "white, and never within a thought that was still open. transformers and vLLM end a reply at the first "
            "one, wherever it is: if replies come back empty, or cut within a thought, leave the strings out and cut "
            "the text yourself. "
        )
