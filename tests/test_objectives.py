"""Objectives through the trainer, on a tiny random model: choices, critics, sampled partners, adversaries."""

import itertools
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from support import make_engine, qwen2_folder
from training_support import Letters, accumulate, make_trainer, roll, score, train_tiny, vectors

from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import RosterError
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.runs import read_metrics
from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.loss import Share, by_length, token_statistics
from llm_sra.trainer.parse import ConfigError
from llm_sra.trainer.rollout import Rollout, Sample

WORDS = ("a", "b", "c")
PPO = {"algorithm": "ppo", "value_clip": 0.2, "gae_lambda": 0.9}


class Chosen(Letters):
    """`Letters` in which a reply is one of three words."""

    choices = WORDS


def logged(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run / "metrics.jsonl") if "solve_rate" in line]


# -- choices ---------------------------------------------------------------------------------------------------------


def test_log_probabilities_and_entropies_are_those_of_the_choices_alone() -> None:
    logits, choices = torch.tensor([[[0.0, 9.0, 1.0, 1.0], [0.0, 9.0, 2.0, 0.0]]]), torch.tensor([2, 3])
    logprobs, entropies = token_statistics(logits[..., choices], torch.tensor([[2, 0]]), choices)
    # Two equal choices: log 1/2. Then logits 2 and 0; what was said was no choice, and counts as the first.
    assert logprobs[0].tolist() == pytest.approx([-0.693147, -0.126928], abs=1e-5)
    assert entropies[0].tolist() == pytest.approx([0.693147, 0.365334], abs=1e-5)


def test_replies_are_choices_and_the_trainer_gives_them_the_probabilities_that_they_were_drawn_with(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(tmp_path, Chosen(), tau=2.0, temperature=0.7)
    rollout = roll(trainer)
    turns = [turn for episode in rollout.episodes for turn in episode.turns]
    assert {turn.reply.text for turn in turns} == set(WORDS)
    assert all(turn.reply.finish == "stop" and len(turn.reply.token_ids) == 1 for turn in turns)
    for sample in rollout.samples:
        own = torch.tensor(sample.row.own).bool()
        scored = trainer.scorer.logprobs([sample], sample.adapter)[0, : len(own)][own]
        assert torch.allclose(scored, torch.tensor(sample.row.logprobs)[own], atol=1e-5)
    assert trainer.bases.first.forward.latest is not None and trainer.bases.first.forward.latest.missing is not None
    trainer.create_optimizer()
    losses = trainer._update(trainer.bases.first.bank.model, rollout)
    assert all(abs(loss) < 10 for loss in losses.values())
    means = trainer.means.reduce()
    assert all(0 < value <= 1.0987 for name, value in means.items() if name.endswith("/entropy"))  # at most log 3


def test_a_choice_that_is_several_tokens_is_refused() -> None:
    class Wordy(Letters):
        choices = ("a", "zebra!")

    with pytest.raises(ValueError, match=r"one token each.*'zebra!'"):
        make_trainer(qwen2_folder().parent / "none", Wordy())


# -- the live partner's seed -----------------------------------------------------------------------------------------


def test_a_partner_with_luck_says_the_same_in_every_episode_of_a_problem_and_another_luck_something_else() -> None:
    task, engine = Letters(), make_engine(qwen2_folder())
    problem = task.problems("train")[0]

    def said(fixed_seed: int | None) -> list[str]:
        partner = EnginePolicy("partner", adapter="right", fixed_seed=fixed_seed)
        match = Match("m", {"left": partner, "right": EnginePolicy("right", adapter="right")})
        specs = [EpisodeSpec(problem, match, index) for index in range(6)]
        return [episode.turns_of("left")[0].reply.text for episode in play(task, specs, {"main": engine}, seed=0)]

    assert len(set(said(None))) > 1
    assert len(set(said(1))) == len(set(said(2))) == 1
    assert len({said(fixed_seed)[0] for fixed_seed in range(1, 7)}) > 1


# -- estimators ------------------------------------------------------------------------------------------------------

ESTIMATORS: dict[str, dict[str, Any]] = {
    "dapo": {"loss_type": "dapo"},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.05},
    "gspo": {"loss_type": "dapo", "importance_sampling_level": "sequence"},
    "turn": {"advantage_level": "turn"},
    "leave_one_out": {"advantage_baseline": "leave_one_out"},
    "scaled by group": {"scale_rewards": "group"},
    "scaled by batch": {"scale_rewards": "batch"},
    "ppo": {"algorithm": "ppo"},
    "ppo by turns": {"algorithm": "ppo", "advantage_level": "turn"},
    "ppo whitened": {"algorithm": "ppo", "whiten_advantages": True},
    "ppo, lambda 0": {"algorithm": "ppo", "gae_lambda": 0.0},
}


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Each estimator's gradients on the episodes of two steps, after the policy has moved, as if by two processes."""
    found: dict[str, torch.Tensor] = {}
    steps: list[Rollout] = []
    for name, options in ESTIMATORS.items():
        task = Letters(stop=("a", "e", "i", "o", "1", "2", "3", "4"))
        shared = {"loss_type": "dapo", "num_iterations": 2, "tau": 2.0, "entropy_coef": 0.5, "epsilon": 0.05}
        trainer = make_trainer(tmp_path_factory.mktemp("run"), task, **{**shared, **options})
        for step in range(2 - len(steps)):
            trainer.state.global_step = step
            steps.append(trainer._play())
        rollouts = [prepared(trainer, step) for step in steps]
        with torch.no_grad():
            for number, parameter in enumerate(trainer.bases.parameters("left")):
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        found[name] = torch.cat([gradient_of_left(trainer, rollout) for rollout in rollouts])
    return found


