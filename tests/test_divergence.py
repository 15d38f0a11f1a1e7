"""How far a partner is from the training partner: sums by hand, and real models against plain transformers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import Says, Toy, make_engine, make_run, qwen2_folder

from llm_sra import evaluate
from llm_sra.engines import EngineError
from llm_sra.engines import transformers as transformers_engine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.evaluation.divergence import TrainingPartners, comparable, divergences, training_partners
from llm_sra.evaluation.matches import cells, seated
from llm_sra.partners.loader import Team
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Perturbed, Policy, Scripted
from llm_sra.task import Episode, Outcome, Problem, Reply, Task, Turn

LEFT, RIGHT = EnginePolicy("left", adapter="left"), EnginePolicy("right", adapter="right")


class Known(TransformersEngine):
    """An engine whose model gives every token of every reply the same log-probability."""

    def __init__(self, each: float) -> None:
        self.each, self.asked = each, []
        self.renderer = SimpleNamespace(single_tokens=lambda words: ())

    def logprobs(self, said, adapter, choices=()) -> list[float]:
        self.asked.append((adapter, list(said)))
        return [self.each * len(reply) for _, reply in said]


class Chooses(Toy):
    """The toy task with two words to choose from."""

    choices = ("pass", "word")


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return make_engine(qwen2_folder())


def episode(*turns: tuple[str, tuple[float, ...]]) -> Episode:
    """Who said how many tokens, with which log-probabilities."""
    said = []
    for step, (seat, logprobs) in enumerate(turns):
        reply = Reply("x" * len(logprobs), tuple(range(len(logprobs))), logprobs)
        said.append(Turn(seat, seat, step, (), (7, 8), reply))
    return Episode(Problem("p", 1), "m", 0, {}, tuple(said), {}, Outcome(True))


def played(engine: TransformersEngine, partner: Policy, task: Task, problems: int = 4) -> list[Episode]:
    specs = [EpisodeSpec(p, Match("m", {"left": LEFT, "right": partner})) for p in task.problems("train", problems)]
    return play(task, specs, {"main": engine}, seed=3)


def direct(engine: TransformersEngine, turn: Turn, adapter: str, temperature: float, choices: Sequence[int]) -> float:
    """Log-probability of a reply by a plain forward pass of the PEFT model, one row and no padding."""
    engine.bank.model.set_adapter(adapter)
    with torch.no_grad():
        ids = torch.tensor([[*turn.prompt_ids, *turn.reply.token_ids]])
        logits = engine.bank.model(input_ids=ids).logits[0].double()
    found = 0.0
    for i, token in enumerate(turn.reply.token_ids):
        row = logits[len(turn.prompt_ids) - 1 + i] / temperature
        found += (row[token] - (row[list(choices)] if choices else row).logsumexp(0)).item()
    return found


def test_it_is_the_sum_over_all_that_the_partner_said_and_over_nothing_else() -> None:
    engine = Known(-0.75)
    talk = episode(("left", (-9.0,)), ("right", (-0.5, -0.25)), ("left", ()), ("right", (-1.0,)))
    silent = episode(("left", (-9.0,)), ("right", ()))
    # Right: (-0.5 - 0.25 + 1.5) + (-1 + 0.75) = 0.5; a partner that said nothing is no distance away.
    assert divergences(Toy(), [talk, silent, talk], [{"right": RIGHT}, {"right": RIGHT}, {}], {"main": engine}) == [
        {"right": 0.5},
        {"right": 0.0},
        {},
    ]
    assert engine.asked == [("right", [((7, 8), (0, 1)), ((7, 8), (0,))])]  # one batch


def test_its_mean_over_episodes_is_the_kl_divergence() -> None:
    # A partner that says A in 3 of 4 episodes and B in 1, the training partner each in half of them:
    # KL = 3/4 ln(3/4 : 1/2) + 1/4 ln(1/4 : 1/2) = 0.1308 nats. The other way round it would be 0.1438.
    said = [episode(("right", (math.log(3 / 4),)))] * 3 + [episode(("right", (math.log(1 / 4),)))]
    found = divergences(Toy(), said, [{"right": RIGHT}] * 4, {"main": Known(math.log(1 / 2))})
    assert sum(each["right"] for each in found) / 4 == pytest.approx(0.1308, abs=1e-4)
    assert found[3]["right"] == pytest.approx(-math.log(2))  # a single episode may be below 0


def test_a_partner_is_no_distance_from_itself(engine: TransformersEngine) -> None:
    episodes = played(engine, RIGHT, Toy())
    found = divergences(Toy(), episodes, [{"right": RIGHT}] * len(episodes), {"main": engine})
    assert [each["right"] for each in found] == pytest.approx([0.0] * 4, abs=1e-4)


@pytest.mark.parametrize(
    ("partner", "adapter", "temperature"),
    [
        (EnginePolicy("other", adapter="left"), "left", 1.0),
        (Perturbed("hot", RIGHT, "temperature", temperature=2.0), "right", 2.0),
    ],
    ids=["another adapter", "a higher temperature"],
)
@pytest.mark.parametrize("task", [Toy(), Chooses()], ids=["free words", "choices"])
def test_it_is_what_plain_transformers_compute(
    engine: TransformersEngine,
    monkeypatch: pytest.MonkeyPatch,
    partner: Policy,
    adapter: str,
    temperature: float,
    task: Task,
) -> None:
    monkeypatch.setattr(transformers_engine, "SCORED", 3)  # several batches, of prompts of many lengths
    episodes = played(engine, partner, task)
    choices = engine.renderer.single_tokens(task.choices)
    assert len(choices) == len(task.choices)
    expected = [
        sum(
            direct(engine, turn, adapter, temperature, choices) - direct(engine, turn, "right", 1.0, choices)
            for turn in one.turns_of("right")
        )
        for one in episodes
    ]
    found = divergences(task, episodes, [{"right": RIGHT}] * len(episodes), {"main": engine})
    assert [each["right"] for each in found] == pytest.approx(expected, abs=1e-3)
    assert min(map(abs, expected)) > 0.01  # they do differ


def test_only_partners_that_draw_tokens_from_the_same_model_compare() -> None:
    text: Policy = Scripted("says", Says("pass"))
    for policy, can in (
        (replace(RIGHT, adapter=None), True),
        (Perturbed("hot", RIGHT, "temperature", temperature=2.0), True),
        (EnginePolicy("foreign", engine="another", adapter="right"), False),
        (Perturbed("rests", RIGHT, "say", text="pass"), False),  # the words are not the model's
        (Perturbed("hot rest", Perturbed("r", RIGHT, "say", text="x"), "temperature", temperature=2.0), False),
        (text, False),
    ):
        assert comparable(policy, RIGHT) is can, policy.name


def test_greedy_play_and_self_play_are_not_compared_and_each_seat_is_compared_with_its_own_agent() -> None:
    team = Team("run", "ippo", {"left": "left", "right": "right"}, {"left": "main", "right": "main"})
    own = seated(team)
    partners: Mapping[str, Mapping[str, Policy]] = {
        "swapped": {"left": own["right"], "right": own["left"]},
        "says": dict.fromkeys(own, Scripted("says", Says("pass"))),
    }
    made = cells(Toy(), team, partners, ["greedy", "sampled"])
    found = [(cell, others) for cell in made if (others := training_partners(cell)) is not None]
    whom: dict[tuple[str, str], TrainingPartners] = {(cell.seat, cell.partner): others for cell, others in found}
    assert whom == {
        ("left", "swapped"): {"right": own["right"]},
        ("right", "swapped"): {"left": own["left"]},
        ("left", "says"): {},
        ("right", "says"): {},
    }
    assert len(found) == 4  # of 2 decodings, 2 seats, 3 partners


def test_an_engine_that_runs_elsewhere_is_refused() -> None:
    talk = episode(("right", (-1.0,)))
    with pytest.raises(EngineError, match="--engine transformers"):
        divergences(Toy(), [talk], [{"right": RIGHT}], {"main": SimpleNamespace()})


def test_an_evaluation_keeps_it_among_the_metrics_and_plays_the_same_episodes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", max_completion_length=4)
    roster = tmp_path / "roster.yaml"
    live = "kind: perturbed, how: temperature, of: {kind: live}"
    roster.write_text(
        "partners:\n  - {name: own, kind: live}\n  - {name: lazy, kind: scripted, policy: lazy}\n"
        f"  - {{name: hot, {live}, temperature: 3}}\n"
    )
    with pytest.raises(ValueError, match="engine transformers"):
        evaluate([run], roster, None, problems=2, engine="vllm", divergence=True)
    measured = evaluate([run], roster, tmp_path / "out", problems=2, divergence=True, disable_tqdm=True)
    again = evaluate([run], roster, tmp_path / "out", problems=2, divergence=True, disable_tqdm=True)  # from the store
    assert again == measured
    found = {
        (record.seat, record.partner): {k: v for k, v in record.metrics.items() if k.startswith("divergence/")}
        for record in measured
        if record.decoding == "sampled"
    }
    other = {"first": "second", "second": "first"}
    for seat in other:
        assert found[seat, "own"] == {f"divergence/{other[seat]}": pytest.approx(0.0, abs=1e-3)}
        assert found[seat, "hot"][f"divergence/{other[seat]}"] > 0.5
        assert found[seat, "lazy"] == found[seat, "self-play"] == {}
    assert not any(name.startswith("divergence/") for r in measured if r.decoding == "greedy" for name in r.metrics)
    plain = evaluate([run], roster, tmp_path / "plain", problems=2, disable_tqdm=True)
    rest = [
        replace(record, metrics={k: v for k, v in record.metrics.items() if not k.startswith("divergence/")})
        for record in measured
    ]
    assert rest == plain
