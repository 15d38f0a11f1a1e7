"""Rows that have ended leave a batch of the transformers engine: fewer are computed, and every reply stays the same."""

from dataclasses import replace
from typing import Any

import pytest
from support import Toy, make_bank, qwen2_folder

from llm_sra.engines import Request, transformers
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message, Problem, Sampling

STAY = 10**9
SAMPLED = Sampling()


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(make_bank(qwen2_folder()), Renderer(load_model(str(qwen2_folder()))[1]))


def requests(engine: TransformersEngine, count: int = 24, **changes: Any) -> list[Request]:
    prompts = [engine.renderer.render([Message("user", text)]) for text in ("apple pear plum", "1+2=3", "hm")]
    asked = [
        Request(prompts[seed % 3], ("left", "right", None)[seed % 3], SAMPLED, 24, ("e", "s", "t", "a"), seed)
        for seed in range(count)
    ]
    return [replace(one, **changes) for one in asked]


def test_replies_are_the_same_and_fewer_rows_are_computed(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    hook = engine.bank.base.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].size(0)), with_kwargs=True
    )
    computed, replies = {}, {}
    for least in (STAY, 4):
        monkeypatch.setattr(transformers, "LEAST_ROWS", least)
        engine.rest()
        rows.clear()
        replies[least] = engine.generate(requests(engine))
        computed[least] = rows[2:]  # the first two read the prompts
    hook.remove()
    assert len({len(one.token_ids) for one in replies[4]}) > 3  # they end at different places
    for one, other in zip(replies[STAY], replies[4], strict=True):
        assert (one.token_ids, one.text, one.finish) == (other.token_ids, other.text, other.finish)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    longer = sum(len(one.token_ids) > 1 for one in replies[4])  # first tokens are drawn from what reading gave
    assert set(computed[STAY]) == {longer} and 16 < longer < 24
    assert computed[4][0] == longer and computed[4] == sorted(computed[4], reverse=True) and computed[4][-1] < 12
    assert sum(computed[4]) < 0.8 * sum(computed[STAY])


@pytest.mark.parametrize("changes", [{"sampling": Sampling(0.0)}, {"sampling": Sampling(1.5, top_k=9)}, {"stop": ()}])
def test_greedy_cut_and_unstopped_replies_are_the_same_too(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    said = []
    for least in (STAY, 4):
        monkeypatch.setattr(transformers, "LEAST_ROWS", least)
        engine.rest()
        said.append([one.token_ids for one in engine.generate(requests(engine, **changes))])
    assert said[0] == said[1]


def test_later_turns_go_on_from_what_rows_that_left_had_read(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = {seat: EnginePolicy(seat, adapter=seat) for seat in Toy.seats}
    specs = [EpisodeSpec(Problem("apple", {"word": "apple"}), Match("m", seats), index) for index in range(16)]
    played = []
    for least in (STAY, 4):
        monkeypatch.setattr(transformers, "LEAST_ROWS", least)
        engine.rest()
        episodes = play(Toy(turns=6, together=True, stop=("e", "s")), specs, {"main": engine}, seed=0)
        played.append([[(t.prompt_ids, t.reply.token_ids) for t in episode.turns] for episode in episodes])
    assert played[0] == played[1]