def prepared(trainer: SRPOTrainer, step: Rollout) -> Rollout:
    """The step's episodes with this trainer's credit."""
    samples = [Sample(s.row, s.adapter, s.tether) for s in step.samples]
    rollout = Rollout(step.episodes, step.matches, samples)
    score(trainer, rollout)
    if trainer.critics:  # a critic that knows something
        for sample in samples:
            sample.values = torch.linspace(0, 0.5, len(sample.row.completion_ids))
    trainer._credit(rollout)
    return rollout


def gradient_of_left(trainer: SRPOTrainer, rollout: Rollout) -> torch.Tensor:
    """Its rows lie on two processes, a third of them on the one: the mean of both."""
    mine = [sample for sample in rollout.samples if sample.adapter == "left"]
    tokens = sum(sample.row.own_tokens for sample in mine)
    trainer.bases.first.bank.model.zero_grad(set_to_none=True)
    for part in (mine[: len(mine) // 3], mine[len(mine) // 3 :]):
        share = Share(len(mine), tokens, len(mine), processes=1, local=sum(s.row.own_tokens for s in part))
        accumulate(trainer, "left", part, share)
    return torch.cat([parameter.grad.flatten() for parameter in trainer.bases.parameters("left")])


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ESTIMATORS, 2)))
def test_named_estimators_differ_and_not_by_a_constant_factor(
    one: str, other: str, gradients: dict[str, torch.Tensor]
) -> None:
    cosine = torch.cosine_similarity(gradients[one], gradients[other], dim=0).item()
    assert cosine < 0.9999, cosine


# -- critics ---------------------------------------------------------------------------------------------------------


def critic_gradient(trainer: Any, rollout: Rollout, adapter: str, size: int) -> torch.Tensor:
    trainer.args.per_device_train_batch_size = size
    trainer.bases.first.bank.model.zero_grad(set_to_none=True)
    trainer.critics.heads.zero_grad(set_to_none=True)
    samples = by_length([s for s in rollout.samples if s.adapter == adapter])
    trainer.updater.accumulate_critic(trainer.critics, adapter, samples, Share.of(samples, trainer.accelerator))
    return torch.cat([p.grad.flatten() for p in trainer.critics.parameters(adapter)])


def test_a_critics_gradient_does_not_depend_on_micro_batches_and_moves_nothing_else(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **PPO, max_grad_norm=0)
    for number, parameter in enumerate(trainer.critics.heads.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    rollout = roll(trainer)
    whole = critic_gradient(trainer, rollout, "left", 64)
    for size in (1, 3):
        assert torch.allclose(critic_gradient(trainer, rollout, "left", size), whole, rtol=1e-4, atol=1e-6)
    moved = {id(p) for p in trainer.bases.first.bank.model.parameters() if p.grad is not None}
    assert moved == {id(p) for p in trainer.bases.parameters("critic-of-left")}
    assert all(p.grad is None for p in trainer.critics.heads["right"].parameters())


def test_a_critic_learns_to_foresee_returns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **PPO, max_grad_norm=0)
    rollout = roll(trainer)
    optimizer = torch.optim.Adam(trainer.critics.parameters("left"), lr=0.02)
    losses = []
    for _ in range(30):
        critic_gradient(trainer, rollout, "left", 64)
        optimizer.step()
        losses.append(next(iter(trainer.means.reduce().values())))
    assert losses[-1] < 0.8 * losses[0]


