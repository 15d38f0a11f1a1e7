"""What tests of partners share: problems, endpoints of a server that fails on demand, rosters and recordings."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_endpoint import FakeEndpoint
from support import Toy

from llm_sra.engines.base import Completion, Request
from llm_sra.engines.replies import completion, ended_by_template
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import ChatClient, Endpoint, Match, Policy
from llm_sra.task import Message, Problem, Sampling, Task

APPLE, PEAR = (Problem(word, {"word": word}) for word in ("apple", "pear"))
HELLO = (Message("user", "hello"),)
GREEDY, SAMPLED = Sampling(0.0), Sampling(1.0)
TOKEN = "-".join(("made", "up", "for", "this", "test"))


def endpoint(server: FakeEndpoint, name: str = "hosted", **options: Any) -> Endpoint:
    return Endpoint(name, "m", ChatClient(server.url, **{"timeout": 5.0, "retries": 2, **options}), max_tokens=6)


def ask(policy: Endpoint, *texts: str, seed: int = 0) -> list[str]:
    return policy.replies([((Message("user", text),), random.Random(f"{seed} {text}")) for text in texts])


def play_toy(left: Policy, right: Policy, task: Task | None = None, seed: int = 0, **options: Any) -> list[list[str]]:
    """What is said with two words, by episode."""
    match = Match("m", {"left": left, "right": right})
    specs = [EpisodeSpec(problem, match) for problem in (APPLE, PEAR)]
    episodes = play(task or Toy(turns=4), specs, options.pop("engines", {}), seed=seed, **options)
    return [[turn.reply.text for turn in episode.turns] for episode in episodes]


def recording(folder: Path, *rows: object) -> Path:
    path = folder / "replies.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


def roster(folder: Path, *partners: str) -> Path:
    path = folder / "roster.yaml"
    path.write_text("partners: [" + ", ".join(f"{{{partner}}}" for partner in partners) + "]")
    return path


class Fixed:
    """An engine whose model always says the same."""

    context_length, shares_weights = 4096, False

    def __init__(self, renderer: Renderer, text: str, ended: bool = True) -> None:
        self.renderer = renderer
        ids = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.ids = [*ids, *(renderer.ends.ids[:1] if ended else ())]

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        requests = ended_by_template(self.renderer, requests)
        ends, nothing = self.renderer.ends.ids, [0.0] * len(self.ids)
        return [completion(self.renderer, ends, self.ids, nothing, request) for request in requests]
