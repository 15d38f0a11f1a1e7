"""Partners whose replies are changed, repeated or drawn at another temperature."""

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from partners_support import APPLE, GREEDY, HELLO, SAMPLED, endpoint, play_toy
from support import Says, Toy, make_engine, qwen2_folder

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Perturbed, Policy, PolicyError, Scripted, decoded
from llm_sra.policies.perturbed import CHANGES, number
from llm_sra.task import Message

pytestmark = pytest.mark.usefixtures("quick")


SOLUTION = "He has 3 boxes. Each holds 14.\n3 * 14 = 42\n#### 42"


def changed(how: str, text: str, view: Sequence[Message] = HELLO) -> set[str]:
    return {CHANGES[how](text, view, random.Random(seed)) for seed in range(200)}


def test_a_reply_is_dropped() -> None:
    assert changed("drop", SOLUTION) == {""}


def test_a_reply_is_cut_anywhere_but_at_its_end() -> None:
    assert changed("cut", "abc") == {"", "a", "ab"}
    assert changed("cut", "") == {""}


def test_the_final_number_becomes_another_of_its_form() -> None:
    twisted = changed("number", SOLUTION)
    assert {text[:-2] for text in twisted} == {SOLUTION[:-2]}
    assert {text[-2:] for text in twisted} == {f"{tens}2" for tens in "1235 6789".replace(" ", "")} | {
        f"4{ones}" for ones in "013456789"
    }
    assert changed("number", "none here") == {"none here"}
    assert changed("number", "0") == set("123456789")
    prices = changed("number", "$1,234.50.")
    assert all(float(text[1:-1].replace(",", "")) != 1234.5 and text[2] == "," for text in prices) and len(prices) > 30
    assert number("9" * 100_000, HELLO, random.Random(0)) != "9" * 100_000


def test_a_reply_is_the_one_before_where_there_is_one() -> None:
    view = (Message("user", "q"), Message("assistant", "one"), Message("user", "p"), Message("assistant", "two"))
    assert changed("repeat", "three", view) == {"two"}
    assert changed("repeat", "three") == {"three"}


def test_sentences_and_lines_come_in_another_order_and_nothing_is_lost() -> None:
    shuffled = changed("shuffle", SOLUTION)
    assert SOLUTION not in shuffled and len(shuffled) == 23  # 4! orders less its own
    for piece in ("He has 3 boxes.", "Each holds 14.", "3 * 14 = 42", "#### 42"):
        assert all(piece in text and len(text) == len(SOLUTION) for text in shuffled)
    assert changed("shuffle", "one. two") == {"two one."}
    assert changed("shuffle", "same\nsame") == {"same\nsame"}
    assert changed("shuffle", "a.\n") == {"a.\n"}


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_of_any_text_is_quick_and_never_fails(how: str) -> None:
    start = time.monotonic()
    for text in ("", " ", "\n", "1", "." * 50_000, " " * 50_000, "1," * 25_000, "a.\n" * 10_000, ". " * 20_000):
        CHANGES[how](text, HELLO, random.Random(0))
    assert time.monotonic() - start < 5


def test_each_turn_has_a_coin_and_the_seed_decides() -> None:
    inner = Scripted("says", Says("word"))

    def dropped(probability: float, seed: int = 0) -> list[bool]:
        return [
            Perturbed("p", inner, "drop", probability, seed).perturb("x", HELLO, turn) == "" for turn in range(2000)
        ]

    assert 0.27 < sum(dropped(0.3)) / 2000 < 0.33
    assert dropped(0.3) == dropped(0.3) != dropped(0.3, seed=1)
    assert not any(dropped(0.0)) and all(dropped(1.0))


def test_a_perturbed_text_partner_plays_what_is_left_of_its_replies() -> None:
    says_it, quiet = Scripted("says", Says("it is 5")), Scripted("quiet", Says(""))
    assert play_toy(Perturbed("p", says_it, "drop"), quiet) == [["", "", "", ""]] * 2
    [said, _] = play_toy(Perturbed("p", says_it, "number"), quiet)
    assert said[0][:-1] == "it is " and said[0] != "it is 5" and said[2] != "it is 5"


