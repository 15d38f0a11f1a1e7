"""NaN and infinity in a training are named where they arose: in rewards, weights, replies, or a part of a loss."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import training_support
from support import Toy, make_engine, qwen2_folder
from training_support import Letters, make_trainer, roll, train_tiny
from transformers import TrainerCallback

from llm_sra.errors import NumberError, TaskError
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.runs import read_metrics
from llm_sra.task import Problem
from llm_sra.trainer.metrics import MetricsFile

SUPPORT = training_support.__file__
NAN, INFINITY = float("nan"), float("inf")


class Spoils(TrainerCallback):
    """Sets one weight of an adapter before a step."""

    def __init__(self, adapter: str, value: float, step: int) -> None:
        self._adapter, self._value, self._step = adapter, value, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            names = [name for name, _ in kwargs["model"].named_parameters() if f"lora_B.{self._adapter}." in name]
            with torch.no_grad():
                kwargs["model"].get_parameter(names[0]).view(-1)[0] = self._value


def test_a_reward_that_is_no_number_names_task_problem_seat_and_step_and_no_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"says team of seat 'right' is nan: .*at step 0 of problem '\w+'") as caught:
        train_tiny(tmp_path / "run", task=f"{SUPPORT}:NoNumber", arm="ippo")
    assert "training_support.py:" in str(caught.value) and "learning_rate" not in str(caught.value)
    assert not (tmp_path / "run").exists()  # the first episode is checked before a run begins


def test_a_reward_that_is_no_number_later_names_the_training_step_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, task=training_support.NoNumber())
    trainer.state.global_step = 7
    with pytest.raises(TaskError, match=r"team of seat 'right' is nan.*\. In training step 7$"):
        trainer._play()


@pytest.mark.parametrize("value", [NAN, INFINITY])
@pytest.mark.parametrize("adapter", ["left", "right"])
def test_the_adapter_whose_weights_hold_it_is_named_at_its_first_reply(
    tmp_path: Path, adapter: str, value: float
) -> None:
    with pytest.raises(
        NumberError, match=rf"^step 1: .* of policy '{adapter}' in seat '{adapter}' are not finite at"
    ) as e:
        train_tiny(tmp_path / "run", callbacks=[Spoils(adapter, value, 1)], arm="ippo")
    assert f"the weights of adapter '{adapter}' or its base model hold NaN or infinity" in str(e.value)
    assert str(e.value).endswith("There is no checkpoint yet: start again")


def test_what_there_is_to_resume_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(NumberError, match=r"checkpoint-1 is from before: go on with --resume_from_checkpoint true$"):
        train_tiny(
            tmp_path / "run", callbacks=[Spoils("left", NAN, 1)], arm="ippo", save_strategy="steps", save_steps=1
        )


def test_an_adapter_of_nan_is_named_in_play() -> None:
    engine = make_engine(qwen2_folder())
    with torch.no_grad():
        engine.bank.parameters("right")[1].fill_(NAN)
    engine.bank.touch("right")
    match = Match("m", {seat: EnginePolicy(f"model {seat}", adapter=seat) for seat in Toy.seats})
    with pytest.raises(NumberError, match=r"of policy 'model right' in seat 'right' .* at step 1 of problem 'apple'"):
        play(Toy(), [EpisodeSpec(Problem("apple", {"word": "apple"}), match)], {"main": engine}, seed=0)


def spoil_samples(trainer: Any, samples: Any) -> None:
    samples[0].advantages[0] = NAN


def spoil_old(trainer: Any, samples: Any) -> None:
    for sample in samples:
        sample.old_logprobs = torch.zeros(len(sample.row.completion_ids))
    samples[1].old_logprobs[0] = -INFINITY


def spoil_weights(trainer: Any, samples: Any) -> None:
    with torch.no_grad():
        trainer.bases.parameters("left")[0].view(-1)[0] = NAN


def spoil_base(trainer: Any, samples: Any) -> None:
    with torch.no_grad():
        trainer.bases.first.bank.base.get_parameter("model.norm.weight")[0] = INFINITY


def spoil_policy_term(trainer: Any, samples: Any) -> None:
    theirs = trainer.updater._loss._trl_loss

    def spoiled(*args: Any) -> Any:
        loss, reported = theirs(*args)
        return loss * NAN, reported

    trainer.updater._loss._trl_loss = spoiled


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (spoil_samples, r"the advantages of 1 of its \d+ rows are not finite.*Scale down what the task pays"),
        (spoil_old, r"the log-probabilities before the update of 1 of its \d+ rows are not finite"),
        (spoil_weights, r"its weights hold NaN or infinity.*Resume from an earlier checkpoint"),
        (spoil_base, r"the base model's weights hold NaN or infinity, first in model\.norm\.weight"),
        (spoil_policy_term, r"nan: the policy term of its loss is nan\. No weights .*Lower learning_rate"),
    ],
)
def test_a_gradient_that_is_not_finite_says_where_that_arose(tmp_path: Path, spoil: Any, cause: str) -> None:
    trainer = make_trainer(tmp_path, task=Letters(), arm="ippo", num_iterations=1)
    trainer.create_optimizer()
    rollout = roll(trainer)
    spoil(trainer, [sample for sample in rollout.samples if sample.adapter == "left"])
    with pytest.raises(NumberError, match=rf"^the gradient of adapter 'left' is nan: {cause.removeprefix('nan: ')}"):
        trainer.updater.update(trainer.model, rollout, trainer.optimizer, trainer.tether)


def test_an_update_that_leaves_weights_infinite_is_named_before_anything_is_saved(tmp_path: Path) -> None:
    with pytest.raises(NumberError, match=r"^step 0: an update made the weights of adapter 'left' NaN or infinite"):
        train_tiny(
            tmp_path / "run", arm="ippo", optim="sgd", learning_rate=1e38, max_grad_norm=1e5, save_strategy="steps",
            save_steps=1,
        )  # fmt: skip
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))


def test_metrics_are_json_also_where_a_number_is_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    state = type("State", (), {"is_world_process_zero": True, "global_step": 3})()
    MetricsFile(path).on_log(None, state, None, {"loss": NAN, "x": -INFINITY, "y": 1.5, "n": 2})  # type: ignore[arg-type]

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    [line] = path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {"step": 3, "loss": None, "x": None, "y": 1.5, "n": 2}
    assert read_metrics(path)[0]["y"] == 1.5
