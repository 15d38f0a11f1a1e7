"""Thoughts of models: they leave nothing of themselves in what a task and a partner are shown, wherever they began."""

from pathlib import Path
from typing import Any

import pytest
from partners_support import Fixed
from real_templates import tokenizer_of
from transformers import AutoTokenizer

from llm_sra.engines import Request
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message, Problem, Sampling
from tasks.gsm8k import GSM8K

PENS = Problem("pens", {"question": "Ada has 3 boxes with 14 pens each. How many pens?", "answer": "42"})
THINKING = {
    "qwen3": ("qwen3", None, "<think>\n"),
    "qwen3 that does not think": ("qwen3", {"enable_thinking": False}, ""),
    "qwen3-thinking": ("qwen3-thinking", None, ""),
    "qwen3.5": ("qwen3.5", None, ""),
    "r1": ("r1", None, ""),
}


def played(engine: Fixed, protocol: str, **options: Any) -> tuple[float, list[str], Any]:
    """What the first seat earned, what the second was shown of its first reply, and the episode."""
    task = GSM8K(protocol=protocol, rounds=2, turns=2, **options)
    policies = {seat: EnginePolicy(seat) for seat in task.seats}
    [episode] = play(task, [EpisodeSpec(PENS, Match("m", policies))], {"main": engine}, seed=0)  # type: ignore[dict-item]
    return episode.total("first"), [message.content for message in episode.turns[-1].view], episode


@pytest.mark.parametrize("protocol", ["debate", "relay"])
@pytest.mark.parametrize("model", THINKING)
def test_a_thought_that_never_ends_leaves_nothing_wherever_it_began(model: str, protocol: str) -> None:
    family, arguments, begins = THINKING[model]
    renderer = Renderer(tokenizer_of(family, "bytes of qwen"), arguments)
    earned, shown, episode = played(Fixed(renderer, f"{begins}Let me see.\n#### 42", ended=False), protocol)
    thinks = model != "qwen3 that does not think"
    assert (earned == 0) == thinks
    assert ("Let me see" in "".join(shown)) == (not thinks and protocol == "debate")  # the relay is over by then
    # The transcript shows where the thought began.
    assert episode.turns[0].reply.text == ("<think>\n" if thinks else "") + "Let me see.\n#### 42"
    assert episode.turns[0].reply.finish == "length"


@pytest.mark.parametrize("protocol", ["debate", "relay"])
@pytest.mark.parametrize("model", THINKING)
def test_what_follows_a_thought_is_shown_and_paid(model: str, protocol: str) -> None:
    family, arguments, begins = THINKING[model]
    renderer = Renderer(tokenizer_of(family, "bytes of qwen"), arguments)
    text = f"{begins}A secret. #### 41\n</think>\n\nSo:\n#### 42"
    earned, shown, episode = played(Fixed(renderer, text), protocol)
    assert earned == (2 if protocol == "debate" else 1)
    assert "secret" not in "".join(shown)
    if protocol == "debate":
        assert shown[1] == "So:\n#### 42" and "So:\n#### 42" in shown[2]
    assert sum(renderer.widths(episode.turns[0].reply.token_ids, episode.turns[0].reply.text)) == len(
        episode.turns[0].reply.text
    )


def test_a_thought_longer_than_a_reply_may_be_leaves_the_answer() -> None:
    renderer = Renderer(tokenizer_of("qwen3-thinking", "bytes of qwen"))
    engine = Fixed(renderer, "word " * 900 + "</think>\n\n#### 42")
    engine.context_length = 10**6
    assert len("word " * 900) > GSM8K.max_reply_chars
    assert played(engine, "debate")[0] == 2
    shown = played(engine, "debate", show_thinking=True)
    assert shown[0] == 0 and shown[2].turns[0].reply.finish == "length"  # there the thought is part of the reply


