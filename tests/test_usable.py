"""Models that cannot be played are refused as they load, in one line: not causal, not whole, another's tokenizer."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from evaluation_support import SHORT, scripted
from partners_support import APPLE, roster
from support import CHATML, Toy, make_run, qwen2, qwen2_folder, qwen2_tokenizer, save_model
from training_support import train_tiny
from transformers import PreTrainedModel

from llm_sra import evaluate
from llm_sra.engines import EngineOptions, Request, make_engine
from llm_sra.engines.base import EngineError
from llm_sra.evaluation.results import read_summary
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import ModelError, load_model, read_config
from llm_sra.models.renderer import Renderer
from llm_sra.models.usable import NO_LIMIT, context_of
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message, Sampling

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ENCODER = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BOTH = "which reads with an encoder and writes with a decoder"
ALL = "each of whose tokens sees later ones, too"
NONE = "which transformers does not have as a causal language model"
# By class: its configuration, and why it is refused.
NOT_CAUSAL: dict[str, tuple[dict[str, Any], str]] = {
    "BertForMaskedLM": (SMALL, ALL),
    "BertLMHeadModel": (SMALL, ALL),
    "RobertaForMaskedLM": (SMALL, ALL),
    "ElectraForMaskedLM": ({**SMALL, "embedding_size": 32}, ALL),
    "XLNetLMHeadModel": ({"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64}, ALL),
    "DistilBertForMaskedLM": ({"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}, NONE),
    "ModernBertForMaskedLM": (SMALL, NONE),
    "T5ForConditionalGeneration": ({"d_model": 32, "d_kv": 16, "num_layers": 1, "num_heads": 2, "d_ff": 64}, BOTH),
    "BartForConditionalGeneration": (
        {**ENCODER, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        BOTH,
    ),
    "RwkvForCausalLM": ({"hidden_size": 32, "num_hidden_layers": 2}, "which reads padding as text: it cannot be"),
}


def made(name: str, shape: dict[str, Any], folder: Path) -> Path:
    """A random model of a class of transformers, with a tokenizer and a chat template."""
    tokenizer = qwen2_tokenizer()
    cls = getattr(transformers, name)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model: PreTrainedModel = cls(cls.config_class(vocab_size=len(tokenizer), **ids, **shape))
    return save_model(model, tokenizer, folder)


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_a_model_that_is_not_causal_is_refused_with_what_came_and_what_is_expected(name: str, tmp_path: Path) -> None:
    shape, why = NOT_CAUSAL[name]
    folder = str(made(name, shape, tmp_path / "model"))
    for load in (load_model, read_config):
        with pytest.raises(ModelError, match=rf"it is a '\w+' model \({name}\), {why}") as error:
            load(folder)
        assert "\n" not in str(error.value)
        assert why.startswith("which reads padding") or "whose class ends with ForCausalLM" in str(error.value)


def test_bert_as_a_decoder_is_causal_and_is_played(tmp_path: Path) -> None:
    folder = made("BertLMHeadModel", {**SMALL, "is_decoder": True}, tmp_path / "model")
    assert all(one.token_ids for one in replies(folder))


def replies(folder: Path, **options: Any) -> list[Any]:
    """What a model says to prompts of several lengths: together as it does alone."""
    model, tokenizer = load_model(str(folder))
    engine = make_engine(EngineOptions(**options), AdapterBank(model), Renderer(tokenizer))
    texts = ("a", "fig " * 9, "kiwi " * 3)
    asked = [
        Request(engine.renderer.render([Message("user", text)]), None, Sampling(1.0), 8, (), seed=len(text))
        for text in texts
    ]
    together = engine.generate(asked)
    assert [one.token_ids for one in together] == [engine.generate([one])[0].token_ids for one in asked]
    return together


@pytest.mark.parametrize(
    ("name", "shape", "context"),
    [
        ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, NO_LIMIT),
        ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, NO_LIMIT),
        ("MptForCausalLM", {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 128}, 128),
        ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96}, 96),
    ],
)
def test_a_context_has_other_names_or_no_limit(name: str, shape: dict[str, Any], context: int, tmp_path: Path) -> None:
    folder = made(name, shape, tmp_path / "model")
    assert context_of(read_config(str(folder))) == context
    assert all(one.token_ids for one in replies(folder))


def test_an_agent_on_a_base_without_a_limit_is_trained(tmp_path: Path) -> None:
    folder = made("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, tmp_path / "model")
    run = train_tiny(tmp_path / "run", model_name_or_path=folder, arm="ippo", max_steps=1, problems_per_step=2)
    assert (run.adapters / "left" / "adapter_model.safetensors").is_file()


def test_vllm_wants_a_context_where_the_model_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sra.engines.vllm.import_vllm", lambda: None)
    folder = made("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, tmp_path / "model")
    model, tokenizer = load_model(str(folder))
    with pytest.raises(EngineError, match="names no context, and vLLM needs one: set vllm_max_model_length"):
        make_engine(EngineOptions(kind="vllm"), AdapterBank(model), Renderer(tokenizer))


@pytest.mark.parametrize("name", ["Qwen2Model", "Qwen2ForSequenceClassification"])
def test_a_model_without_a_head_is_refused_and_gets_no_random_one(name: str, tmp_path: Path) -> None:
    folder = made(name, {**SMALL, "num_key_value_heads": 1}, tmp_path / "model")
    with pytest.raises(
        ModelError, match=rf"lack lm_head.weight \(1 missing\), which would be random.*names {name}, ex"
    ):
        load_model(str(folder))


WITHOUT = {
    "the vocabulary": ("tokenizer.json",),
    "all of it": ("tokenizer.json", "tokenizer_config.json"),
    "all of it, and the template": ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_a_folder_without_a_tokenizer_says_what_is_missing(case: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen2_folder(), tmp_path / "model"))
    for name in WITHOUT[case]:
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"its tokenizer has no vocabulary: expected tokenizer\.json.*beside config"):
        load_model(str(folder))


def with_tokens(folder: Path, template: str = "", **special: str) -> Path:
    """A model whose tokenizer has two tokens that it has no embeddings of; the template may write them."""
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|extra|>"], **special})
    tokenizer.chat_template = template + CHATML
    return save_model(model, tokenizer, folder)


def test_a_token_that_the_model_lacks_and_the_template_writes_is_an_error_before_training(tmp_path: Path) -> None:
    folder = with_tokens(tmp_path / "model", "{{ '<|extra|>' }}")
    said = r"cannot be asked: its chat template writes tokens.*embeddings of \d+ tokens.* gives number \d+ to '<\|extra"
    with pytest.raises(ModelError, match=said) as error:
        train_tiny(tmp_path / "run", model_name_or_path=folder, arm="ippo")
    assert "\n" not in str(error.value) and not (tmp_path / "run" / "config.yaml").exists()


def test_such_a_partner_is_missing_and_all_others_play(tmp_path: Path) -> None:
    folder = with_tokens(tmp_path / "model", "{{ '<|extra|>' }}")
    run = make_run(tmp_path / "run", **SHORT)
    path = roster(tmp_path, f"name: extra, kind: model, policy: {folder}", *scripted("lazy"))
    records = evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"])
    assert "chat template writes tokens that the model does not have" in read_summary(tmp_path / "out").missing["extra"]
    assert {record.partner for record in records} == {"self-play", "lazy"}


def test_an_end_that_the_model_lacks_is_refused_if_there_is_no_other(tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|over|>"})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}"
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    folder = save_model(model, tokenizer, tmp_path / "model")
    loaded, own = load_model(str(folder))
    with pytest.raises(ModelError, match=r"no token that ends a reply is one of the model's.*to '<\|over\|>'"):
        make_engine(EngineOptions(), AdapterBank(loaded), Renderer(own))


def test_tokens_that_are_never_written_are_no_hindrance(tmp_path: Path) -> None:
    folder = with_tokens(tmp_path / "model", pad_token="<|fill|>")
    assert load_model(str(folder))[1].pad_token == "<|im_end|>"  # its own is none of the model's
    assert all(one.token_ids for one in replies(folder))
    with PolicyLoader(Toy()) as loader:  # what a partner says never becomes such a token
        policy = loader.partner(Entry("x", "model", str(folder)))["left"]
        assert isinstance(policy, EnginePolicy)
        ids = loader.engines[policy.engine].renderer.render([Message("user", "<|extra|>")])
        match = Match("m", {"left": policy, "right": policy})
        [episode] = play(Toy(turns=2), [EpisodeSpec(APPLE, match)], loader.engines, seed=0)
    assert max(ids) < qwen2(qwen2_tokenizer()).get_input_embeddings().weight.shape[0] and len(episode.turns) == 2


def test_the_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    model.resize_token_embeddings(len(tokenizer) - 20)
    folder = save_model(model, tokenizer, tmp_path / "model")
    with pytest.raises(ModelError, match=r"has embeddings of \d+ tokens, its tokenizer gives number \d+ to .* more be"):
        load_model(str(folder))