def test_perturbations_are_laid_over_one_another() -> None:
    words = Scripted("says", Says("one. two 7"))
    both = Perturbed("both", Perturbed("inner", words, "shuffle"), "number")
    said = {text for texts in play_toy(both, Scripted("quiet", Says(""))) for text in texts[::2]}
    assert all(text.startswith("two ") and text.endswith(" one.") and "7" not in text for text in said)


def test_a_perturbed_engine_partner_is_no_sample_where_it_was_changed() -> None:
    engine = make_engine(qwen2_folder())
    agent = EnginePolicy("agent", adapter="left")
    task = Toy(turns=12)

    def episode(policy: Policy) -> Any:
        match = Match("m", {"left": policy, "right": Scripted("quiet", Says("hm"))})
        return play(task, [EpisodeSpec(APPLE, match)], {"main": engine}, seed=0)[0]

    plain, odd = episode(agent), episode(Perturbed("odd", agent, "drop", 0.5, seed=3))
    mine = odd.turns_of("left")
    assert {turn.policy for turn in mine} == {"odd"} and all(turn.prompt_ids for turn in mine)
    dropped = [turn.reply.text == "" for turn in mine]
    assert True in dropped and False in dropped
    assert [turn.reply.token_ids == turn.reply.logprobs == () for turn in mine] == dropped
    first = dropped.index(True)
    assert [t.reply for t in mine[:first]] == [t.reply for t in plain.turns_of("left")[:first]]  # a sample is kept
    assert all(len(turn.reply.token_ids) == len(turn.reply.logprobs) for turn in mine)


def test_a_repeated_reply_of_an_engine_partner_is_its_own() -> None:
    engine = make_engine(qwen2_folder())
    stuck = Perturbed("stuck", EnginePolicy("agent", adapter="left"), "repeat")
    said = play_toy(stuck, Scripted("quiet", Says("hm")), Toy(turns=6), engines={"main": engine})
    assert [len(set(texts[::2])) for texts in said] == [1, 1]
    assert said[0][0]


def test_the_temperature_is_raised_at_some_turns() -> None:
    class Engine:
        def __init__(self) -> None:
            self.inner = make_engine(qwen2_folder())
            self.renderer, self.context_length = self.inner.renderer, self.inner.context_length
            self.temperatures: list[float] = []

        def generate(self, requests: Any) -> Any:
            self.temperatures += [request.sampling.temperature for request in requests]
            return self.inner.generate(requests)

    engine = Engine()
    hot = Perturbed("hot", EnginePolicy("agent", adapter="left"), "temperature", 0.5, seed=1, temperature=1.5)
    play_toy(decoded(hot, GREEDY), Scripted("q", Says("hm")), Toy(turns=20), engines={"main": engine})
    assert set(engine.temperatures) == {0.0, 1.5} and len(engine.temperatures) == 20


def test_the_temperature_of_an_endpoint_is_raised_too_in_few_batches(server: FakeEndpoint) -> None:
    hot = Perturbed("hot", endpoint(server), "temperature", 0.5, temperature=1.5)
    play_toy(decoded(hot, SAMPLED), Scripted("q", Says("hm")), Toy(turns=20))
    assert {body["temperature"] for body in server.asked} == {1.0, 1.5}
    play_toy(decoded(Perturbed("dropped", hot, "drop"), GREEDY), Scripted("q", Says("hm")), seed=1)
    assert {body["temperature"] for body in server.asked} == {0.0, 1.0, 1.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "temperature", "temperature": 2.0}, r"'says' \(Scripted\) draws no tokens"),
        ({"how": "temperature"}, "`temperature` goes with how: temperature"),
        ({"how": "drop", "temperature": 2.0}, "`temperature` goes with how: temperature"),
        ({"how": "forget"}, "how must be one of drop, cut, number, repeat, shuffle, say, temperature"),
        ({"how": "drop", "probability": 1.5}, r"probability must lie in \[0, 1\]"),
    ],
)
def test_a_perturbation_that_there_is_not_is_refused(options: Any, message: str) -> None:
    inner = Scripted("says", Says("word"))
    for policy in (inner, Perturbed("inner", inner, "drop")):
        if "draws no" not in message or policy is inner:
            with pytest.raises(PolicyError, match=message):
                Perturbed("p", policy, **options)
    with pytest.raises(PolicyError, match="draws no tokens"):
        Perturbed("p", Perturbed("inner", inner, "drop"), "temperature", temperature=2.0)
