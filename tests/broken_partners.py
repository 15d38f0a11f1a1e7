"""Partners with whom something is wrong, one way each: made on the spot, as lines of a roster."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from support import CHATML, make_bank, qwen2, qwen2_folder, qwen2_tokenizer, save_model
from transformers import BertConfig, BertForMaskedLM

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 100000000\n"
MODEL, ADAPTER = "model.safetensors", "adapter_model.safetensors"
PLAIN = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"

Make = Callable[[Path], str]  # given a folder, the partner without its name


def model(change: Callable[[Path], None]) -> Make:
    """A model whose folder is changed after it was saved."""

    def make(folder: Path) -> str:
        tokenizer = qwen2_tokenizer()
        change(save_model(qwen2(tokenizer), tokenizer, folder))
        return f"kind: model, policy: {folder}"

    return make


def adapter(change: Callable[[Path], None]) -> Make:
    """An adapter whose folder is changed after it was saved."""

    def make(folder: Path) -> str:
        make_bank(qwen2_folder(), ["agent"]).save(folder)
        change(folder / "agent")
        return f"kind: adapter, policy: {folder}/agent"

    return make


def script(text: str) -> Make:
    """A script with a class `Bad`."""

    def make(folder: Path) -> str:
        folder.mkdir()
        (folder / "bad.py").write_text(text)
        return f"kind: scripted, policy: '{folder}/bad.py:Bad'"

    return make


def replies(body: str) -> Make:
    return script(f"class Bad:\n    def reply(self, messages, rng):\n        {body}\n")


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def config(**values: object) -> Callable[[Path], None]:
    """Other values in an adapter's configuration."""

    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def with_template(template: str, eos: str | None = "<|im_end|>") -> Make:
    def make(folder: Path) -> str:
        tokenizer = qwen2_tokenizer()
        tokenizer.chat_template = template
        tokenizer.eos_token = eos
        own = qwen2(tokenizer)
        own.generation_config.eos_token_id = own.config.eos_token_id = tokenizer.eos_token_id
        save_model(own, tokenizer, folder)
        return f"kind: model, policy: {folder}"

    return make


def with_weights(change: Callable[[torch.nn.Module], None], context: int = 256) -> Make:
    def make(folder: Path) -> str:
        tokenizer = qwen2_tokenizer()
        own = qwen2(tokenizer, context)
        with torch.no_grad():
            change(own)
        save_model(own, tokenizer, folder)
        return f"kind: model, policy: {folder}"

    return make


def spoilt_adapter(value: float, part: str) -> Make:
    def make(folder: Path) -> str:
        bank = make_bank(qwen2_folder(), ["agent"])
        with torch.no_grad():
            next(p for n, p in bank.model.named_parameters() if f"{part}.agent" in n).view(-1)[3] = value
        bank.save(folder)
        return f"kind: adapter, policy: {folder}/agent"

    return make


def first(value: float) -> Callable[[torch.nn.Module], None]:
    return lambda own: next(own.parameters()).view(-1)[5].fill_(value) and None


def loud(own: torch.nn.Module) -> None:
    """Finite weights whose products are not."""
    for parameter in own.model.layers.parameters():  # type: ignore[union-attr, operator]
        parameter.mul_(1e30)


def bert(folder: Path) -> str:
    """A model each of whose tokens sees all others."""
    tokenizer = qwen2_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    save_model(BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)), tokenizer, folder)
    return f"kind: model, policy: {folder}"


