"""How an export is loaded and asked, for its model card: lines of Python and of a shell that run as they stand."""

import json
from collections.abc import Iterable
from typing import Any

from llm_sra.engines.vllm import RANKS
from llm_sra.exporting.exported import Exported, literal, word
from llm_sra.untrusted import as_markdown, one_line

WRAPPED = " \\\n    "  # between the lines of a command
URL = "http://localhost:8000/v1/chat/completions"  # of vLLM's server


def section(exported: Exported) -> str:
    """What the card says."""
    parts = [
        "## Use",
        _where_the_base_is(exported),
        f"### With {'transformers' if exported.merged else 'transformers and PEFT'}",
        f"```python\n{_loading(exported)}\n```",
        _asking(exported),
        f"### With vLLM\n\n```bash\n{_serving(exported)}\n```",
        _requesting(exported),
        *([] if exported.merged else ["Other agents on the same base are further `NAME=FOLDER` of `--lora-modules`."]),
        "### How it replies",
        _template(exported),
        *(each.prose() for each in exported.choices or (exported.generation,) if each),
    ]
    return "\n\n".join(part for part in parts if part)


def _where_the_base_is(exported: Exported) -> str:
    if exported.merged or exported.base_on_hub:
        return ""
    if not exported.ships:
        return f"`{one_line(exported.base_shown)}` stands for the folder of the base model, which is not on the hub."
    line = f"from llm_sra.registry import find_model; print(find_model({literal(exported.base)}))"
    return f"The base model ships with llm-sra; its folder, here `{exported.base_shown}`, is what this prints:\n\n" + (
        f"```bash\npython -c {word(line)}\n```"
    )


def _loading(exported: Exported) -> str:
    """Python that makes `model` and `tokenizer`."""
    where = literal(exported.where)
    if exported.merged:
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"model = AutoModelForCausalLM.from_pretrained({where})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({where})"
        )
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({literal(exported.base_shown)})\n"
        f"model = PeftModel.from_pretrained(base, {where})\n"
        f"model.generation_config = GenerationConfig.from_pretrained({where})  # not the base's\n"
        f"tokenizer = AutoTokenizer.from_pretrained({where})"
    )


def _asking(exported: Exported) -> str:
    """Python that asks what `_loading` made the prompt of the example."""
    if not exported.example or not (exported.allowed or exported.generation):
        return ""
    before, how = "", {}
    if exported.allowed:
        ids, words = list(exported.allowed.ids), ", ".join(exported.allowed.words)
        before = f"allowed = {ids}  # {one_line(words)}\n"
        how = {
            "max_new_tokens": "1",
            "do_sample": "True",
            "top_k": "0",
            "prefix_allowed_tokens_fn": "lambda batch, ids: allowed",
        }
    elif exported.generation:
        how = {"max_new_tokens": str(exported.generation.max_tokens)}
        if exported.generation.stop:
            how |= {"stop_strings": json.dumps(list(exported.generation.stop)), "tokenizer": "tokenizer"}
    arguments = "".join(f"    {name}={value},\n" for name, value in how.items())
    return (
        "With the `messages` of the example:\n\n```python\n"
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)\n'
        f"{before}output = model.generate(\n    **inputs,\n{arguments})\n"
        'reply = output[0, inputs["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(reply, skip_special_tokens=True))\n```"
    )


def _serving(exported: Exported) -> str:
    """The command that starts vLLM's server."""
    where = word(exported.where)
    if exported.merged:
        return f"vllm serve {where} --served-model-name {word(exported.policy)}"
    rank = next((room for room in RANKS if room >= exported.rank), exported.rank)
    lines = [
        f"vllm serve {word(exported.base_shown)} --enable-lora --max-lora-rank {rank}",
        f"--lora-modules {word(f'{exported.policy}={exported.where}')}",
        f"--generation-config {where}",
    ]
    if exported.asked:
        lines.append(f"--chat-template {word(f'{exported.where}/chat_template.jinja')}")
    return WRAPPED.join(lines)


def _requesting(exported: Exported) -> str:
    """Python that asks the server the prompt of the example."""
    if not exported.example or not (exported.allowed or exported.generation):
        return ""
    fields: dict[str, Any] = {}
    if exported.allowed:
        fields = {"max_tokens": 1, "temperature": 1.0, "top_k": 0, "allowed_token_ids": list(exported.allowed.ids)}
    elif exported.generation:
        fields = exported.generation.request
    lines = [f'    "{name}": {json.dumps(value)},' for name, value in fields.items()]
    return (
        "Then, in Python, with the `messages` of the example:\n\n```python\nimport httpx\n\nrequest = {\n"
        + "\n".join([f'    "model": {literal(exported.policy)},', '    "messages": messages,', *lines])
        + f'\n}}\nanswer = httpx.post("{URL}", json=request, timeout=60).json()\n'
        'print(answer["choices"][0]["message"]["content"])\n```'
    )


def _template(exported: Exported) -> str:
    """How the agent is asked, where that is not as its base is."""
    if not exported.asked:
        return ""
    notes: Iterable[str] = map(as_markdown, exported.asked)
    return (
        "The chat template in this folder asks as the training did. It differs from the base model's own: "
        f"{'; '.join(notes)}."
    )
