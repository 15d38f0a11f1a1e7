"""Short trainings of a tiny random model, as a user starts them: what moves, by how much, and what is written."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import training_support
from training_support import GRADIENT, Initial, Letters, Trained, make_trainer, steps_of, train_tiny, trained, vectors
from transformers import TrainerCallback

from llm_sra.trainer.parse import ConfigError

SUPPORT = training_support.__file__
HEROES = ("left", "right")
ADVERSARIES = ("adversary-of-left", "adversary-of-right")


class Counts(TrainerCallback):
    """Keeps how many updates the optimizer made of each of its groups, one for each adapter."""

    def __init__(self) -> None:
        self.updates: list[set[int]] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = kwargs["optimizer"]
        self.updates = [
            {int(optimizer.state[parameter]["step"]) for parameter in group["params"]}
            for group in optimizer.param_groups
        ]


@pytest.fixture(scope="module")
def srpo(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("runs") / "srpo", log_episodes=-1)


def test_every_policy_is_trained(srpo: Trained) -> None:
    _, final, moved = srpo
    assert set(final) == {*HEROES, *ADVERSARIES}
    for name, change in moved.items():
        assert change.norm() > 0.01, name
    assert (final["adversary-of-left"] - final["right"]).norm() > 0.01


def test_the_same_seed_gives_the_same_run_and_another_seed_another(srpo: Trained, tmp_path: Path) -> None:
    run, final, _ = srpo
    torch.manual_seed(99)  # no global generator has a say
    again = train_tiny(tmp_path / "again", log_episodes=-1)
    assert {
        name: torch.equal(final[name], vector) for name, vector in vectors(again.adapters).items()
    } == dict.fromkeys(final, True)
    for episodes in (run.path / "episodes").iterdir():
        assert (again.path / "episodes" / episodes.name).read_text() == episodes.read_text()
    other = vectors(train_tiny(tmp_path / "other", seed=1).adapters)
    assert not any(torch.equal(final[name], other[name]) for name in final)


def test_heroes_start_alike_in_all_arms_and_adversaries_as_copies_of_their_partners(tmp_path: Path) -> None:
    started = {}
    for arm, seed in (("srpo", 0), ("ippo", 0), ("srpo", 1)):
        initial = Initial()
        train_tiny(tmp_path / f"{arm}-{seed}", callbacks=[initial], arm=arm, seed=seed, max_steps=1)
        started[arm, seed] = initial.vectors
    assert set(started["ippo", 0]) == set(HEROES)
    for hero in HEROES:
        assert torch.equal(started["ippo", 0][hero], started["srpo", 0][hero])
        assert not torch.equal(started["srpo", 1][hero], started["srpo", 0][hero])
    assert not torch.equal(started["srpo", 0]["left"], started["srpo", 0]["right"])
    assert torch.equal(started["srpo", 0]["adversary-of-left"], started["srpo", 0]["right"])
    assert torch.equal(started["srpo", 0]["adversary-of-right"], started["srpo", 0]["left"])


def test_tau_zero_is_ippo_bit_for_bit(srpo: Trained, tmp_path: Path) -> None:
    # Also where the two are told different things of the adversaries that neither has.
    ippo = train_tiny(tmp_path / "ippo", arm="ippo", log_episodes=-1)
    zero = train_tiny(tmp_path / "zero", arm="srpo", tau=0, adversary_updates=3, adversary_learning_rate=1.0)
    one, other = vectors(ippo.adapters), vectors(zero.adapters)
    assert set(one) == set(other) == set(HEROES)
    assert all(torch.equal(one[name], other[name]) for name in HEROES)
    assert not torch.equal(one["left"], srpo[1]["left"])


def test_shared_policies_are_one_hero_and_one_adversary(tmp_path: Path) -> None:
    run, _, moved = trained(tmp_path / "run", sharing="shared")
    assert run.heroes == {"left": "hero", "right": "hero"}
    assert set(moved) == {"hero", "adversary"}
    assert min(change.norm().item() for change in moved.values()) > 0.01
    (first, _) = steps_of(run)
    assert {key.split("/")[2] for key in first if key.startswith("play/left/")} == {"hero", "adversary"}


def test_what_saves_memory_changes_nothing(tmp_path: Path) -> None:
    _, _, plain = trained(tmp_path / "plain", **GRADIENT)
    _, _, small = trained(tmp_path / "small", **GRADIENT, gradient_checkpointing=True, rollout_batch_size=2)
    for name, change in plain.items():
        assert (small[name] - change).norm() < 1e-4 * change.norm()


def test_the_adversarys_own_learning_rate_is_its_own(tmp_path: Path) -> None:
    flags = {**GRADIENT, "learning_rate": 0.5}
    _, _, both = trained(tmp_path / "both", **flags)
    _, _, still = trained(tmp_path / "still", **flags, adversary_learning_rate=0.0)
    _, _, fast = trained(tmp_path / "fast", **flags, adversary_learning_rate=2.0)
    for name in HEROES:
        assert torch.equal(still[name], both[name])
        assert torch.equal(fast[name], both[name])
    for name in ADVERSARIES:
        assert still[name].abs().max() == 0
        # Plain gradient descent: 2 / 0.5 times as far.
        assert torch.allclose(fast[name], 4 * both[name], rtol=1e-3, atol=1e-6)
        assert both[name].norm() > 1e-3


def test_number_of_updates_of_heroes_and_adversaries(tmp_path: Path) -> None:
    counts = Counts()
    train_tiny(tmp_path / "run", callbacks=[counts], num_iterations=2, adversary_updates=3, max_steps=2)
    # 2 steps x 2 iterations for a hero; x 3 for an adversary.
    assert counts.updates == [{4}, {4}, {12}, {12}]


def test_later_iterations_compare_with_the_policy_before_the_first(tmp_path: Path) -> None:
    once = steps_of(train_tiny(tmp_path / "once", max_steps=1, learning_rate=0.3))
    often = steps_of(train_tiny(tmp_path / "often", max_steps=1, learning_rate=0.3, num_iterations=3))
    for policy in (*HEROES, *ADVERSARIES):
        assert once[0][f"policy/{policy}/clip_fraction"] == 0.0
        assert often[0][f"policy/{policy}/clip_fraction"] > 0.01


def test_clipping_limits_the_norm_of_each_adapter(tmp_path: Path) -> None:
    _, _, free = trained(tmp_path / "free", **GRADIENT)
    run, _, clipped = trained(tmp_path / "clipped", **{**GRADIENT, "max_grad_norm": 0.05})
    for name, change in free.items():
        assert change.norm() > 0.1
        assert clipped[name].norm().item() == pytest.approx(0.05, rel=1e-3)
        assert torch.allclose(clipped[name] / 0.05, change / change.norm(), atol=1e-4)
        assert steps_of(run)[0][f"policy/{name}/grad_norm"] == pytest.approx(change.norm().item(), rel=1e-3)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_used(tmp_path: Path) -> None:
    initial = Initial()

    class Last(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.model = kwargs["model"]

    last = Last()
    with pytest.raises(FloatingPointError, match=r"step 0: the gradient of adapter 'right' is nan") as caught:
        train_tiny(tmp_path / "run", callbacks=[initial, last], task=f"{SUPPORT}:Huge", arm="ippo")
    assert "the advantages of 12 of its 12 rows are not finite. No weights were updated" in str(caught.value)
    assert str(caught.value).endswith("Scale down what the task pays. There is no checkpoint yet: start again")
    now = Initial()
    now.on_train_begin(None, None, None, model=last.model)
    assert all(torch.equal(now.vectors[name], initial.vectors[name]) for name in HEROES)


def test_the_reference_divergence_is_measured_from_the_base(tmp_path: Path) -> None:
    first, second = steps_of(train_tiny(tmp_path / "run", beta=0.1, arm="ippo"))
    for hero in HEROES:
        assert first[f"policy/{hero}/kl_to_base"] == pytest.approx(0, abs=1e-6)  # fresh adapters change nothing
        assert second[f"policy/{hero}/kl_to_base"] > 1e-4
    assert "beta: 0.1" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_other_direction_of_the_tether_trains_otherwise(srpo: Trained, tmp_path: Path) -> None:
    run, final, _ = trained(tmp_path / "run", kl_direction="partner_adversary", tau=0.1)
    assert not torch.equal(final["adversary-of-left"], srpo[1]["adversary-of-left"])
    assert "policy/adversary-of-left/kl_to_partner" in steps_of(run)[1]


def test_replies_that_were_all_cut_and_masked_train_nothing(tmp_path: Path) -> None:
    task_args = {"reply_tokens": 1}
    run, _, moved = trained(
        tmp_path / "run", mask_truncated_completions=True, task_args=task_args, max_steps=1, loss_type="grpo"
    )
    (line,) = steps_of(run)
    assert line["replies_cut"] == 1
    assert line["play/left/left/tokens"] == 2  # the option has arrived: two turns of one token
    assert all(change.abs().max() == 0 for change in moved.values())


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_seat_that_was_never_asked_does_no_harm(algorithm: str, tmp_path: Path) -> None:
    run, _, moved = trained(tmp_path / "run", task_args={"turns": 1}, arm="ippo", algorithm=algorithm, max_steps=1)
    (line,) = steps_of(run)
    assert line["play/right/right/tokens"] == 0
    assert moved["left"].abs().max() > 0 and moved["right"].abs().max() == 0


def test_without_steps_an_epoch_is_a_pass_over_the_problems(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", max_steps=-1, num_train_epochs=3, problems_per_step=2, arm="ippo")
    # 4 problems, 2 a step, 3 times.
    assert [line["step"] for line in steps_of(run)] == [1, 2, 3, 4, 5, 6]


def test_more_problems_a_step_than_there_are_give_different_episodes(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", max_steps=1, problems_per_step=8, num_generations=2, arm="ippo", log_episodes=-1)
    episodes = [json.loads(line) for line in (run.path / "episodes" / "step-000001.jsonl").read_text().splitlines()]
    said = Counter((e["problem"], "|".join(turn["text"] for turn in e["turns"])) for e in episodes)
    assert len(episodes) == 16
    assert max(said.values()) == 1


def test_ratios_that_are_cut_below_one_are_refused_for_cispo(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epsilon_high must be 1 or more"):
        train_tiny(tmp_path / "run", loss_type="cispo")


def test_a_trainer_that_is_made_by_hand_takes_the_same_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", Letters(), max_steps=1)
    before = {name: [p.detach().clone() for p in trainer.bases.parameters(name)] for name in trainer.arm.adapters}
    trainer.train()
    for name in trainer.arm.adapters:
        assert any(not torch.equal(a, b) for a, b in zip(before[name], trainer.bases.parameters(name), strict=True))
    assert trainer.state.global_step == 1