def beyond_embeddings(folder: Path) -> str:
    """A template that writes a token of the tokenizer that the model does not have."""
    tokenizer = qwen2_tokenizer()
    own = qwen2(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|extra|>"]})
    tokenizer.chat_template = "{{ '<|extra|>' }}" + CHATML
    save_model(own, tokenizer, folder)
    return f"kind: model, policy: {folder}"


def of_another_base(folder: Path) -> str:
    """An adapter that was trained on other weights than its base has now."""
    tokenizer = qwen2_tokenizer()
    other = save_model(qwen2(tokenizer, seed=7), tokenizer, folder / "other")
    make_bank(other, ["agent"]).save(folder)
    return f"kind: adapter, policy: {folder}/agent, base: {qwen2_folder()}"


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


REFUSING = "{{ raise_exception('nobody may ask') }}"
REFUSING_LATER = "{% if messages|length > 3 %}{{ raise_exception('too many') }}{% endif %}" + CHATML

# By name: how it is made, and what its reason says.
BROKEN: Mapping[str, tuple[Make, str]] = {
    "cut-model": (model(cut(MODEL)), "cut off or damaged: copy or download"),
    "pointer-model": (model(written(MODEL, POINTER)), "model.safetensors is a pointer of Git LFS.*git lfs pull"),
    "empty-model": (model(written(MODEL, "")), "cannot load the model"),
    "text-model": (model(written(MODEL, "<html>404</html>" * 9)), "cut off or damaged"),
    "torn-config": (model(cut("config.json")), "cannot load the model.*JSON"),
    "list-config": (model(written("config.json", "[]")), "cannot load the model"),
    "torn-tokenizer": (model(cut("tokenizer.json")), "cannot load the model"),
    "cut-adapter": (adapter(cut(ADAPTER)), "cannot be read.*cut off or damaged"),
    "pointer-adapter": (adapter(written(ADAPTER, POINTER)), "adapter_model.safetensors is a pointer of Git LFS"),
    "torn-adapter-config": (adapter(cut("adapter_config.json")), "can be read.*adapter_config.json"),
    "pointer-adapter-config": (adapter(written("adapter_config.json", POINTER)), "adapter_config.json is a pointer"),
    "torn-card": (adapter(cut("llm_sra.json")), "llm_sra.json cannot be read: it is not JSON"),
    "list-card": (adapter(written("llm_sra.json", "[1]")), "llm_sra.json cannot be read: expected an object"),
    "absurd-rank": (adapter(config(r=10**9)), "names rank 1000000000, its weights have 4"),
    "absurd-rank-of-a-layer": (
        adapter(config(rank_pattern={"q_proj": 10**8})),
        "names rank 100000000, its weights have 4",
    ),
    "no-rank": (adapter(config(r=0)), "names rank 0, expected a whole number of 1 or more"),
    "rank-in-words": (adapter(config(r="four")), "names rank 'four', expected a whole number"),
    "no-such-layer": (adapter(config(target_modules=["nowhere"])), "does not fit the base model"),
    "other-method": (adapter(config(peft_type="NOVEL")), "can be read"),
    "alora": (
        adapter(config(alora_invocation_tokens=[5, 6])),
        "has alora_invocation_tokens, which is not supp",
    ),
    "other-base": (of_another_base, "whose weights then differ"),
    "bert": (bert, "it is a 'bert' model .BertForMaskedLM., each of whose tokens sees later ones"),
    "no-tokenizer": (model(without("tokenizer.json", "tokenizer_config.json")), "its tokenizer has no vocabulary"),
    "no-weights": (model(without(MODEL)), "model.safetensors"),
    "beyond-embeddings": (beyond_embeddings, "writes tokens that the model does not have.*<|extra|>"),
    "recursive": (
        with_template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + CHATML),
        "maximum recursion depth",
    ),
    "endless": (
        with_template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + CHATML),
        "it takes more than 1,000,000 steps",
    ),
    "refusing": (with_template(REFUSING), "nobody may ask"),
    "refusing-later": (with_template(REFUSING_LATER), "too many"),
    "no-eos": (with_template(PLAIN, eos=None), "end-of-turn token|padding token"),
    "nan-model": (with_weights(first(float("nan"))), "hold NaN or infinity, first in model.embed_tokens"),
    "inf-model": (with_weights(first(float("inf"))), "hold NaN or infinity, first in model.embed_tokens"),
    "overflowing": (
        with_weights(loud),
        "log-probabilities of policy 'overflowing'.*not finite",
    ),
    "short-context": (with_weights(lambda own: None, context=8), "context of policy 'short-context' holds 8"),
    "nan-adapter": (spoilt_adapter(float("nan"), "lora_A"), "hold NaN or infinity, first in .*lora_A"),
    "inf-adapter": (spoilt_adapter(float("inf"), "lora_B"), "hold NaN or infinity, first in .*lora_B"),
    "raising": (replies("raise OSError('gone')"), r"'raising' .Bad. failed.*gone"),
    "raising-later": (replies("assert len(messages) < 3, 'enough'\n        return 'pass'"), "enough"),
    "mute": (replies("return None"), "must return a string, got NoneType"),
    "leaving": (replies("raise SystemExit(3)"), "SystemExit"),
    "no-python": (script("class Bad:\n    def reply(self messages"), "SyntaxError"),
    "no-module": (script("import no_such_module_anywhere"), "no_such_module_anywhere"),
    "leaving-at-once": (script("import sys\nsys.exit(4)"), "ends the program: exit code 4"),
    "without-reply": (script("class Bad:\n    pass\n"), "needs `reply"),
    "failing-to-start": (
        script(
            "class Bad:\n    def __init__(self):\n        {}['key']\n    def reply(self, m, r):\n        return ''\n"
        ),
        "KeyError: 'key'",
    ),
    "circular": (
        script(
            "class Bad:\n    def __init__(self):\n        self.own = [1]\n        self.own.append(self.own)\n"
            "    def reply(self, m, r):\n        return ''\n"
        ),
        "Circular|RecursionError",
    ),
}
