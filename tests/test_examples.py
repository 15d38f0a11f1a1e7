"""Examples run as programs, and `srpo_loop.py` computes what the trainer does."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import ROOT, make_engine, make_run, scramble
from training_support import advantage_of, make_trainer, roll

from llm_sra.evaluation.runner import evaluate
from llm_sra.partners.rosters import read_roster
from tasks.worksheet import Worksheet

EXAMPLES = ROOT / "examples"
PUPIL = ROOT / "tasks/worksheet/models/pupil"
SEATS = ("first", "second")
ADVERSARIES = ("adversary-of-first", "adversary-of-second")
GROUP = 4
RATE, ADVERSARY_RATE = 1.0, 2.0  # so that probabilities move beyond the clipping range in one update
# Plain gradient steps, each adapter's norm clipped: the weights move by the sum of both updates' gradients.
RECIPE: dict[str, Any] = {
    "arm": "srpo", "tau": 10, "entropy_coef": 0.01, "adversary_entropy_coef": 0.05, "loss_type": "dapo",
    "num_iterations": 2, "max_grad_norm": 1.0, "problems_per_step": 4, "num_generations": GROUP,
    "max_completion_length": 12, "max_steps": 1, "optim": "sgd", "learning_rate": RATE,
    "adversary_learning_rate": ADVERSARY_RATE, "per_device_train_batch_size": 7,
}  # fmt: skip


def module(name: str) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


srpo = module("srpo_loop")


def run(name: str, *flags: str) -> str:
    """What an example prints as a program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / name), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Library:
    """What the trainer made of one step, and the weights that it started from.

    Attributes:
        model: Its PEFT model, with the weights of before the step again.
        episodes: As the example has them, by match.
        advantages: By adapter and token, in the order in which the tokens were said.
        nats: By adversary, its divergence of each of its episodes.
        losses: By adapter, of the last update.
        moved: By adapter, its weights after the step - before it, in one vector.
    """

    model: Any
    episodes: dict[str, list[Any]]
    advantages: dict[str, torch.Tensor]
    nats: dict[str, list[float]]
    losses: dict[str, float]
    moved: dict[str, torch.Tensor]


def train_one_step(out: Path) -> Library:
    """The trainer's step; all that this file knows of the trainer's inside stands here."""
    engine = make_engine(PUPIL, (*SEATS, *ADVERSARIES))
    bank = engine.bank
    for number, name in enumerate(bank.names):
        scramble(bank, name, seed=number)
        with torch.no_grad():  # near to the base model, so that sheets are solved now and then
            for weight in bank.parameters(name):
                weight.mul_(0.5)
        bank.touch(name)
    trainer = make_trainer(out, Worksheet(), engine, **RECIPE)
    before = weights_of(bank.model)
    rollout = roll(trainer)
    advantages: dict[str, list[float]] = {}
    nats: dict[str, list[float]] = {}
    for sample in rollout.samples:
        advantages.setdefault(sample.adapter, []).extend([advantage_of(sample)] * sample.row.own_tokens)
    for (_, adversary), value in rollout.tether_nats().items():
        nats.setdefault(adversary, []).append(value)
    episodes: dict[str, list[Any]] = {}
    for episode in rollout.episodes:
        episodes.setdefault(episode.match, []).append(as_example(episode))
    trainer.train()  # plays the same episodes: seeds are those of step 0
    (numbers,) = (entry for entry in trainer.state.log_history if "policy/first/loss" in entry)
    after = weights_of(bank.model)
    with torch.no_grad():
        for name in bank.names:
            torch.nn.utils.vector_to_parameters(before[name], bank.parameters(name))
    return Library(
        bank.model,
        episodes,
        {adapter: torch.tensor(values) for adapter, values in advantages.items()},
        nats,
        {name: numbers[f"policy/{name}/loss"] for name in bank.names},
        {name: after[name] - before[name] for name in bank.names},
    )


