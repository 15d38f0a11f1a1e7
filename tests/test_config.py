"""Recipes and flags: what is read, what wins, and what is refused with a hint."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from llm_sra.registry import find_model, find_roster
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.fields import check_bf16
from llm_sra.trainer.objective import ObjectiveArguments
from llm_sra.trainer.parse import ConfigError, parse, read_recipe

RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "partners")
BASE = ["--model_name_or_path", "some/model", "--bf16", "false"]


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def config(*flags: str) -> SRPOConfig:
    return parse(None, [*BASE, *flags])[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shipped_recipe_is_read_as_it_stands(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    flags = [] if "model_name_or_path" in written else ["--model_name_or_path", "some/model"]
    model, args = parse(path, [*flags, "--bf16", "false"])  # which asks for a GPU
    assert args.task == written["task"] and args.arm == written["arm"]
    for key in ("tau", "learning_rate", "max_steps", "problems_per_step", "num_generations", "entropy_coef"):
        if key in written:
            assert getattr(args, key) == written[key]
    assert model.lora_r == written["lora_r"] and model.lora_alpha == written["lora_alpha"]
    if path.parent.name == "smollm2-135m":
        assert model.model_name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    elif "/" in written.get("model_name_or_path", "") and args.use_cpu:
        assert Path(find_model(model.model_name_or_path)).is_dir()  # a shipped one, under its name
        assert model.model_name_or_path == written["model_name_or_path"]
    if args.dev_roster:
        assert find_roster(args.dev_roster).is_file()


def test_the_arms_of_a_task_differ_in_nothing_but_the_objective() -> None:
    ippo, srpo = (
        yaml.safe_load((ROOT / "recipes" / "worksheet" / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo")
    )
    differ = {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)}
    assert "arm" in differ
    assert differ <= {"arm", "tau", "output_dir"} | {key for key in differ if key.startswith("adversary_")}


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, "model_name_or_path: some/model\nbf16: false\ntau: 3\nlearning_rate: 3e-3\nlora_r: 2\n")
    model, args = parse(path, ["--tau", "7", "--seed", "5"])
    assert (args.tau, args.seed, args.learning_rate, model.lora_r) == (7, 5, 0.003, 2)
    assert (args.sharing, args.scale_rewards, args.num_iterations) == ("seat", "none", 1)
    assert parse(path, overrides={"tau": 0.5, "output_dir": tmp_path})[1].output_dir == str(tmp_path)


def test_options_of_the_task_come_as_a_mapping_or_as_json(tmp_path: Path) -> None:
    path = recipe(tmp_path, "model_name_or_path: m\nbf16: false\ntask_args: {turns: 8, last_word: true}\n")
    assert parse(path)[1].task_args == {"turns": 8, "last_word": True}
    assert config("--task_args", '{"turns": 8}').task_args == {"turns": 8}
    # What the command line does not name stays as the recipe has it, unless the task is another.
    assert parse(path, ["--task_args", '{"turns": 4}'])[1].task_args == {"turns": 4, "last_word": True}
    assert parse(path, overrides={"task_args": {"turns": 2}})[1].task_args == {"turns": 2, "last_word": True}
    assert parse(path, ["--task", "effort", "--task_args", '{"game": "effort"}'])[1].task_args == {"game": "effort"}
    with pytest.raises(ConfigError, match="task_args must be a JSON object, got 'turns=8'"):
        config("--task_args", "turns=8")


def test_paths_with_a_dot_are_relative_to_the_recipe_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    path = recipe(
        tmp_path / "recipes",
        "model_name_or_path: ../models/x\ntask: ./mine.py:Mine\ndev_roster: ../r.yaml\noutput_dir: runs/x\ntau: 1\n",
    )
    assert read_recipe(path) == {
        "model_name_or_path": str(tmp_path / "models" / "x"),
        "task": str(tmp_path / "recipes" / "mine.py:Mine"),
        "dev_roster": str(tmp_path / "r.yaml"),
        "output_dir": "runs/x",
        "tau": 1,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tua: 3", r"unknown key 'tua' in .*recipe\.yaml; did you mean 'tau'"),
        ("learning_rat: 3", "did you mean 'learning_rate'"),
        ("lora_rank: 3", "unknown key 'lora_rank'"),
        ("xyzzyq: 3", r"unknown key 'xyzzyq' in .*recipe\.yaml$"),
        ("1: 3", "unknown key 1 in"),
        ("- tau", "must hold one `key: value` per line"),
        ("just text", "must hold one `key: value` per line"),
        ("", "must hold one `key: value` per line"),
        ("tau: [", "is not YAML"),
        ("tau: [1]", r"tau must be a number, got \[1\]"),
        ("tau: null", "tau must be a number, got None"),
        ("max_steps: many", "max_steps must be a whole number, got 'many'"),
        ("tau: 3\nseed: 1\ntau: 5", r"recipe\.yaml cannot be read: it has the key 'tau' twice, at lines 1 and 3: keep"),
        ("task_args: {turns: 6, turns: 8}", "it has the key 'turns' twice, at lines 1 and 1"),
        (
            'task_args: \'{"turns": 6, "turns": 8}\'',
            "task_args must be a JSON object, .*: it has the key 'turns' twice",
        ),
        ("output_dir: 2024", "output_dir must be text, got 2024: write it in quotes"),
        ("dev_roster: [a, b]", r"dev_roster must be text, got \['a', 'b'\]: write it in quotes"),
        ("learning_rate: .nan", "learning_rate must be a number, got nan"),
        ("max_grad_norm: nan", "max_grad_norm must be a number, got 'nan'"),
        ("learning_rate: .inf", "learning_rate must be finite, 0 or more, got inf"),
        ("seed: 100000000000000000000", "seed must be a whole number from 0 to 4294967295, got 1000"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(recipe(tmp_path, text), BASE)


def test_a_missing_recipe_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe .*srpo\.yml \(looked for /"):
        parse(tmp_path / "srpo.yml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tua", "3"], "unknown key 'tua' on the command line; did you mean 'tau'"),
        (["--tua", "3", "--tau", "much"], "did you mean 'tau'"),  # before what the values are
        (["--tua=3"], "unknown key 'tua' on the command line; did you mean 'tau'"),
        (["--learning_rat", "3"], "did you mean 'learning_rate'"),  # no abbreviation is taken
        (["stray"], "cannot tell what 'stray' on the command line belongs to"),
        (["--tau", "much"], "tau must be a number, got 'much'"),
        (["--tau"], "expected one argument"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_explained(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*flags)


def test_bf16_without_a_gpu_says_what_a_cpu_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sra.trainer.fields.is_torch_bf16_gpu_available", lambda: False)
    with pytest.raises(ConfigError, match="none was found here: to train on a CPU, add --use_cpu true --bf16 false"):
        parse(None, ["--model_name_or_path", "some/model"])
    monkeypatch.setattr("llm_sra.trainer.fields.is_torch_bf16_gpu_available", lambda: True)
    check_bf16(None, use_cpu=False)


def test_an_unknown_argument_of_the_python_interface_is_explained() -> None:
    with pytest.raises(ConfigError, match="unknown key 'tua' among the arguments; did you mean 'tau'"):
        parse(None, BASE, {"tua": 3})


def test_a_model_must_be_named() -> None:
    with pytest.raises(ConfigError, match="model_name_or_path is missing"):
        parse(None, ["--bf16", "false"])


REFUSED = {
    "arm": ("srppo", "arm must be one of ippo, srpo, adversary, fcp, mep, untrained, got 'srppo'; did you mean 'srpo'"),
    "sharing": ("team", "sharing must be one of seat, shared"),
    "engine": ("vlm", "engine must be one of transformers, vllm, server, got 'vlm'; did you mean 'vllm'"),
    "tau_schedule": ("linaer", "tau_schedule must be one of constant, linear, target_kl, got 'linaer'; did you mean"),
    "vllm_importance_sampling_mode": ("token", "token_truncate, token_mask, sequence_truncate, sequence_mask, got 'to"),
    "risk": (
        "cvra",
        "risk must be one of cvar, entropic, expectation, rank, worst_case, got 'cvra'; did you mean 'cvar'",
    ),
    "algorithm": ("pop", "algorithm must be one of adalign, grpo, ppo, got 'pop'; did you mean 'ppo'"),
    "advantage_level": ("token", "advantage_level must be one of episode, turn, got 'token'"),
    "advantage_baseline": ("median", "advantage_baseline must be one of leave_one_out, mean, got 'median'"),
    "kl_direction": ("both", "kl_direction must be one of adversary_partner, partner_adversary"),
    "entropy_reduction": ("max", "entropy_reduction must be one of sum, mean"),
    "scale_rewards": ("std", "scale_rewards must be one of none, group, batch"),
    "tau": ("-0.1", "tau must be 0 or more, got -0.1"),
    "entropy_coef": ("-1", "entropy_coef must be 0 or more"),
    "adversary_entropy_coef": ("-1", "adversary_entropy_coef must be 0 or more"),
    "adversary_updates": ("0", "adversary_updates must be 1 or more, got 0"),
    "num_generations": ("1", "num_generations must be 2 or more, got 1"),
    "problems_per_step": ("0", "problems_per_step must be 1 or more"),
    "rollout_batch_size": ("0", "rollout_batch_size must be 1 or more"),
    "temperature": ("0", "temperature must be above 0"),
    "top_p": ("0.9", "top_p must stay 1.0 .the trained log-probabilities are those of the whole distribution"),
    "top_k": ("50", "top_k must stay 0"),
    "repetition_penalty": ("1.1", "repetition_penalty must stay 1.0"),
    "gradient_accumulation_steps": ("2", "gradient_accumulation_steps must stay 1"),
    "use_vllm": ("true", "use_vllm must stay False .TRL's own vLLM sync"),
    "fp16": ("true", "fp16 must stay False"),
    "logging_nan_inf_filter": ("true", "never replaced by a value"),
    "use_peft": ("false", "use_peft must stay true"),
    "seeded_rollouts": ("true", "seeded_rollouts has no effect with engine transformers"),
    "lora_r": ("0", "lora_r and lora_alpha must be above 0, got 0"),
    "load_best_model_at_end": ("true", "load_best_model_at_end needs dev_roster"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_value_that_cannot_mean_anything_is_refused(key: str) -> None:
    value, message = REFUSED[key]
    with pytest.raises(ConfigError, match=message):
        config(f"--{key}", value)
    with pytest.raises(ConfigError, match=message):  # of a recipe, whose values argparse does not check
        parse(None, BASE, {key: yaml.safe_load(value)})


@pytest.mark.parametrize("key", ["tau", "entropy_coef", "adversary_entropy_coef", "temperature"])
def test_nan_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be .*nan"):
        config(f"--{key}", "nan")


def test_values_at_the_edge_are_taken() -> None:
    args = config("--tau", "0", "--num_generations", "2", "--log_episodes", "-1", "--top_k", "0")
    assert (args.tau, args.num_generations, args.log_episodes) == (0, 2, -1)
    assert math.isinf(config("--tau", "inf").tau)


def test_every_own_field_says_what_it_is_for() -> None:
    own: dict[str, Any] = {
        name: field
        for name, field in SRPOConfig.__dataclass_fields__.items()
        if name in SRPOConfig.__annotations__ or name in ObjectiveArguments.__annotations__
    }
    assert len(own) > 40
    assert [name for name, field in own.items() if len(field.metadata.get("help", "")) < 10] == []
