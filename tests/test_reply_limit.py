"""A reply limit that no legal reply fits into is an error before training."""

from pathlib import Path

import pytest
from support import qwen2_folder, qwen2_tokenizer
from training_support import FLAGS

from llm_sra import train
from llm_sra.models.renderer import Renderer
from llm_sra.registry import load_task, shipped_models
from llm_sra.trainer.reply_limit import ReplyLimitError, check_reply_limit


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """Of a tokenizer with few words: `4+3=7` is five tokens of it, `pass` one."""
    return Renderer(qwen2_tokenizer())


def test_the_longest_legal_reply_must_fit(renderer: Renderer) -> None:
    task = load_task("worksheet")
    longest = max(len(renderer.encode_text(reply)) for reply in task.legal_replies())
    assert longest > 1
    check_reply_limit(task, renderer, longest)
    with pytest.raises(ReplyLimitError, match=rf"is {longest - 1}, but .*'18\+9=27' takes {longest} "):
        check_reply_limit(task, renderer, longest - 1)


def test_without_a_limit_the_tasks_own_one_counts(renderer: Renderer) -> None:
    task = load_task("worksheet")
    check_reply_limit(task, renderer, None)
    task.max_reply_tokens = 2
    with pytest.raises(ReplyLimitError, match=r"is 2 \(the own limit of the task\)"):
        check_reply_limit(task, renderer, None)


def test_every_move_of_hanabi_is_listed() -> None:
    replies = load_task("hanabi").legal_replies()
    assert len(replies) == 3 + 3 + 3 * (3 + 3)  # play and discard three cards; three colours and ranks of three others
    assert {"play 3", "discard 1", "hint 3 rank 3", "hint 1 red"} <= set(replies)


def test_words_to_choose_from_are_the_legal_replies() -> None:
    assert load_task("kitchen").legal_replies() == ("up", "down", "left", "right", "stay")


def test_a_training_stops_before_its_first_step_and_leaves_no_folder(tmp_path: Path) -> None:
    options = {**FLAGS, "task": "worksheet", "max_completion_length": 3}
    with pytest.raises(ReplyLimitError, match="set it to"):
        train(None, model_name_or_path=str(qwen2_folder()), output_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("model", sorted(shipped_models()))
def test_embedded_models_can_say_all_that_their_task_takes(model: str) -> None:
    from transformers import AutoTokenizer

    task = load_task(model.split("/")[0])
    check_reply_limit(task, Renderer(AutoTokenizer.from_pretrained(shipped_models()[model])), None)
