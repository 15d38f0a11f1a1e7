"""Every order of roles that a task may send: the template takes it, the same in training, evaluation and export."""

from collections.abc import Sequence
from itertools import product

import pytest
from real_templates import TEMPLATES, tokenizer_of

from llm_sra.models.chat_template import SYSTEM_LATER, USER_FIRST
from llm_sra.models.renderer import Renderer
from llm_sra.task import Message

# All orders of up to four roles that end with a user's message, as a task's view must.
ORDERS = [(*before, "user") for count in range(4) for before in product(("system", "user", "assistant"), repeat=count)]
ALTERNATING = ("gemma2", "gemma3", "llama2", "mistral-v0.1", "mistral-v0.3", "command")


def view(roles: Sequence[str]) -> list[Message]:
    return [Message(role, f"text {number}") for number, role in enumerate(roles)]  # type: ignore[arg-type]


@pytest.mark.parametrize("family", TEMPLATES)
def test_each_order_of_roles_shows_each_text_once_and_is_asked_alike_by_a_chat_api(family: str) -> None:
    tokenizer = tokenizer_of(family, "bytes")
    renderer = Renderer(tokenizer)
    exported = tokenizer_of(family, "bytes")
    exported.chat_template = renderer.template.alone()
    for roles in ORDERS:
        messages = view(roles)
        ids = renderer.render(messages)
        text = tokenizer.decode(list(ids))
        assert [text.count(message.content) for message in messages] == [1] * len(messages), roles
        asked = exported.apply_chat_template(
            [message.as_dict() for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert tuple(asked) == ids, roles


@pytest.mark.parametrize("family", ALTERNATING)
def test_before_a_reply_that_begins_the_conversation_stands_an_empty_user_message(family: str) -> None:
    renderer = Renderer(tokenizer_of(family, "bytes"))
    empty, said = Message("user", ""), [Message("assistant", "hello"), Message("user", "go on")]
    assert USER_FIRST in renderer.template.adapted
    assert renderer.render(said) == renderer.render([empty, *said])
    system = Message("system", "Be brief.")
    # Where the system text becomes a user message, that one is the first.
    first = [Message("user", "Be brief.")] if family in ("gemma2", "mistral-v0.1") else [system, empty]
    assert renderer.render([system, *said]) == renderer.render([*first, *said])


@pytest.mark.parametrize("family", ALTERNATING)
def test_a_system_text_between_messages_becomes_a_user_message_where_there_is_no_place_for_it(family: str) -> None:
    renderer = Renderer(tokenizer_of(family, "bytes"))
    assert SYSTEM_LATER in renderer.template.adapted
    user, said, told = Message("user", "1 + 2"), Message("assistant", "3"), Message("system", "Add 5.")
    assert renderer.render([user, said, told, user]) == renderer.render([user, said, Message("user", "Add 5.\n1 + 2")])


def test_a_template_that_takes_every_order_stays_as_it_is() -> None:
    for family in ("qwen2.5", "qwen3", "llama3", "phi4", "smollm2"):
        assert Renderer(tokenizer_of(family, "bytes")).template.source == TEMPLATES[family]


def test_a_sampled_reply_that_begins_the_conversation_enters_as_the_tokens_that_were_sampled() -> None:
    renderer = Renderer(tokenizer_of("gemma2", "bytes"))
    said = tuple(index for letter in "hello" for index in renderer.encoder.after(letter))
    assert said != renderer.encode_text("hello")
    text = renderer.decode(said)
    ids = renderer.render([Message("assistant", text), Message("user", "go on")], [(text, said)])
    assert any(ids[i : i + len(said)] == said for i in range(len(ids)))