def test_ppo_trains_saves_its_critics_and_keeps_them_from_engines(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", **PPO)
    folders = {path.name for path in (run.path / "adapters").iterdir() if path.is_dir()}
    heroes = {"left", "right", "adversary-of-left", "adversary-of-right"}
    assert folders == heroes | {f"critic-of-{name}" for name in heroes}
    assert (run.path / "adapters" / "value_heads.safetensors").is_file()
    for line in logged(run.path):
        for name in heroes:
            assert f"policy/{name}/explained_variance" in line and line[f"policy/{name}/value_loss"] >= 0
    trainer = make_trainer(tmp_path / "other", **PPO)
    assert set(trainer.bases.first.bank.served) == heroes


# -- what goes on exactly --------------------------------------------------------------------------------------------

KINDS = """partners:
  - {name: own, kind: live, seeds: 2}
  - {name: mute, kind: perturbed, of: {kind: live}, how: say, text: "no"}
"""


@pytest.mark.parametrize(
    "options",
    [
        {**PPO, "tau_schedule": "target_kl", "target_kl": 0.5},
        {"partners": "kinds.yaml", "risk_smoothing": 0.5, "num_generations": 6},
        {"adversary_mix": 0.5, "adversary_reset_steps": 2, "problems_per_step": 8},
    ],
    ids=["ppo", "partners", "mix"],
)
def test_a_resumed_training_ends_with_the_same_weights(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "kinds.yaml").write_text(KINDS)
    options = {**options, "save_strategy": "steps", "save_steps": 2}
    if "partners" in options:
        options["partners"] = str(tmp_path / "kinds.yaml")
    whole = train_tiny(tmp_path / "whole", **options, max_steps=4)
    train_tiny(tmp_path / "part", **options, max_steps=2)
    part = train_tiny(tmp_path / "part", **options, max_steps=4, resume_from_checkpoint="true")
    one, other = vectors(whole.path / "adapters"), vectors(part.path / "adapters")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- partners --------------------------------------------------------------------------------------------------------


def test_a_hero_meets_every_sampled_partner_and_is_trained_alone(tmp_path: Path) -> None:
    (tmp_path / "kinds.yaml").write_text(KINDS)
    run = train_tiny(
        tmp_path / "run", partners=tmp_path / "kinds.yaml", num_generations=6, risk="cvar", log_episodes=-1
    )
    assert set(vectors(run.path / "adapters")) == {"left", "right"}
    line = logged(run.path)[-1]
    assert line["episodes"] == 4 * 6
    for hero in ("left", "right"):
        weights = [line[f"risk/{hero}/{name}/weight"] for name in ("own-1", "own-2", "mute")]
        assert sum(weights) == pytest.approx(1)
        assert (
            line[f"risk/{hero}/value"]
            <= fmean(line[f"risk/{hero}/{n}/return"] for n in ("own-1", "own-2", "mute")) + 1e-6  # of shrunk returns
        )


def test_fcp_learns_from_the_agents_of_earlier_runs_and_leaves_them_as_they_are(tmp_path: Path) -> None:
    first = train_tiny(tmp_path / "first", arm="ippo")
    before = vectors(first.path / "adapters")
    pool = [
        f"{{name: {name}, kind: adapter, policy: '{first.path}/adapters/{{seat}}'}}" for name in ("one", "two", "three")
    ]
    (tmp_path / "pool.yaml").write_text("partners:\n" + "".join(f"  - {entry}\n" for entry in pool))
    options = {"arm": "fcp", "risk": "expectation", "partners": tmp_path / "pool.yaml", "num_generations": 4}
    run = train_tiny(tmp_path / "run", **options, partners_per_step=2)
    assert set(vectors(run.path / "adapters")) == {"left", "right"}
    met = {
        name.split("/")[2]
        for line in logged(run.path)
        for name in line
        if name.startswith("risk/left/") and "/weight" in name
    }
    assert met <= {"one", "two", "three"} and len(met) >= 2
    assert all(torch.equal(before[name], after) for name, after in vectors(first.path / "adapters").items())


def test_a_live_partner_is_there_only_while_agents_are_trained() -> None:
    from llm_sra.partners.rosters import Entry

    with pytest.raises(RosterError, match="needs the partner from training"):
        PolicyLoader(Letters()).partner(Entry("own", "live", ""))


# -- the adversary's options -----------------------------------------------------------------------------------------


def test_untrained_agents_are_the_base_model(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", arm="untrained")
    from safetensors.torch import load_file

    for name in ("left", "right"):
        weights = load_file(run.adapters / name / "adapter_model.safetensors")
        assert all(not value.any() for key, value in weights.items() if "lora_B" in key)
    assert not logged(run.path)


def test_a_pure_adversary_pays_nothing_for_leaving_its_partner(tmp_path: Path) -> None:
    tied, free = (make_trainer(tmp_path / arm, arm=arm, tau=0.5, loss_type="dapo") for arm in ("srpo", "adversary"))
    advantages = []
    for trainer in (tied, free):
        rollout = roll(trainer)
        for sample in rollout.samples:
            if sample.nats is not None:
                sample.nats = torch.ones_like(sample.nats) * (sample.row.episode % 3)
        trainer._credit(rollout)
        advantages.append(torch.cat([s.advantages for s in rollout.samples if s.tether]))
    assert not torch.allclose(advantages[0], advantages[1])
    again = roll(free)
    assert torch.allclose(torch.cat([s.advantages for s in again.samples if s.tether]), advantages[1])


def test_a_reset_makes_adversaries_copies_of_their_partners_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, adversary_reset_steps=3)
    trainer.create_optimizer()

    def apart() -> float:
        pair = (trainer.bases.first.bank.state(name) for name in ("adversary-of-left", "right"))
        return max(float((a - b).abs().max()) for a, b in zip(*(state.values() for state in pair), strict=True))

    assert apart() > 0
    trainer.state.global_step = 2
    trainer._reset_adversaries()
    assert apart() > 0
    trainer.state.global_step = 3
    trainer._reset_adversaries()
    assert apart() == 0


def test_a_part_of_the_episodes_is_played_with_the_live_partner(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, adversary_mix=0.5, problems_per_step=8)
    rollout = trainer._play()
    counts = {name: sum(e.match == name for e in rollout.episodes) for name in {e.match for e in rollout.episodes}}
    assert counts == {"live": 12, "adversary-of-left": 6, "adversary-of-right": 6}  # 8 problems of 3 episodes


def test_a_line_of_tau_is_logged_and_used(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", tau=4.0, tau_schedule="linear", tau_start=1.0, tau_schedule_steps=2, max_steps=3)
    assert [line["tau"] for line in logged(run.path)] == [1.0, 2.5, 4.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "fcp"}, "arm fcp needs `partners`"),
        ({"arm": "fcp", "partners": "x.yaml"}, "set risk to expectation"),
        ({"arm": "ippo", "partners": "x.yaml"}, "go with arm srpo or fcp"),
        ({"arm": "ippo", "adversary_mix": 0.5}, "arm ippo with tau 10 has none"),
        ({"tau_schedule": "target_kl"}, "go together"),
        ({"tau_schedule": "linear", "tau_start": 0}, "tau_start must be above 0"),
        ({"risk_smoothing": 0.5}, "need `partners`"),
        ({"algorithm": "ppo", "advantage_level": "episode"}, "advantage_level must be one of token, turn"),
        (
            {"algorithm": "ppo", "scale_rewards": "group"},
            "scale_rewards is an option of grpo/episode .* not of ppo",
        ),
        ({"whiten_advantages": True}, "whiten_advantages is an option of ppo/token, ppo/turn .* not of grpo/episode"),
        ({"gae_lambda": 1.5}, r"gae_lambda must lie in \[0, 1\]"),
        ({"risk_alpha": 0}, "risk_alpha must lie"),
        ({"adversary_mix": 1.0}, "adversary_mix must lie"),
        ({"value_clip": 0}, "value_clip must be above 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train_tiny(tmp_path / "run", **options)


def test_episodes_that_do_not_divide_among_partners_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "kinds.yaml").write_text(KINDS)
    with pytest.raises(ValueError, match=r"num_generations \(4\) must be at least twice the number of partners"):
        train_tiny(tmp_path / "run", partners=tmp_path / "kinds.yaml", num_generations=4)
    assert not (tmp_path / "run").exists()
