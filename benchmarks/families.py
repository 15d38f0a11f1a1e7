"""Tries small random models of public families: `python -m benchmarks.families` prints the table of docs/models.md.

Each model has the real architecture, and the template of its family in a short form. What is tried: one step of
training, its agents beside each other in one call of the engine, a merge (largest difference of logits), an export.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

# Family: its class, its template and tokenizer in tests/real_templates.py, and what else its configuration needs.
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "Qwen2": ("Qwen2", "qwen2.5", "bytes of qwen", {}),
    "Qwen3": ("Qwen3", "qwen3", "bytes of qwen", {"head_dim": 32}),
    "Qwen3-MoE": ("Qwen3Moe", "qwen3", "bytes of qwen", {"head_dim": 32, **MOE}),
    "Qwen3.5": (
        "Qwen3_5Text",
        "qwen3",
        "bytes of qwen",
        {"head_dim": 32, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Llama 3": ("Llama", "llama3.1", "bytes", {}),
    "Gemma 2": ("Gemma2", "gemma2", "gemma", {"head_dim": 32}),
    "Gemma 3": ("Gemma3Text", "gemma3", "gemma", {"head_dim": 32}),
    "Phi-3": ("Phi3", "phi3", "llama legacy", {}),
    "Mistral": ("Mistral", "mistral-v0.3", "llama legacy", {}),
    "SmolLM2": ("Llama", "smollm2", "bytes", {"tie_word_embeddings": True}),
    "LFM2": ("Lfm2", "qwen2.5", "bytes", {"layer_types": ["conv", "full_attention"]}),
    "GPT-OSS": ("GptOss", "gpt-oss", "bytes", {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
COLUMNS = ("train", "play as partner", "merge", "export")


def write_model(family: str, folder: Path) -> None:
    """A random model of a family."""
    from real_templates import tokenizer_of

    name, template, kind, more = FAMILIES[family]
    tokenizer = tokenizer_of(template, kind)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = getattr(transformers, f"{name}Config")(**shape, **ids, initializer_range=0.1, **more)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tries(family: str, folder: Path) -> Iterator[Callable[[], str]]:
    """What is tried with a family, in order; each says what came of it."""
    from peft import PeftModel
    from support import Toy
    from training_support import train_tiny

    from llm_sra import export
    from llm_sra.models.loading import load_model
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.runs import Run

    def train() -> str:
        write_model(family, folder / "model")
        train_tiny(folder / "run", model_name_or_path=folder / "model", arm="ippo", max_steps=1, problems_per_step=2)
        return "yes"

    def partner() -> str:
        from llm_sra.engines import Request
        from llm_sra.task import Message, Sampling

        with PolicyLoader(Toy()) as loader:
            team = loader.team(Run.open(folder / "run"))
            engine = loader.engines[team.engine]
            ids = engine.renderer.render([Message("user", "word: fig")])
            said = [Request(ids, name, Sampling(1.0), 4, (), seed=1) for name in team.heroes.values()]
            together = [one.token_ids for one in engine.generate(said)]
            return "yes" if together == [engine.generate([one])[0].token_ids for one in said] else "differs alone"

    def merge() -> str:
        merged = export(folder / "run", "left", folder / "merged", merge=True)
        model = load_model(str(folder / "model"))[0]
        adapted = PeftModel.from_pretrained(model, str(folder / "run" / "adapters" / "left")).eval()
        ids = torch.tensor([[5, 60, 7, 80]])
        with torch.no_grad():
            difference = adapted(input_ids=ids).logits - load_model(str(merged))[0].eval()(input_ids=ids).logits
        return f"yes, {difference.abs().max().item():.0e}"

    def adapter() -> str:
        export(folder / "run", "left", folder / "out")
        return "yes"

    yield from (train, partner, merge, adapter)


def row(family: str) -> str:
    """The table's row of a family."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for attempt in tries(family, Path(folder)):
            try:
                cells.append(attempt())
            except Exception as error:  # whatever it is, the table says it
                cells.append(f"no: {type(error).__name__}: {' '.join(str(error).split())[:120]}".replace("|", "/"))
    return f"| {family} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(f"| family | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    for family in sys.argv[1:] or FAMILIES:
        print(row(family), flush=True)
