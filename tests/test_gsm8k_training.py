"""A training on the real data of GSM8K with long prompts and cut replies, and all that follows it."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from gsm8k_support import QUESTION
from peft import PeftModel
from support import ROOT, llama, llama_tokenizer, qwen2_tokenizer, save_model
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from llm_sra import evaluate, export, train
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.runs import Run, read_metrics


def random_qwen2(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """All tokens are about as likely at every place, so that almost every reply runs into its limit."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


@pytest.fixture(scope="module")
def models(gsm8k_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random models of different families, each with a tokenizer trained on the data's text."""
    lines = (gsm8k_folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = ["\n".join(json.loads(line).values()) for line in lines[:1000]]
    made = tmp_path_factory.mktemp("models")
    own, other = qwen2_tokenizer(texts, 2000), llama_tokenizer(texts[:300], 1200)
    return {
        "base": save_model(random_qwen2(own), own, made / "base"),
        "stranger": save_model(llama(other, context=2048), other, made / "stranger"),
    }


@pytest.fixture(scope="module")
def run(gsm8k_folder: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two steps of the smoke recipe."""
    return train(
        ROOT / "recipes" / "gsm8k" / "smoke.yaml",
        model_name_or_path=str(models["base"]),
        output_dir=str(tmp_path_factory.mktemp("runs") / "smoke"),
        task_args={"data_path": str(gsm8k_folder), "protocol": "relay", "turns": 2, "cost_per_token": 1e-3},
    )


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "second", tmp_path_factory.mktemp("export") / "second")


def test_long_prompts_and_cut_replies_train(run: Run) -> None:
    steps = [line for line in read_metrics(run.path / "metrics.jsonl") if "solve_rate" in line]
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert line["replies_cut"] > 0.5
        assert 200 < line["play/first/first/tokens"] <= 256
        assert line["play/second/second/cost"] > 0
        for policy in ("first", "second", "adversary-of-first", "adversary-of-second"):
            assert line[f"policy/{policy}/grad_norm"] > 0
            assert line[f"policy/{policy}/entropy"] == pytest.approx(math.log(2000), rel=0.02)  # nats per token
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))
    assert steps[0]["policy/adversary-of-first/kl_to_partner"] == 0  # it starts as a copy
    assert steps[1]["policy/adversary-of-first/kl_to_partner"] != 0


def test_what_was_said_is_kept_with_its_limit(run: Run) -> None:
    lines = (run.path / "episodes" / "step-000001.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [turn for line in lines for turn in json.loads(line)["turns"]]
    assert len(turns) == 8  # 2 problems, 2 episodes each, 2 turns
    cut = [turn for turn in turns if turn["finish"] == "length"]
    assert cut and all(turn["tokens"] == 256 and turn["text"] for turn in cut)


def test_the_trained_adapters_are_exported_and_loaded_again(run: Run, exported: Path, models: dict[str, Path]) -> None:
    base, tokenizer = load_model(str(models["base"]))
    ids = tokenizer(QUESTION * 20, return_tensors="pt")["input_ids"]
    bank = AdapterBank(base)
    bank.load(run.adapters / "second", "second")
    with torch.no_grad(), bank.using("second"):
        trained = bank.model(ids).logits.log_softmax(-1)
    with torch.no_grad(), bank.using(None):
        untrained = bank.model(ids).logits.log_softmax(-1)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models["base"]), exported).eval()
    with torch.no_grad():
        loaded = again(ids).logits.log_softmax(-1)
    assert (loaded - trained).abs().max() < 1e-5 < (trained - untrained).abs().max()


def test_agents_meet_scripts_a_foreign_model_and_the_export(
    run: Run, exported: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    entries = yaml.safe_load((ROOT / "eval" / "rosters" / "gsm8k_smoke.yaml").read_text())["partners"]
    entries += [
        {"name": "stranger", "kind": "model", "policy": str(models["stranger"])},
        {"name": "exported", "kind": "adapter", "policy": str(exported)},
    ]
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump({"partners": entries}))
    records = evaluate([run], tmp_path / "roster.yaml", tmp_path / "out", problems=2, decodings=["sampled"])
    by_cell = {(record.seat, record.partner): record for record in records}
    names = ("self-play", "silent", "copycat", "wrong", "stranger", "exported")
    assert set(by_cell) == {(seat, name) for seat in ("first", "second") for name in names}
    assert all(record.n == 2 and record.solve_rate == 0 for record in records)
    assert by_cell["first", "silent"].effort_partner == 0 < by_cell["first", "silent"].effort_own
    assert by_cell["second", "copycat"].effort_partner == 0  # it has nothing to repeat at the first turn
    assert by_cell["first", "copycat"].effort_partner == by_cell["first", "copycat"].effort_own > 0
    assert by_cell["second", "wrong"].effort_own == 0  # the partner has finished before
    assert by_cell["second", "stranger"].effort_partner > 0
    assert -0.001 * 256 <= by_cell["first", "exported"].own_return < 0  # one turn of at most 256 tokens
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["records"]) == 12
