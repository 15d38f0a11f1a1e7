"""Tries small random models of public families: `python -m benchmarks.families` prints the table of docs/models.md.

Each model has the real architecture, and a template and tokenizer that behave as its family's. What is tried: one step
of training; its agents beside each other in one call of the engine; evaluation with them and with the model itself as
partners of a roster; a merge (largest difference of logits); an export; the agents in vLLM (largest difference of
log-probabilities from the trainer's), where vLLM is installed.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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
        "qwen3.5",
        "bytes of qwen",
        {"head_dim": 32, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Llama 3": ("Llama", "llama3.1", "bytes", {}),
    "Gemma 2": ("Gemma2", "gemma2", "gemma", {"head_dim": 32}),
    "Gemma 3": ("Gemma3Text", "gemma3", "gemma", {"head_dim": 32}),
    "Phi-3": ("Phi3", "phi3", "llama legacy", {}),
    "Mistral": ("Mistral", "mistral-v0.3", "llama legacy", {}),
    "SmolLM2": ("Llama", "smollm2", "bytes", {"tie_word_embeddings": True}),
    "LFM2": ("Lfm2", "lfm2", "bytes", {"layer_types": ["conv", "full_attention"]}),
    "BLOOM": ("Bloom", "base", "bytes", {"max_position_embeddings": None}),  # it has no limit
    "GPT-OSS": ("GptOss", "gpt-oss", "bytes", {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
THINKS = {"Qwen3.5": {"enable_thinking": False}}  # or its few tokens are a thought that was cut
COLUMNS = ("train", "partner `adapter`", "partner `model`", "merge", "export", "vLLM")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SAME = 1e-3  # largest difference of logits, or of log-probabilities, that counts as none


def write_model(family: str, folder: Path) -> None:
    """A random model of a family."""
    from real_templates import tokenizer_of

    name, template, kind, more = FAMILIES[family]
    tokenizer = tokenizer_of(template, kind)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    shape = {key: value for key, value in {**shape, **more}.items() if value is not None}
    config = getattr(transformers, f"{name}Config")(**shape, **ids, initializer_range=0.1)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Family:
    """What is tried with one family; each method says what came of it.

    Args:
        name: A key of `FAMILIES`.
        folder: Empty.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.model, self.run = folder / "model", folder / "run"

    def tries(self) -> Iterator[Callable[[], str]]:
        """In the order of `COLUMNS`."""
        yield from (self.train, self.adapter, self.whole, self.merge, self.export, self.vllm)

    def train(self, **flags: Any) -> str:
        """One step."""
        from training_support import trained

        write_model(self.name, self.model)
        step = {"arm": "ippo", "max_steps": 1, "problems_per_step": 2, **flags}
        if self.name in THINKS:
            step["chat_template_kwargs"] = THINKS[self.name]
        _, _, moved = trained(self.run, model_name_or_path=self.model, **step)
        return "yes" if all(change.abs().max() > 0 for change in moved.values()) else "no: nothing was learned"

    def adapter(self) -> str:
        """The agents as partners, and beside each other what they say alone."""
        from support import Toy

        from llm_sra.partners.loader import PolicyLoader
        from llm_sra.partners.rosters import Entry
        from llm_sra.policies import EnginePolicy

        policy = str(self.run / "adapters" / "{seat}")
        with PolicyLoader(Toy()) as loader:
            seats = loader.partner(Entry("x", "adapter", policy, {"base": str(self.model)}))
            agents = [policy for policy in seats.values() if isinstance(policy, EnginePolicy)]
            engine = loader.engines[agents[0].engine]
            asked = _asked(engine, [agent.adapter for agent in agents])
            together = [one.token_ids for one in engine.generate(asked)]
            if together != [engine.generate([one])[0].token_ids for one in asked]:
                return "no: it says something else beside others"
        return self._evaluated(f"{{name: x, kind: adapter, policy: '{policy}', base: {self.model}}}")

    def whole(self) -> str:
        """The model itself as a partner."""
        asked = f", chat_template_kwargs: {json.dumps(THINKS[self.name])}" if self.name in THINKS else ""
        return self._evaluated(f"{{name: x, kind: model, policy: {self.model}{asked}}}")

    def _evaluated(self, entry: str) -> str:
        from llm_sra import evaluate
        from llm_sra.evaluation.results import read_summary

        roster, out = self.folder / "roster.yaml", self.folder / "evaluation"
        roster.write_text(f"partners: [{entry}]\n")
        evaluate([self.run], roster, out, problems=1, disable_tqdm=True)
        summary = read_summary(out)
        if summary.missing:
            return f"no: {summary.missing['x']}"
        return "yes" if any(record.partner == "x" for record in summary.records) else "no: it was not played"

    def merge(self) -> str:
        """The largest difference of logits between the adapter on its base and the merged model."""
        from peft import PeftModel

        from llm_sra import export
        from llm_sra.models.loading import load_model

        merged = export(self.run, "left", self.folder / "merged", merge=True)
        adapted = PeftModel.from_pretrained(load_model(str(self.model))[0], str(self.run / "adapters" / "left")).eval()
        ids = torch.tensor([[5, 60, 7, 80]])
        with torch.no_grad():
            difference = adapted(input_ids=ids).logits - load_model(str(merged))[0].eval()(input_ids=ids).logits
        return _same(difference.abs().max().item())

    def export(self) -> str:
        """As an adapter."""
        from llm_sra import export

        export(self.run, "left", self.folder / "out")
        return "yes"

    def vllm(self) -> str:
        """The agents and their base in one call of vLLM."""
        if find_spec("vllm") is None:
            return "not tried"
        from llm_sra.engines.base import EngineError

        stacked = "attention alone" if self._has_stacked_experts() else ""
        if stacked:
            self.train(lora_target_modules=ATTENTION, overwrite_output_dir=True)
        try:
            worst = self._in_vllm()
        except EngineError as error:
            if missing := re.search(r"architectures \['(\w+)'\] are not supported", str(error)):
                return f"no: it does not have {missing[1]}"
            raise
        return ", ".join(part for part in (_same(worst), stacked) if part)

    def _has_stacked_experts(self) -> bool:
        from llm_sra.models.adapters import read_adapter_config

        return bool(read_adapter_config(self.run / "adapters" / "left").target_parameters)

    def _in_vllm(self) -> float:
        """The largest difference of log-probabilities of replies, vLLM's from the trainer's."""
        from support import Toy

        from llm_sra.engines import EngineOptions
        from llm_sra.partners.loader import PolicyLoader
        from llm_sra.runs import Run

        with PolicyLoader(Toy(), EngineOptions(kind="vllm", max_model_length=1024)) as loader, torch.no_grad():
            team = loader.team(Run.open(self.run))
            engine, bank = loader.engines[team.engines["left"]], loader._banks[team.engines["left"]]
            asked = _asked(engine, [*team.heroes.values(), None])
            worst = 0.0
            for request, done in zip(asked, engine.generate(asked), strict=True):
                ids = torch.tensor([[*request.prompt_ids, *done.token_ids]])
                with bank.using(request.adapter):
                    logits = bank.model.eval()(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1]
                own = logits.log_softmax(-1)[torch.arange(len(done.token_ids)), torch.tensor(done.token_ids)]
                worst = max(worst, (own - torch.tensor(done.logprobs)).abs().max().item())
        return worst


def _asked(engine: Any, adapters: list[str | None]) -> list[Any]:
    from llm_sra.engines import Request
    from llm_sra.task import Message, Sampling

    ids = engine.renderer.render([Message("user", "word: fig")])
    return [Request(ids, name, Sampling(1.0), 8, (), seed=1) for name in adapters]


def _same(difference: float) -> str:
    return f"{'yes' if difference < SAME else 'no'}, {difference:.0e}"


def row(family: str) -> str:
    """The table's row of a family."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for attempt in Family(family, Path(folder)).tries():
            try:
                cells.append(attempt())
            except Exception as error:  # whatever it is, the table says it
                cells.append(f"no: {type(error).__name__}: {' '.join(str(error).split())[:160]}".replace("|", "/"))
    return f"| {family} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(f"| family | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    for family in sys.argv[1:] or FAMILIES:
        print(row(family), flush=True)
