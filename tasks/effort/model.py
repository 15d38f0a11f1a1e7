"""Makes the tiny untrained model that the tests of training start from: `python -m tasks.effort.model --out DIR`.

It is random, but begins close to uniform over the words of any game, and an adapter can still move it close to any one
of them. Small weights alone would not allow that: embeddings, which adapters do not change, bound a model's logits (the
last norm fixes the length of the vector that they are multiplied with). So the embeddings are wide; the words and all
other tokens use different dimensions; and the layers add little at first.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from llm_sra.games.known import KNOWN
from tasks.effort.options import LETTERS
from tasks.effort.task import Effort
from tasks.starting_model import CONTEXT, ROLES, byte_level_tokenizer, save

# Words of one token each: the actions of all known games, and letters for other games.
NAMES = tuple(dict.fromkeys(name for game in KNOWN.values() for names in game.actions for name in names))
# Came after the model had been made. Its tokens are the last, and their embeddings are drawn last: the others stay.
LATER = ("spoil",)
BEFORE = 377  # tokens without it
WORDS = tuple(name for name in NAMES if name not in LATER) + LETTERS[:8] + LATER
HIDDEN = 32
# Weights are uniform in [-width, width].
WIDTH = 0.25
WRITING_WIDTH = 0.01  # of the matrices that write a layer's result
WORD_WIDTH = 0.6  # of the words' embeddings: their logits can differ by some 10
OTHER_WIDTH = 0.5  # of the other tokens' embeddings: the wider they are, the less a step of an adapter changes


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which the words, and the other words of the known games' prompts, are tokens. ChatML."""
    tasks = [Effort(game=name) for name, game in KNOWN.items() if not set(LATER).intersection(*game.actions)]
    prompts = [message.content for task in tasks for seat in task.seats for message in task.view((), seat)]
    return byte_level_tokenizer([*WORDS[: -len(LATER)], *ROLES, *prompts], later=LATER)


def player(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    """An untrained Qwen2 of about 30,000 parameters, embeddings tied. The same seed makes the same model."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=1,  # of 32 numbers: vLLM's CPU build takes no fewer
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config).eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        for name, weight in model.named_parameters():
            if weight.ndim == 2:  # not normal numbers, which may differ between kinds of processors
                width = WRITING_WIDTH if "o_proj" in name or "down_proj" in name else WIDTH
                drawn = weight[:BEFORE] if weight is embeddings else weight
                drawn.uniform_(-width, width, generator=rng)
        embeddings[BEFORE:].uniform_(-WIDTH, WIDTH, generator=rng)
        is_word = torch.zeros(len(tokenizer), 1, dtype=torch.bool)
        is_word[tokenizer.convert_tokens_to_ids(list(WORDS))] = True
        embeddings.mul_(torch.where(is_word, WORD_WIDTH, OTHER_WIDTH) / WIDTH)
        embeddings.mul_(is_word != (torch.arange(HIDDEN) < HIDDEN // 2))  # words have the second half
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder `player` is written here")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    made = tokenizer()
    save(player(made, options.seed), made, options.out / "player")


if __name__ == "__main__":
    main()
