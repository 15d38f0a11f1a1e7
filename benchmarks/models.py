"""The models that are measured: the embedded one and a random Qwen2 of 0.5 billion parameters, both without an end.

Their end token takes the place of the byte 0xFF, which is in no text: the embedded model draws it three times in a
hundred million tokens, the random one once in its vocabulary. So replies run to their token limit (how long they really
were is counted). The tokenizer is that of the embedded model, filled up to the vocabulary.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

PUPIL = Path(__file__).parent.parent / "tasks" / "worksheet" / "models" / "pupil"
END, UNUSED = "<|never|>", "ÿ"  # how byte-level tokenizers write 0xFF
# https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}
LAYERS: int = QWEN["num_hidden_layers"]


def write_tiny(folder: Path) -> None:
    """The embedded model, with an end token that is never drawn."""
    shutil.copytree(PUPIL, folder)
    config = json.loads((folder / "config.json").read_text())
    end = _write_tokenizer(folder, config["vocab_size"])
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": end}))


def write_qwen(folder: Path, layers: int) -> None:
    """A random Qwen2 of the shape of Qwen2.5-0.5B, except the number of layers; in bfloat16 if there is a GPU."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(PUPIL / name, folder / name)
    end = _write_tokenizer(folder, QWEN["vocab_size"])
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": 0}
    model = Qwen2ForCausalLM(Qwen2Config(**{**QWEN, "num_hidden_layers": layers}, **ids))
    model.to(torch.bfloat16 if torch.cuda.is_available() else torch.float32).save_pretrained(folder)


def parameters(layers: int) -> int:
    """How many parameters a Qwen2 of that shape has."""
    hidden, inner, vocabulary = QWEN["hidden_size"], QWEN["intermediate_size"], QWEN["vocab_size"]
    keys = hidden // 14 * 2
    attention = 2 * hidden * hidden + hidden + 2 * (hidden * keys + keys)
    total: int = vocabulary * hidden + layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden
    return total


def _write_tokenizer(folder: Path, vocabulary: int) -> int:
    """Give the tokenizer in a folder so many tokens and another end token; returns the number of that."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    end: int = words.pop(UNUSED)
    words |= {END: end} | {f"x{number}": number for number in range(len(words) + 1, vocabulary)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": end, "content": END, **plain})
    path.write_text(json.dumps(tokenizer))
    template = folder / "chat_template.jinja"  # what it frames turns with ends a reply, too
    template.write_text(re.sub(r"<\|im_(start|end)\|>", END, template.read_text()))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": END}))
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "eos_token_id": end, "pad_token_id": 0})
    )
    return end


if __name__ == "__main__":  # in a process of its own: who measures stays small
    write_qwen(Path(sys.argv[1]), int(sys.argv[2]))
