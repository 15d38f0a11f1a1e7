"""Exports: what plain PEFT and transformers load says exactly what the policy said in the bank."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support import make_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_sra import export
from llm_sra.adapters import AdapterBank, AdapterError
from llm_sra.loading import UnknownNameError
from llm_sra.models import load_model
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
    card = (export(run, "first", tmp_path / "out") / "README.md").read_text()
    front = card.split("---")[1]
    assert f"base_model: {run.config['model_name_or_path']}\n" in front and "library_name: peft" in front
    assert "# first, trained on worksheet by srpo" in card
    for row in ("| task | `worksheet` |", "| arm | `srpo` |", "| tau | `12.5` |", "| seats | `first` |"):
        assert row in card
    assert "| LoRA rank | `4` |" in card and "Not evaluated yet" in card
    merged = (export(run, "first", tmp_path / "merged", merge=True) / "README.md").read_text()
    assert "peft" not in merged.split("---")[1]


def test_the_card_shows_the_results_of_the_policys_own_seat(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "ippo")
    record = {"run": "study/ippo", "partner": "lazy", "decoding": "greedy", "solve_rate_ci95": [0.1, 0.5], "n": 32}
    records = [
        {**record, "seat": "first", "solve_rate": 0.25, "own_return": 0.05},
        {**record, "seat": "second", "solve_rate": 0.75, "own_return": 0.55},
        {**record, "seat": "first", "solve_rate": 0.99, "own_return": 0.95, "run": "study/other"},
    ]
    (run.path / "report").mkdir()
    (run.path / "report" / "results.json").write_text(json.dumps({"records": records}))
    card = (export(run, "first", tmp_path / "out") / "README.md").read_text()
    assert "| first | lazy | greedy | 0.25 [0.10, 0.50] | 0.05 | 32 |" in card
    assert "0.75" not in card and "0.99" not in card


def test_an_export_tells_its_base_from_others(run: Run, tmp_path: Path) -> None:
    folder = export(run, "first", tmp_path / "out")
    facts = json.loads((folder / "llm_sra.json").read_text())
    assert facts == json.loads((run.adapters / "first" / "llm_sra.json").read_text())
    assert facts["policy"] == "first" and len(facts["base_fingerprint"]) == 16


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
