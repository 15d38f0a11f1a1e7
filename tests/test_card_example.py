"""A card's example: what the task showed in an episode that the training kept, and what was said to it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import Says, Toy, make_run
from training_support import TASK, train_tiny

from llm_sra import export
from llm_sra.episodes import read_training_episodes, write_training_episodes
from llm_sra.exporting.example import Example, as_python, find_example
from llm_sra.exporting.exported import prose
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted
from llm_sra.registry import load_task
from llm_sra.runs import Run
from llm_sra.task import Message, Task, description

ODD = 'say "```"\n````\nand \x1b[31m\u202e\\n' + "on and on " * 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_tiny(tmp_path_factory.mktemp("runs") / "run", arm="ippo", seed=5)


def episodes(run: Run, step: int, *said: str) -> None:
    """Keep the episodes of a step of a run: in each both seats say one thing all the time."""
    task = load_task(str(run.config["task"]))
    problem = task.problems("train", seed=int(run.config["seed"]))[0]
    matches = [Match(f"m{n}", {s: Scripted(s, Says(text)) for s in task.seats}) for n, text in enumerate(said)]
    specs = [EpisodeSpec(problem, match) for match in matches]
    write_training_episodes(run.path / "episodes", play(task, specs, {}, seed=5, step=step - 1), step, -1)


def test_it_is_the_prompt_and_the_reply_of_an_episode_that_training_kept(run: Run) -> None:
    task = load_task(TASK)
    kept = list(read_training_episodes(sorted((run.path / "episodes").glob("*.jsonl"))[-1]))
    for seat in ("left", "right"):
        found = find_example(run, seat, task)
        assert found is not None and found.reply is not None
        record = kept[0]  # none is solved
        before = [turn.text for turn in record.turns[: ("left", "right").index(seat)]]
        shown = "\n".join([f"word: {record.problem}", *before])
        assert found.messages == (Message("user", shown),)
        assert found.reply == record.turns[len(before)].text
        other = {"left": "right", "right": "left"}[seat]
        assert f"In step 2 of its training, in the seat `{seat}` beside `{other}`" in found.told
        assert "did not solve this problem" in found.told


def test_one_that_was_solved_is_preferred_and_a_checkpoint_shows_nothing_later(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", task=TASK, seed=5)
    run = replace(run, config={**run.config, "seed": 5})
    task = load_task(TASK)
    word = task.problems("train", seed=5)[0].id
    episodes(run, 3, "no", word), episodes(run, 7, "maybe")
    late = find_example(run, "left", task)
    assert late is not None and late.reply == "maybe" and "step 7" in late.told
    early = find_example(replace(run, checkpoint="checkpoint-5"), "left", task)
    assert early is not None and early.reply == word and "step 3" in early.told
    assert "The team solved this problem." in early.told


def test_without_episodes_or_with_another_task_by_now_it_is_a_prompt_without_a_reply(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", task=TASK, seed=5)
    run = replace(run, config={**run.config, "seed": 5})
    task = load_task(TASK)
    prompt = Example(
        (Message("user", f"word: {task.problems('test', 1)[0].id}"),), "A prompt of the task:", None, "left"
    )
    assert find_example(run, "left", task) == prompt
    episodes(run, 1, "no")
    shorter = load_task(TASK, {"turns": 2})  # it goes another way now
    assert find_example(run, "left", shorter) == prompt


def test_any_text_reads_back_from_the_card_as_it_is() -> None:
    messages = (
        Message("system", "short"),
        Message("user", ODD),
        Message("assistant", ""),
        Message("user", " a \n\n b"),
    )
    scope: dict[str, Any] = {}
    exec(as_python(messages), scope)
    assert scope["messages"] == [message.as_dict() for message in messages]
    assert max(map(len, as_python((Message("user", "on and on " * 30),)).splitlines())) <= 100
    section = Example(messages, "Then:", ODD).section()
    assert "\x1b" not in section and "\u202e" not in section
    assert "\n`````text\n" in section  # a fence longer than any in the reply


def test_the_card_of_a_training_has_no_template_left_and_says_what_the_task_is(run: Run, tmp_path: Path) -> None:
    card = (export(run, "left", tmp_path / "out") / "README.md").read_text()
    assert "## Task\n\n`Toy`, paid by chance: the team gets 1 for every text of odd length" in card
    assert "## Example\n\nIn step 2" in card and "It replied:" in card
    written = [*run.path.rglob("*"), *(tmp_path / "out").rglob("*")]
    assert not [path for path in written if path.is_file() and b"More Information Needed" in path.read_bytes()]
    assert not (run.path / "adapters" / "README.md").exists()


def test_a_description_is_the_docstring_up_to_its_sections() -> None:
    assert description(load_task("wordlist"))[0] == "Two seats fill one list with words of a category, in turns."
    assert not any("Args:" in paragraph or "\n" in paragraph for paragraph in description(load_task("hanabi")))
    assert description(load_task("kitchen"))[-1].startswith("Source: the kitchen of arXiv 2602.21515")

    class Silent(Toy):
        pass

    Silent.__doc__ = None
    assert description(Silent())[0].startswith("Two seats talk in turns")  # it inherits the words with the rules

    undocumented = type("Undocumented", (Task,), {name: getattr(Toy, name) for name in Task.__abstractmethods__})
    assert description(undocumented()) == ()  # not what `Task` says of itself


def test_prose_keeps_what_stands_in_backticks_and_escapes_the_rest() -> None:
    assert prose("write `a*b|c` or _pass_ <b>") == "write `a*b|c` or \\_pass\\_ &lt;b&gt;"