def as_example(episode: Any) -> Any:
    """An episode of the library in the example's form."""
    turns = [srpo.Turn(t.seat, t.reply.text, list(t.prompt_ids), list(t.reply.token_ids)) for t in episode.turns]
    return srpo.Episode(episode.problem.id, turns, {seat: episode.total(seat) for seat in SEATS}, episode.outcome)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Each adapter's weights in one vector."""
    return {
        name: torch.cat([p.detach().clone().flatten() for key, p in model.named_parameters() if f".{name}." in key])
        for name in (*SEATS, *ADVERSARIES)
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return train_one_step(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def batches(library: Library) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for match in srpo.MATCHES["srpo"]:
        (adversary,) = set(match.values()) - set(SEATS)
        found |= srpo.credit(library.model, match, library.episodes[adversary], GROUP)
    return found


def test_the_constants_are_those_of_the_recipe() -> None:
    recipe = yaml.safe_load((ROOT / "recipes/worksheet/srpo.yaml").read_text())
    same = {
        "tau": srpo.TAU, "entropy_coef": srpo.EPS, "adversary_entropy_coef": srpo.ADVERSARY_EPS,
        "problems_per_step": srpo.PROBLEMS, "num_generations": srpo.GROUP, "num_iterations": srpo.UPDATES,
        "max_completion_length": srpo.MAX_TOKENS, "learning_rate": srpo.LEARNING_RATE,
        "adversary_learning_rate": srpo.ADVERSARY_LEARNING_RATE, "max_grad_norm": srpo.MAX_GRAD_NORM,
        "lora_r": srpo.LORA.r, "lora_alpha": srpo.LORA.lora_alpha,
    }  # fmt: skip
    assert {key: recipe[key] for key in same} == same


def test_advantages_of_heroes_and_adversaries_equal_the_trainers(library: Library, batches: Mapping[str, Any]) -> None:
    assert set(batches) == set(library.advantages) == {*SEATS, *ADVERSARIES}
    for adapter, batch in batches.items():
        assert batch.advantages.std() > 0.01, adapter  # there is something to compare
        torch.testing.assert_close(batch.advantages, library.advantages[adapter], atol=1e-6, rtol=0)


def test_the_tethers_divergence_equals_the_trainers(library: Library, batches: Mapping[str, Any]) -> None:
    for adversary in ADVERSARIES:
        nats = torch.tensor(library.nats[adversary])
        assert batches[adversary].kl == pytest.approx(nats.mean().item(), abs=1e-4)
        assert nats.std() > 0.1
    assert [batches[seat].kl for seat in SEATS] == [0, 0]


def test_losses_and_gradients_equal_the_trainers(library: Library, batches: Mapping[str, Any]) -> None:
    before = weights_of(library.model)
    groups = [
        {"params": [p for key, p in library.model.named_parameters() if f".{name}." in key], "lr": rate}
        for name, rate in {**dict.fromkeys(SEATS, RATE), **dict.fromkeys(ADVERSARIES, ADVERSARY_RATE)}.items()
    ]
    losses = srpo.update(library.model, torch.optim.SGD(groups), batches)
    after = weights_of(library.model)
    ratios = {}
    for adapter, batch in batches.items():
        ratios[adapter] = (srpo.score(library.model, adapter, batch.turns)[0].detach() - batch.old).exp()
    for group, name in zip(groups, (*SEATS, *ADVERSARIES), strict=True):  # leave the model as it was
        torch.nn.utils.vector_to_parameters(before[name], group["params"])

    assert any(((ratio - 1).abs() > srpo.CLIP).any() for ratio in ratios.values())  # clipping had a say
    for adapter, loss in losses.items():
        assert loss == pytest.approx(library.losses[adapter], abs=1e-5)
        moved = after[adapter] - before[adapter]
        assert moved.norm() > 1e-3, adapter
        torch.testing.assert_close(moved, library.moved[adapter], atol=1e-5, rtol=1e-3)


def test_a_loss_is_the_clipped_one_and_the_entropy_bonus() -> None:
    # Ratios 1.5 and 0.5: the first is cut at 1.2 for a good token, the second kept for a good one, cut at 0.8 for a bad
    # one. Of (1.2 * 1, 0.5 * 1, 0.8 * -1): mean 0.3; entropies (1, 2, 3) at 0.1: mean 0.2.
    ratios = torch.tensor([1.5, 0.5, 0.5])
    loss = srpo.loss(ratios.log(), torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), 0.1)
    assert loss.item() == pytest.approx(-0.5)


def test_returns_and_advantages_are_in_units_of_the_reward() -> None:
    episodes = [srpo.Episode("1+1", [], {"first": value, "second": 9.0}, None) for value in (1.0, 0.0, 0.8, 0.6)]
    kl = torch.tensor([0.0, 5.0, 10.0, 0.0])
    hero = srpo.returns(episodes, "first", torch.zeros(4), tau=10.0)
    adversary = srpo.returns(episodes, "adversary-of-first", kl, tau=10.0)
    assert hero.tolist() == pytest.approx([1.0, 0.0, 0.8, 0.6])
    assert adversary.tolist() == pytest.approx([-1.0, -0.5, -1.8, -0.6])  # -R - KL / 10
    assert srpo.advantages(hero, group=2).tolist() == pytest.approx([0.5, -0.5, 0.1, -0.1])
    assert srpo.advantages(adversary, group=2).tolist() == pytest.approx([-0.25, 0.25, -0.6, 0.6])


def test_what_a_partner_says_reaches_the_model_and_prompts_are_the_engines(library: Library) -> None:
    """The example's own play: prompts of the library's renderer, and returns by the rules."""
    problems = Worksheet().problems("dev", 3)
    torch.manual_seed(0)
    episodes = srpo.rollout(library.model, {"first": "first", "second": "second"}, problems)
    renderer = make_engine(PUPIL, SEATS).renderer
    for problem, episode in zip(problems, episodes, strict=True):
        state, rng = Worksheet().start(problem, None), None  # type: ignore[arg-type]
        paid = dict.fromkeys(SEATS, 0.0)
        for turn in episode.turns:
            view = Worksheet().view(state, turn.seat)
            assert turn.prompt == list(renderer.render(view))
            assert all(line in renderer.tokenizer.decode(turn.prompt) for line in state.lines)
            state, rewards = Worksheet().step(state, {turn.seat: turn.text}, rng)  # type: ignore[arg-type]
            paid = {seat: value + rewards[seat].total for seat, value in paid.items()}
        assert episode.returns == pytest.approx(paid)
        assert len(episode.turns) == 6 and all(1 <= len(turn.reply) <= 12 for turn in episode.turns)


def imports_of(path: Path) -> set[str]:
    """What a file imports: of other projects the package, of ours the whole module."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    ours = {name for name in modules if name.startswith(("llm_sra", "tasks", "recipes", "eval"))}
    return ours | {name.split(".")[0] for name in modules - ours}


def test_the_whole_method_is_one_short_file_on_torch_transformers_and_peft() -> None:
    path = EXAMPLES / "srpo_loop.py"
    assert len(path.read_text().splitlines()) <= 250
    ours = {"llm_sra.task", "tasks", "tasks.worksheet"}
    assert imports_of(path) - sys.stdlib_module_names <= {"torch", "transformers", "peft", *ours}


def test_what_a_newcomer_copies_is_short() -> None:
    assert len((EXAMPLES / "own_partner.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("arm", ["srpo", "ippo"])
def test_the_loop_runs_as_a_program(arm: str) -> None:
    step, *table = run("srpo_loop.py", "--arm", arm, "--steps", "1").splitlines()
    nats = r"-?\d\.\d\d, -?\d\.\d\d" if arm == "srpo" else "-"
    partner = "adversary-of-second" if arm == "srpo" else "first"
    assert re.fullmatch(rf"step   1 \| solved 0\.\d\d \| kl {nats} \| [\d+]+ \| ({partner}: .*; second: .*)+", step)
    assert [line.split(" |")[0].strip() for line in table] == [
        "first with second",
        "first with lazy",
        "lazy with second",
    ]


def test_the_own_partner_plays_by_the_roster_that_names_it(tmp_path: Path) -> None:
    roster = EXAMPLES / "own_roster.yaml"
    assert [entry.name for entry in read_roster(roster)] == ["echo", "moody", "diligent", "forgetful"]
    records = evaluate(
        [make_run(tmp_path / "run", base=PUPIL)],
        roster,
        tmp_path / "out",
        problems=2,
        decodings=["greedy"],
        trust_scripts=True,
    )
    assert {record.partner for record in records} >= {"echo", "moody", "diligent", "forgetful"}
    echo = module("own_partner").Echo()
    assert echo.reply([{"role": "user", "content": "Q: 1+2+3\n1+2=3"}], None) == "1+2=3"
    assert echo.reply([{"role": "user", "content": "Q: 1+2+3"}], None) == "pass"
