"""Exports: what plain PEFT and transformers load says exactly what the policy said in the bank."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from support import make_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_sra import export
from llm_sra.errors import UnknownNameError
from llm_sra.exporting.cards import model_card
from llm_sra.exporting.exported import Exported
from llm_sra.exporting.hub import HubError
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.loading import load_model
from llm_sra.runs import Run, RunError

IDS = torch.tensor([[5, 60, 7, 80, 9, 100]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "srpo", arm="srpo", tau=12.5)


@torch.no_grad()
def logprobs(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.log_softmax(dim=-1)


def in_the_bank(run: Run, policy: str) -> torch.Tensor:
    bank = AdapterBank(load_model(str(run.config["model_name_or_path"]))[0])
    for name in run.heroes.values():
        bank.load(run.adapters / name, name)
    bank.activate(policy)
    return logprobs(bank.model)


def base_of(run: Run) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(run.config["model_name_or_path"])


@pytest.mark.parametrize("policy", ["first", "second"])
def test_plain_peft_loads_it_with_the_same_log_probabilities(run: Run, tmp_path: Path, policy: str) -> None:
    folder = export(run.path, policy, tmp_path / "out")
    given = logprobs(PeftModel.from_pretrained(base_of(run), folder))
    expected = in_the_bank(run, policy)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)
    assert (given - logprobs(base_of(run))).abs().max() > 0.1


@pytest.mark.parametrize("policy", ["first", "second"])
def test_merged_it_is_a_plain_model_with_the_same_log_probabilities(run: Run, tmp_path: Path, policy: str) -> None:
    folder = export(run, policy, tmp_path / "out", merge=True)
    torch.testing.assert_close(
        logprobs(AutoModelForCausalLM.from_pretrained(folder)), in_the_bank(run, policy), atol=1e-5, rtol=0
    )
    assert not (folder / "adapter_config.json").exists() and (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("merge", [False, True])
def test_it_brings_its_tokenizer_and_chat_template_and_no_pickles(run: Run, tmp_path: Path, merge: bool) -> None:
    folder = export(run, "first", tmp_path / "out", merge=merge)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(run.config["model_name_or_path"])
    assert tokenizer.chat_template == own.chat_template and tokenizer.get_vocab() == own.get_vocab()
    assert tokenizer.eos_token == own.eos_token
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]


def test_the_card_names_task_arm_and_settings(run: Run, tmp_path: Path) -> None:
    path = export(run, "first", tmp_path / "out") / "README.md"
    card, text = ModelCard.load(path), path.read_text()
    assert card.data.library_name == "peft" and card.data.tags == ["llm-sra", "multi-agent", "srpo", "lora"]
    assert card.data.license is None and card.data.eval_results is None
    assert "# first, trained on worksheet by srpo" in text
    rows = {"task": "worksheet", "arm": "srpo", "tau (τ)": "12.5", "entropy_coef (ε)": "0.0", "seats": "first"}
    rows |= {"kl_direction": "adversary_partner", "LoRA rank": "4", "torch": torch.__version__}
    for key, value in rows.items():
        assert f"| {key} | `{value}` |" in text
    assert "Not evaluated yet" in text
    served = "vllm serve path/to/qwen2 --enable-lora --max-lora-rank 8 \\\n    --lora-modules first=path/to/this/folder"
    assert served in text
    assert str(run.path) not in text and str(run.config["model_name_or_path"]) not in text  # paths of one machine
    merged = ModelCard.load(export(run, "first", tmp_path / "merged", merge=True) / "README.md")
    assert merged.data.library_name == "transformers" and "lora" not in merged.data.tags
    assert "PeftModel" not in merged.text and "vllm serve path/to/this/folder --served-model-name first" in merged.text


def card_of(run: Run, **config: Any) -> ModelCard:
    run = replace(run, config={**run.config, **config})
    return model_card(Exported(run, "first", rank=9, merged=False, where="me/first", evaluation=None))


def test_a_base_model_of_the_hub_is_in_the_header_and_a_folder_is_not(run: Run) -> None:
    assert card_of(run).data.base_model is None  # the hub refuses a header with a path
    card = card_of(run, model_name_or_path="Qwen/Qwen2.5-0.5B-Instruct")
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")' in card.text
    assert "vllm serve Qwen/Qwen2.5-0.5B-Instruct --enable-lora --max-lora-rank 16 \\\n" in card.text


def test_settings_that_the_arm_does_not_use_are_left_out(run: Run) -> None:
    tether = card_of(run, arm="srpo").text
    assert "| kl_direction |" in tether and "| risk |" not in tether
    over_partners = card_of(run, arm="srpo", partners="roster.yaml").text
    assert "| risk | `entropic` |" in over_partners and "| tau (τ) | `12.5` |" in over_partners
    assert "| kl_direction |" not in over_partners
    alone = card_of(run, arm="ippo").text
    assert "tau" not in alone and "| arm | `ippo` |" in alone


RECORD = {
    "run": "study/ippo", "partner": "lazy", "decoding": "greedy", "solve_rate_ci95": [0.1, 0.5], "n": 32,
    "effort_own": 1.5, "arm": "ippo", "team_reward": 0.5, "effort_partner": 0.0,
}  # fmt: skip
RECORDS = [
    {**RECORD, "seat": "first", "solve_rate": 0.25, "own_return": 0.05},
    {**RECORD, "seat": "second", "solve_rate": 0.75, "own_return": 0.55},
    {**RECORD, "seat": "first", "solve_rate": 0.99, "own_return": 0.95, "run": "study/other"},
]
SETTINGS = {"split": "test", "seed": 3, "roster": "some/where/strangers.yaml"}


def evaluated(folder: Path, records: Sequence[dict[str, Any]] = RECORDS, **more: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"records": records, "settings": SETTINGS, **more}))
    return folder


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_the_card_shows_the_results_of_the_policys_own_seat(tmp_path: Path, named: bool, merge: bool) -> None:
    run = make_run(tmp_path / "study" / "ippo")
    folder = evaluated(tmp_path / "eval" if named else run.path / "report")
    path = export(run, "first", tmp_path / "out", merge=merge, evaluation=folder if named else None) / "README.md"
    card, text = ModelCard.load(path), path.read_text()
    assert "| first | lazy | greedy | 0.25 [0.10, 0.50] | 0.05 | 1.50 | 32 |" in text
    assert "0.75" not in text and "0.99" not in text
    assert "(roster `strangers`, split `test`, seed `3`)" in text and "some/where" not in text
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("solve_rate", 0.25, "worksheet")
    assert result.metric_name == "solve rate as first with lazy, greedy" and result.dataset_split == "test"
    assert result.metric_args == {
        "seat": "first", "partner": "lazy", "decoding": "greedy", "n": 32, "ci95": [0.1, 0.5]
    }  # fmt: skip


def test_names_in_a_card_stay_in_their_cells_and_missing_partners_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "ippo")
    records = [{**RECORDS[0], "partner": "a|b\n# `c`"}]
    folder = evaluated(tmp_path / "eval", records, missing=[{"partner": "hosted", "reason": "no network"}])
    path = export(run, "first", tmp_path / "out", evaluation=folder) / "README.md"
    assert "| first | a\\|b # \\`c\\` | greedy |" in path.read_text()
    assert "these could not be played: hosted." in path.read_text()
    assert ModelCard.load(path).data.eval_results[0].metric_args["partner"] == "a|b\n# `c`"


def test_the_card_says_if_the_results_are_those_of_another_world(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "eval", settings={**SETTINGS, "task_args": {"cost": 0.5}})
    path = export(make_run(tmp_path / "study" / "ippo"), "first", tmp_path / "out", evaluation=folder) / "README.md"
    assert 'seed `3`, task_args `{"cost": 0.5}`' in path.read_text()


def test_the_card_shows_what_its_task_compares_agents_by(tmp_path: Path) -> None:
    record = {**RECORDS[0], "solve_rate": 0.0, "metrics": {"share of the full score": 0.625, "bombs": 1.0}}
    folder = evaluated(tmp_path / "eval", [record], settings={**SETTINGS, "headline": "share of the full score"})
    path = export(make_run(tmp_path / "study" / "ippo"), "first", tmp_path / "out", evaluation=folder) / "README.md"
    head, rule, row = path.read_text().split("## Results\n\n")[1].splitlines()[:3]
    assert head.endswith(" problems | share of the full score |") and rule == "|---" * 8 + "|"
    assert row == "| first | lazy | greedy | 0.00 [0.10, 0.50] | 0.05 | 1.50 | 32 | 0.62 |"


def test_an_evaluation_that_does_not_fit_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "results.json").write_text('{"records": [{"seat": "first"}]}')
    for folder, message in {
        tmp_path / "empty": "expected an evaluation's folder",
        tmp_path / "odd": "is not what `llm-sra eval` writes: KeyError 'run'",
        evaluated(tmp_path / "eval"): "no results of study/srpo, but of study/ippo, study/other",
    }.items():
        with pytest.raises(RunError, match=message):
            export(run, "first", tmp_path / "out", evaluation=folder)
    assert not (tmp_path / "out").exists()


def test_a_private_repository_needs_a_name(run: Run, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="name it with --push_to_hub"):
        export(run, "first", tmp_path / "out", private=True)
    assert not (tmp_path / "out").exists()


def test_an_export_tells_its_base_from_others(run: Run, tmp_path: Path) -> None:
    folder = export(run, "first", tmp_path / "out")
    facts = json.loads((folder / "llm_sra.json").read_text())
    assert facts == json.loads((run.adapters / "first" / "llm_sra.json").read_text())
    assert facts["policy"] == "first" and len(facts["base_fingerprint"]) == 16


def test_weights_have_the_permissions_of_other_files(run: Run, tmp_path: Path) -> None:
    """Safetensors writes files that only their owner can read."""
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    for folder in (run.adapters / "first", export(run, "first", tmp_path / "out")):
        assert {path.stat().st_mode for path in folder.iterdir() if path.is_file()} == {plain}


def test_an_empty_folder_may_be_given_and_a_missing_one_is_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        assert export(run, "first", out) == out
        assert (out / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name.endswith(".partial")) == []


def test_a_folder_that_holds_something_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "out", tmp_path / "out" / "thesis.txt"):
        with pytest.raises(RunError, match="already holds something: choose a new folder"):
            export(run, "first", out)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_an_unknown_policy_is_answered_with_the_nearest(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown policy 'frist'; did you mean 'first'.*There are: first, second"
    ):
        export(run, "frist", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickled_policy_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "run")
    (run.adapters / "first" / "adapter_model.safetensors").rename(run.adapters / "first" / "adapter_model.bin")
    with pytest.raises(AdapterError, match="only safetensors are loaded"):
        export(run, "first", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_adapters_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "run")
    run.adapters.rename(tmp_path / "gone")
    with pytest.raises(RunError, match="has no adapters: the training has not finished"):
        export(run, "first", tmp_path / "out")
    with pytest.raises(RunError, match="is not a run"):
        export(tmp_path, "first", tmp_path / "out")


def test_the_scale_of_an_adapter_survives_the_export(run: Run, tmp_path: Path) -> None:
    config = json.loads((export(run, "first", tmp_path / "out") / "adapter_config.json").read_text())
    assert math.isclose(config["lora_alpha"] / config["r"], 2)
    assert Path(config["base_model_name_or_path"]) == Path(run.config["model_name_or_path"])
