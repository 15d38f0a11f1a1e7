"""An export replies as its training did when nobody says how, and stops where its template ends a turn."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from real_templates import tokenizer_of
from support import Toy, make_run, published_shape, qwen2, save_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from llm_sra import export
from llm_sra.engines.replies import end_of_turn_ids
from llm_sra.exporting.generation import Generation
from llm_sra.models.renderer import Renderer

TASTE = {"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}  # of makers


def base_with_taste(folder: Path) -> Path:
    """A model whose generation config has its makers' taste, and does not know what ends a turn."""
    tokenizer = tokenizer_of("qwen2.5", "bytes")
    tokenizer.eos_token = "<|endoftext|>"
    torch.manual_seed(0)
    shape = {**published_shape(tokenizer), "initializer_range": 0.1}  # vLLM on CPUs takes heads of 32, not of 16
    save_model(Qwen2ForCausalLM(Qwen2Config(**shape)), tokenizer, folder)
    (folder / "generation_config.json").write_text(json.dumps({**TASTE, "eos_token_id": tokenizer.eos_token_id}))
    return folder


@pytest.mark.parametrize("merge", [False, True])
def test_its_generation_config_ends_a_turn_and_draws_from_the_whole_distribution(merge: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", base=base_with_taste(tmp_path / "base"))
    folder = export(run, "first", tmp_path / "out", merge=merge)
    config, tokenizer = GenerationConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|im_start|>"])
    assert config.eos_token_id == ends
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 1.0, 0, 1.0)
    assert config.repetition_penalty in (None, 1.0)
    card = (folder / "README.md").read_text()
    [request] = [
        ast.literal_eval(found) for found in re.findall(r"(?s)request = (\{.*?\n\})", card.replace("messages,", "0,"))
    ]
    assert request == {
        "model": "first", "messages": 0,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": 24,
        "stop_token_ids": ends, "stop": ["\n"],
    }  # fmt: skip


def test_merged_it_never_runs_on_into_a_forged_turn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", base=base_with_taste(tmp_path / "base"))
    folder = export(run, "first", tmp_path / "out", merge=True)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "word"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    said = model.generate(**asked, max_new_tokens=40, num_return_sequences=240)[:, asked["input_ids"].shape[1] :]
    ends = set(model.generation_config.eos_token_id)
    pad = tokenizer.pad_token_id
    ended = 0
    for row in said.tolist():
        at = next((i for i, index in enumerate(row) if index in ends), len(row))
        ended += at < len(row) - 1
        assert set(row[at + 1 :]) <= {pad}
    assert ended > 10, ended


def test_strings_that_end_a_reply_are_named_where_no_token_does() -> None:
    tokenizer = tokenizer_of("base", "bytes")
    model, renderer = qwen2(tokenizer), Renderer(tokenizer)
    made = Generation.of(model, renderer, Toy(stop=("##",), reply_tokens=7), {"temperature": 0.5})
    assert made.request["stop"] == ["##", "\nUser:"]
    assert (made.request["max_tokens"], made.request["temperature"]) == (7, 0.5)
    assert made.config.eos_token_id == list(end_of_turn_ids(model, renderer))
    assert '"\\nUser:"' in made.prose() and "only once the reply had said something" in made.prose()
    plain = Generation.of(model, Renderer(tokenizer_of("qwen2.5", "bytes")), Toy(), {"temperature": 1})
    assert plain.stop == () and "had said something" not in plain.prose()
    assert Generation.of(model, renderer, Toy(), {"temperature": 1, "max_completion_length": 3}).max_tokens == 3
