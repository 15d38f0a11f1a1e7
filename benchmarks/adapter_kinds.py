"""Tries kinds of adapters on small random models: `python -m benchmarks.adapter_kinds`, for a table of docs/models.md.

What is tried: one step of training with a recipe's fields, and its merge (largest difference of logits); an adapter
that PEFT alone made, as a partner beside a plain one: whether it says what PEFT says, and what it shares with others.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from benchmarks.families import SAME

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
TARGETS = ["q_proj", "v_proj", "down_proj"]
IDS = torch.tensor([[5, 60, 7, 80]])


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Attributes:
        name: In the table.
        recipe: Fields of a recipe that ask for it; None: there are none.
        peft: Fields of PEFT's that do.
        how: How its base is loaded.
        experts: Whether its base is a mixture of experts.
    """

    name: str
    recipe: Mapping[str, Any] | None = None
    peft: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)
    experts: bool = False


KINDS = (
    Kind("LoRA", {}),
    Kind("rsLoRA", {"use_rslora": True}, {"use_rslora": True}),
    Kind("ranks and alphas by module", None, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 1}}),
    Kind("DoRA", {"use_dora": True}, {"use_dora": True}),
    Kind("biases of LoRA's own", None, {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}),
    Kind("stacked experts", {}, {"target_modules": ["q_proj"], "target_parameters": EXPERTS}, experts=True),
    Kind("base of 4 bits", {"load_in_4bit": True}, how={"load_in_4bit": True}),
    Kind("base of 8 bits", {"load_in_8bit": True}, how={"load_in_8bit": True}),
    Kind("modules trained whole", {"lora_modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"]}),
    Kind("single tokens", None, {"trainable_token_indices": {"embed_tokens": [5, 60]}}),
    Kind("biases of the base", None, {"bias": "all"}),
    Kind(
        "`lm_head` as a target",
        {"lora_target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ),
    Kind(
        "embeddings as a target",
        {"lora_target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ),
    Kind("started from the base's weights (PiSSA, OLoRA)", None, {"init_lora_weights": "pissa"}),
    Kind("from certain tokens on (aLoRA)", None, {"alora_invocation_tokens": [60, 7]}),
)


def _base(kind: Kind, folder: Path) -> Path:
    from support import published_shape, qwen2_tokenizer, save_model
    from test_adapter_kinds import moe_folder
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if kind.experts:
        return Path(moe_folder(folder))
    tokenizer = qwen2_tokenizer()
    torch.manual_seed(0)
    shape = {**published_shape(tokenizer), "initializer_range": 0.2}
    return Path(save_model(Qwen2ForCausalLM(Qwen2Config(**shape)), tokenizer, folder / "base"))


def _loaded(kind: Kind, base: Path) -> Any:
    from llm_sra.models.loading import load_model, quantization_of

    return load_model(str(base), quantization=quantization_of(kind.how))[0].eval()


def trained(kind: Kind, base: Path, folder: Path) -> str:
    """A step of training, and the merge of what it made."""
    from peft import PeftModel
    from training_support import trained as train

    from llm_sra import export
    from llm_sra.models.adapters import AdapterError
    from llm_sra.models.loading import load_model
    from llm_sra.runs import RunError
    from llm_sra.trainer.parse import ConfigError

    if kind.recipe is None:
        return "no field for it"
    options = {"arm": "ippo", "max_steps": 1, "problems_per_step": 2, "num_generations": 2, "disable_tqdm": True}
    try:
        run, _, moved = train(folder / "run", model_name_or_path=base, **options, **kind.recipe)
    except (ConfigError, AdapterError):
        return "refused"
    if not all(change.abs().max() > 0 for change in moved.values()):
        return "no: nothing was learned"
    try:
        merged = load_model(str(export(run, "left", folder / "merged", merge=True)))[0].eval()
    except RunError:
        export(run, "left", folder / "out")
        return "yes, exported without merge"
    adapted = PeftModel.from_pretrained(_loaded(kind, base), str(run.adapters / "left")).eval()
    difference = float((adapted(input_ids=IDS).logits - merged(input_ids=IDS).logits).abs().max())
    return f"{'yes' if difference < SAME else 'no'}, merged to {difference:.0e}"


def made_elsewhere(kind: Kind, base: Path, folder: Path) -> str:
    """An adapter of PEFT's beside a plain one."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from support import Toy

    from llm_sra.models.adapters import AdapterError
    from llm_sra.models.mixed_adapters import MixedAdapters
    from llm_sra.partners.loader import PolicyLoader
    from llm_sra.partners.rosters import Entry

    for name, shape in (("plain", {}), ("kind", kind.peft)):
        options = {"r": 4, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **shape}
        if kind.experts and name == "plain":
            options["target_modules"] = TARGETS[:2]
        model = get_peft_model(_loaded(kind, base), LoraConfig(**options))
        torch.manual_seed(3)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder / name)
    expected = PeftModel.from_pretrained(_loaded(kind, base), str(folder / "kind")).eval()(input_ids=IDS).logits
    with PolicyLoader(Toy()) as loader:
        where = {"base": str(base), **kind.how}
        plain: Any = loader.partner(Entry("plain", "adapter", str(folder / "plain"), where))["left"]
        try:
            seat: Any = loader.partner(Entry("kind", "adapter", str(folder / "kind"), where))["left"]
        except AdapterError:
            return "refused"
        bank = loader._banks[seat.engine]
        with bank.using(seat.adapter):
            difference = float((bank.model.eval()(input_ids=IDS).logits - expected).abs().max())
        if difference >= SAME:
            return f"no: differs from PEFT's by {difference:.0e}"
        if seat.engine != plain.engine:
            return "yes, on a base of its own"
        return "yes, in a batch of its own" if seat.adapter in MixedAdapters(bank.model).apart else "yes, in one batch"


def row(kind: Kind) -> str:
    """The table's row of a kind."""
    cells = []
    with tempfile.TemporaryDirectory() as name:
        base = _base(kind, Path(name))
        for attempt in (trained, made_elsewhere):
            try:
                if kind.how and find_spec("bitsandbytes") is None:
                    cells.append("not tried: needs bitsandbytes")
                elif attempt is made_elsewhere:
                    with torch.no_grad():
                        cells.append(attempt(kind, base, Path(name)))
                else:
                    cells.append(attempt(kind, base, Path(name)))
            except Exception as error:  # whatever it is, the table says it
                cells.append(f"no: {type(error).__name__}: {' '.join(str(error).split())[:160]}".replace("|", "/"))
    return f"| {kind.name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print("| kind | training | made elsewhere, as a partner |\n|---|---|---|", flush=True)
    for one in KINDS:
        if not sys.argv[1:] or one.name in sys.argv[1:]:
            print(row(one), flush=True)
