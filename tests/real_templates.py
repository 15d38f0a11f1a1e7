"""Chat templates that behave as those of public model families, and small tokenizers of each kind.

What a template does with tools, images and documents is left out, as no task sends any: all else is as in the public
ones, refusals, defaults, trimming and white space included. The words of default system texts are shorter.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CHATML_TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
CHATML_ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
LLAMA3_TURN = "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
LLAMA3_ASK = "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
LLAMA3_DATED = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}DATE{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' "
    "+ date_string + '\n\n' + system_message + '<|eot_id|>' }}"
    "{%- for m in messages %}" + LLAMA3_TURN + "{%- endfor %}" + LLAMA3_ASK
)
QWEN3_TURNS = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and message.role == 'user' and not (message.content.startswith('<tool_response>') "
    "and message.content.endswith('</tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}{%- set reasoning_content = '' %}"
    "{%- if '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last_query_index %}{%- if loop.last or reasoning_content %}"
    "{{- '<|im_start|>assistant\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' "
    "+ content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
)
MISTRAL_V01 = (
    "{{ bos_token }}{% for m in messages %}" + ALTERNATE + "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA_TURN = "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"

TEMPLATES: Mapping[str, str] = {
    "qwen2.5": (
        "{%- if messages[0]['role'] == 'system' %}"
        "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}"
        "{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
        "{%- endif %}{%- for m in messages %}{%- if m.role != 'system' or not loop.first %}"
        "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}" + CHATML_ASK
    ),
    "qwen3": QWEN3_TURNS + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}",
    "qwen3-thinking": QWEN3_TURNS + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}"
    "{%- endif %}",
    "r1": (
        "{% set ns = namespace(system_prompt='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
        "{% set ns.system_prompt = m['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system_prompt }}"
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
        "{% elif m['role'] == 'assistant' %}{% set content = m['content'] %}{% if '</think>' in content %}"
        "{% set content = content.split('</think>')[-1] %}{% endif %}"
        "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for m in loop_messages %}" + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + m['content'] %}"
        "{% else %}{% set content = m['content'] %}{% endif %}"
        "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{% set loop_messages = messages %}{% for m in loop_messages %}"
        "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'+ m['content'] | trim "
        "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
        "{% endfor %}" + LLAMA3_ASK
    ),
    "llama3.1": LLAMA3_DATED.replace("DATE", "{%- set date_string = '26 Jul 2024' %}"),
    "llama3.2": LLAMA3_DATED.replace(
        "DATE",
        "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
        "{%- set date_string = '26 Jul 2024' %}{%- endif %}",
    ),
    "mistral-v0.1": MISTRAL_V01,
    "mistral-v0.3": (
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
        "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
        "{{- bos_token }}{%- for m in loop_messages %}" + ALTERNATE + "{%- if m['role'] == 'user' %}"
        "{%- if loop.last and system_message is defined %}"
        "{{- '[INST] ' + system_message + '\n\n' + m['content'] + '[/INST]' }}{%- else %}"
        "{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
        "{%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
    ),
    "gemma2": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}" + ALTERNATE +
        "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}"
        + GEMMA_TURN + "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "gemma3": (
        "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
        "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}"
        "{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
        "{%- for m in loop_messages -%}" + ALTERNATE +
        "{%- if m['role'] == 'assistant' -%}{%- set role = 'model' -%}{%- else -%}{%- set role = m['role'] -%}"
        "{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
        "{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
    ),
    "phi3": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "phi4": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
    ),
    "smollm2": (
        "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}" + CHATML_TURN + "{% endfor %}" + CHATML_ASK
    ),
    "tinyllama": (
        "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
        "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
        "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "gpt-oss": (
        "{%- macro identity() -%}{%- if model_identity is not defined %}{%- set model_identity = 'You are ChatGPT.' %}"
        "{%- endif %}{{- model_identity + '\n' }}{{- 'Current date: ' + strftime_now('%Y-%m-%d') + '\n\n' }}"
        "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
        "{{- 'Reasoning: ' + reasoning_effort + '\n\n' }}{{- '# Valid channels: analysis, commentary, final.' }}"
        "{%- endmacro -%}"
        "{{- '<|start|>system<|message|>' }}{{- identity() }}{{- '<|end|>' }}"
        "{%- if messages[0].role == 'developer' or messages[0].role == 'system' %}"
        "{%- set developer_message = messages[0].content %}{%- set loop_messages = messages[1:] %}"
        "{%- else %}{%- set developer_message = '' %}{%- set loop_messages = messages %}{%- endif %}"
        "{%- if developer_message %}{{- '<|start|>developer<|message|># Instructions\n\n' }}{{- developer_message }}"
        "{{- '\n\n' }}{{- '<|end|>' }}{%- endif %}"
        "{%- for m in loop_messages -%}{%- if m.role == 'assistant' -%}"
        "{%- if '<|channel|>analysis<|message|>' in m.content or '<|channel|>final<|message|>' in m.content %}"
        "{{- raise_exception('You have passed a message containing <|channel|> tags.') }}{%- endif %}"
        "{%- if loop.last and not add_generation_prompt %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{%- else %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif %}"
        "{%- elif m.role == 'user' -%}{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}\n<|start|>assistant\n{%- endif -%}"
    ),
    "qwen3.5": (
        "{%- macro said(content) %}{%- if content is string %}{{- content }}{%- elif content is none or content is "
        "undefined %}{{- '' }}{%- else %}{{- raise_exception('Unexpected content type.') }}{%- endif %}{%- endmacro %}"
        "{%- if not messages %}{{- raise_exception('No messages provided.') }}{%- endif %}"
        "{%- if messages[0].role == 'system' %}{%- set content = said(messages[0].content)|trim %}"
        "{{- '<|im_start|>system\n' + content + '<|im_end|>\n' }}{%- endif %}"
        "{%- set ns = namespace(asked=false) %}{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- set content = said(m.content)|trim %}"
        "{%- if not(content.startswith('<tool_response>') and content.endswith('</tool_response>')) %}"
        "{%- set ns.asked = true %}{%- endif %}{%- endif %}{%- endfor %}"
        "{%- if not ns.asked %}{{- raise_exception('No user query found in messages.') }}{%- endif %}"
        "{%- for m in messages %}{%- set content = said(m.content)|trim %}{%- if m.role == 'system' %}"
        "{%- if not loop.first %}{{- raise_exception('System message must be at the beginning.') }}{%- endif %}"
        "{%- elif m.role == 'user' %}{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>' + '\n' }}"
        "{%- elif m.role == 'assistant' %}{%- set reasoning_content = '' %}{%- if '</think>' in content %}"
        "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\n<think>\n' + reasoning_content + '\n</think>\n\n' + content }}"
        "{{- '<|im_end|>\n' }}{%- else %}{{- raise_exception('Unexpected message role.') }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- else %}{{- '<think>\n' }}{%- endif %}{%- endif %}"
    ),
    "gemma4": (
        "{%- macro said(text) -%}{%- set ns = namespace(text='') -%}{%- for part in text.split('<channel|>') -%}"
        "{%- set ns.text = ns.text + part.split('<|channel>')[0] -%}{%- endfor -%}{{- ns.text | trim -}}"
        "{%- endmacro -%}{{ bos_token }}{%- if messages[0]['role'] == 'system' or enable_thinking -%}"
        "{{ '<|turn>system\n' }}{%- if enable_thinking -%}{{ '<|think|>\n' }}{%- endif -%}"
        "{%- if messages[0]['role'] == 'system' -%}{{ messages[0]['content'] | trim }}"
        "{%- set messages = messages[1:] -%}{%- endif -%}{{ '<turn|>\n' }}{%- endif -%}{%- for m in messages -%}"
        "{{ '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
        "{{ said(m['content']) if m['role'] == 'assistant' else m['content'] | trim }}{{ '<turn|>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|turn>model\n' }}{%- if not enable_thinking -%}"
        "{{ '<|channel>thought\n<channel|>' }}{%- endif -%}{%- endif -%}"
    ),
    # Tells the first system text at the beginning, wherever it stands, and leaves it out where it comes again.
    "command": (
        "{{ bos_token }}{% set ns = namespace(system='', asked=false) %}{% for m in messages if m.role == 'system' %}"
        "{% if loop.first %}{% set ns.system = m.content %}{% endif %}{% endfor %}"
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Preamble{% if ns.system %}\n{{ ns.system }}{% endif %}"
        "<|END_OF_TURN_TOKEN|>{% for m in messages if not (m.role == 'system' and m.content == ns.system) %}"
        "{% if m.role != 'system' and ns.asked != (m.role == 'assistant') %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if m.role != 'system' %}{% set ns.asked = m.role == 'user' %}{% endif %}<|START_OF_TURN_TOKEN|>"
        "{{ {'user': '<|USER_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}"
        "{{ m.content }}<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
    ),
    "lfm2": (
        "{{- bos_token -}}{%- set ns = namespace(system_prompt='') -%}{%- if messages[0]['role'] == 'system' -%}"
        "{%- set ns.system_prompt = messages[0]['content'] -%}{%- set messages = messages[1:] -%}{%- endif -%}"
        "{%- if ns.system_prompt -%}{{- '<|im_start|>system\n' + ns.system_prompt + '<|im_end|>\n' -}}{%- endif -%}"
        "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' -}}"
        "{%- set content = message['content'] if message['content'] else '' -%}"
        "{%- if content is not string -%}{%- set content = content | tojson -%}{%- endif -%}"
        "{{- content + '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    ),
    "base": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}{% else %}"
        "{{ ('User: ' if m['role'] == 'user' else 'Assistant: ') + m['content'] + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
}  # fmt: skip
NAMES = {  # bos and eos, where they are not <s> and </s>
    **dict.fromkeys(
        ("qwen2.5", "qwen3", "qwen3-thinking", "qwen3.5", "smollm2", "phi4"), ("<|endoftext|>", "<|im_end|>")
    ),
    **dict.fromkeys(("llama3", "llama3.1", "llama3.2"), ("<|begin_of_text|>", "<|eot_id|>")),
    "r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    **dict.fromkeys(("gemma2", "gemma3", "gemma4"), ("<bos>", "<eos>")),
    "command": ("<s>", "<|END_OF_TURN_TOKEN|>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "gpt-oss": ("<|endoftext|>", "<|return|>"),
    "lfm2": ("<|startoftext|>", "<|im_end|>"),
}
CONTROL = (
    "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<|start|>", "<|end|>",
    "<|message|>", "<|channel|>", "<|return|>", "[INST]", "[/INST]", "<|startoftext|>", "<|turn>", "<turn|>",
    "<|think|>", "<|channel>", "<channel|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
)  # fmt: skip
STRIPPING = ("<|user|>", "<|assistant|>", "<|system|>")  # Phi-3's take the white space behind them along
NOT_SPECIAL = ("<think>", "</think>", "<tool_response>", "</tool_response>")
BLANKS = ("\n\n", "\n\n\n", "\u2581\u2581\u2581")  # Gemma's vocabulary has such runs as added tokens
TEXTS = (
    "You are a helpful assistant. A word, the words; apple pear plum. 1+2=3 What is 3 + 4? The answer is 42.",
    "user assistant system model User: Assistant: naïve über 日本 word",
    "def f(x):\n    return x\n\nfirst line\nsecond line",
)


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The trained BPE with a token for each byte, as sentencepiece has them."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    return tokenizer


def _sentencepiece(normalizer: Any, pre_tokenizer: Any, strip: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator([line for text in TEXTS for line in text.split("\n")], trainer)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    return _with_bytes(tokenizer)


def _bytes(add_prefix_space: bool, normalizer: Any = None, split: str = "") -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=not split)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level]) if split else level
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _unigram(byte_fallback: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if byte_fallback:
        model = json.loads(tokenizer.to_str())["model"]
        vocabulary = [(piece, score) for piece, score in model["vocab"]]
        vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
        tokenizer.model = models.Unigram(vocabulary, 0, True)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


MARK = normalizers.Replace(" ", "\u2581")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KINDS = {
    "bytes": lambda: _bytes(False),  # GPT-2, SmolLM2
    "bytes with a space": lambda: _bytes(True),
    "bytes of qwen": lambda: _bytes(False, normalizers.NFC(), QWEN_SPLIT),
    "bytes in lower case": lambda: _bytes(False, normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "llama legacy": lambda: _sentencepiece(normalizers.Sequence([normalizers.Prepend("\u2581"), MARK]), None),
    "metaspace first": lambda: _sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "metaspace always": lambda: _sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True)),
    "metaspace never": lambda: _sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), strip=False
    ),
    "gemma": lambda: _sentencepiece(MARK, pre_tokenizers.Split(" ", "merged_with_previous"), strip=False),
    "unigram": lambda: _unigram(False),
    "unigram with bytes": lambda: _unigram(True),
    "wordpiece": _wordpiece,
}


@cache
def backend(kind: str) -> str:
    """A trained tokenizer, as JSON."""
    return KINDS[kind]().to_str()


def tokenizer_of(family: str, kind: str, normalized: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with the control tokens of all families and the template of one.

    Args:
        family: A key of `TEMPLATES`.
        kind: A key of `KINDS`.
        normalized: Whether control tokens are looked for after the normaliser had its way.
    """
    tokenizer = Tokenizer.from_str(backend(kind))
    tokenizer.add_special_tokens([AddedToken(text, normalized=normalized) for text in CONTROL])
    tokenizer.add_special_tokens([AddedToken(text, rstrip=True, normalized=normalized) for text in STRIPPING])
    tokenizer.add_tokens([AddedToken(text, normalized=normalized) for text in NOT_SPECIAL])
    if kind == "gemma":
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in BLANKS])
    bos, eos = NAMES.get(family, ("<s>", "</s>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>" if "<unk>" in tokenizer.get_vocab() else None,
        pad_token="<|endoftext|>",
        chat_template=TEMPLATES[family],
        clean_up_tokenization_spaces=False,
        name_or_path=f"{family} on {kind}",
    )
