"""The two embedded models before any training: architecture, tokenizer, chat template and habits of each.

They differ in everything in which an unknown partner may differ. Both tokenizers keep `pass`, each digit and each sign
as one token, never join text across a line break, and take any text without loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from tasks.starting_model import CONTEXT, INITIAL_SCALE, ROLES, byte_level_tokenizer, qwen2
from tasks.worksheet.lessons import Habit
from tasks.worksheet.sheet import PASS

WORDS = (PASS, *ROLES)

# The same as `CHATML` in the form of Llama 3.
HEADERS = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Blueprint:
    """How one embedded model is made.

    Attributes:
        tokenizer: Makes its tokenizer.
        model: Makes its untrained model for that tokenizer.
        habit: What it is taught to do.
        steps: Optimizer steps that it is trained for.
        seed: Number added to the seed, so that the two models learn from different lessons.
    """

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    model: Callable[[PreTrainedTokenizerFast], PreTrainedModel]
    habit: Habit
    steps: int
    seed: int


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML."""
    return byte_level_tokenizer(WORDS)


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram; white space is a visible sign, unknown characters are bytes. Headers like Llama 3's."""
    # A byte scores lower than the characters of its name, so that text like `<0x0A>` stays text.
    vocabulary = [("<unk>", -100.0)] + [(f"<0x{byte:02X}>", -100.0) for byte in range(256)]
    vocabulary += [(character, -6.0) for character in [*map(chr, range(33, 127)), "▁", "\n"]]
    vocabulary += [(word, -4.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="never"), decoders.Fuse()]
    )
    control = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|pad|>",
        chat_template=HEADERS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def llama(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained Llama of about 0.4 M parameters with grouped key-value heads, embeddings not tied."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=INITIAL_SCALE,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


BLUEPRINTS = {
    "pupil": Blueprint(word_tokenizer, qwen2, Habit(right=0.5, rest=0.33), steps=1600, seed=0),
    "stranger": Blueprint(
        unigram_tokenizer, llama, Habit(right=0.6, rest=0.25, slips=("sum", "skip")), steps=900, seed=1000
    ),
}