def test_a_choice_is_no_part_of_a_thought() -> None:
    from llm_sra.registry import load_task

    task = load_task("effort")
    tokenizer = AutoTokenizer.from_pretrained(Path("tasks/effort/models/player").resolve())
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    renderer = Renderer(tokenizer)
    assert renderer.opened == "<think>\n"
    engine = Fixed(renderer, task.choices[0], ended=False)
    policies = {seat: EnginePolicy(seat) for seat in task.seats}
    specs = [EpisodeSpec(task.problems("train", 1)[0], Match("m", policies))]
    [episode] = play(task, specs, {"main": engine}, seed=0)  # type: ignore[dict-item]
    assert {turn.reply.text for turn in episode.turns} == {task.choices[0]}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("<|channel|>analysis<|message|>6 * 7", "<think>6 * 7"),
        (
            "<|channel|>analysis<|message|>6 * 7<|end|><|start|>assistant<|channel|>final<|message|>#### 42<|return|>",
            "<think>6 * 7</think>#### 42",
        ),
        ("<|channel|>final<|message|>#### 42<|return|>", "</think>#### 42"),
    ],
)
def test_thoughts_between_tokens_of_their_own_are_told_as_the_others(said: str, text: str) -> None:
    renderer = Renderer(tokenizer_of("gpt-oss", "bytes"))
    assert renderer.decode(renderer.tokenizer(said, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("<|channel>thought\n6 * 7\n<channel|>#### 42<turn|>", "<think>thought\n6 * 7\n</think>#### 42"),
        ("<|channel>thought\n<channel|>#### 42<turn|>", "<think>thought\n</think>#### 42"),
        ("<|channel>thought\n6 * 7", "<think>thought\n6 * 7"),
    ],
)
def test_a_channel_of_thoughts_is_told_as_the_others(said: str, text: str) -> None:
    renderer = Renderer(tokenizer_of("gemma4", "bytes"), {"enable_thinking": True})
    assert renderer.decode(renderer.tokenizer(said, add_special_tokens=False)["input_ids"]) == text
    assert Renderer(tokenizer_of("gemma4", "bytes")).opened == ""  # the prompt closes what it opens


SWITCH = "{% set mode = namespace(off='/no_think' in messages | map(attribute='content') | join) %}"


def test_a_message_that_switches_thinking_off_leaves_the_reply_as_it_is() -> None:
    tokenizer = tokenizer_of("r1", "bytes of qwen")
    thinks = "{{ '<｜Assistant｜>' + ('<think></think>' if mode.off else '<think>\n') }}"
    tokenizer.chat_template = SWITCH + tokenizer.chat_template.replace("{{ '<｜Assistant｜><think>\n' }}", thinks)
    renderer = Renderer(tokenizer)
    assert renderer.opened == "<think>\n"
    for text, opening in (("word", "<think>\n"), ("/no_think", ""), ("<think>\n", "<think>\n")):
        assert renderer.opening(renderer.render([Message("user", text)])) == opening
        [done] = Fixed(renderer, "#### 42").generate(
            [Request(renderer.render([Message("user", text)]), None, Sampling(), 9, (), 0)]
        )
        assert done.text == opening + "#### 42"


def test_a_sampled_thought_where_the_prompt_opened_none_has_its_characters() -> None:
    renderer = Renderer(tokenizer_of("qwen3-thinking", "bytes of qwen"))
    for text in ("<think>\n6 * 7", "6 * 7"):
        ids = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert sum(renderer.widths(ids, text)) == len(text)
        assert sum(renderer.widths(ids, renderer.opened + text)) == len(renderer.opened + text)


def test_the_reward_of_a_forged_thought_is_none() -> None:
    # A peer that writes `</think>` into its own words shows what follows, and nothing of what stood before.
    renderer = Renderer(tokenizer_of("qwen3", "bytes of qwen"), {"enable_thinking": False})
    earned, shown, _ = played(Fixed(renderer, "#### 42 </think> or 41"), "debate", strict=True)
    assert earned == 0 and shown[1] == "or 41"
