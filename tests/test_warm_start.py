"""`llm-sra warm-start`: what is taught, what it does to the model, and that all agents of a training start from it."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from partners_support import roster
from peft import PeftModel
from safetensors.torch import load_file
from support import Says
from training_support import Initial, flat, train_tiny

from llm_sra.episodes.people import PeopleFile
from llm_sra.models.adapters import AdapterError, read_card
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import read_roster
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted
from llm_sra.registry import find_model, load_task
from recipes.commands.warm_start import IGNORED, _examples, _of_people, _said, main
from tasks.effort import Effort

CPU = ("--use_cpu", "true", "--bf16", "false", "--disable_tqdm", "true")
EFFORT = ("--task", "effort", "--model_name_or_path", "effort/player", "--lora_r", "4", "--learning_rate", "3e-3", *CPU)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was taught to work."""
    out = tmp_path_factory.mktemp("warm") / "adapter"
    return main([*EFFORT, "--steps", "30", "--partners", "last_action", "--out", str(out)])


def says_work(model: torch.nn.Module, renderer: Renderer) -> float:
    """How probable `work` is among the two words."""
    task = Effort()
    prompt = torch.tensor([renderer.render(task.view((), "first"))])
    with torch.no_grad():
        logits = model(input_ids=prompt).logits[0, -1, list(renderer.single_tokens(task.choices))]
    return float(logits.softmax(-1)[task.choices.index("work")])


def test_a_taught_adapter_says_what_the_partner_says(warm: Path) -> None:
    base, tokenizer = load_model("effort/player")
    renderer = Renderer(tokenizer)
    assert says_work(base, renderer) < 0.7
    assert says_work(PeftModel.from_pretrained(base, warm), renderer) > 0.95
    facts = read_card(warm)["warm_start"]
    assert facts == {
        "task": "effort",
        "task_args": None,
        "partners": ["last_action"],
        "steps": 30,
        "batch": 16,
        "learning_rate": 3e-3,
    }


def test_an_adapter_is_taught_further(warm: Path, tmp_path: Path) -> None:
    further = main(
        [*EFFORT, "--initial_adapter", str(warm), "--steps", "1", "--partners", "last_action", "--out", f"{tmp_path}/a"]
    )
    base, tokenizer = load_model("effort/player")
    assert says_work(PeftModel.from_pretrained(base, further), Renderer(tokenizer)) > 0.95  # one step alone does not
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (warm, further))
    assert before.keys() == after.keys() and not torch.equal(flat(before), flat(after))
    assert read_card(further)["warm_start"]["initial_adapter"] == str(warm)


def test_an_adapter_of_another_base_is_not_taught_further(warm: Path, tmp_path: Path) -> None:
    flags = ["--task", "worksheet", "--model_name_or_path", "worksheet/pupil", *CPU, "--out", str(tmp_path / "a")]
    with pytest.raises(AdapterError, match="whose weights then differ"):
        main([*flags, "--initial_adapter", str(warm)])


def test_only_replies_are_taught_with_the_end_of_their_turn() -> None:
    renderer = Renderer(load_model("worksheet/pupil")[1])
    task = load_task("worksheet")
    row = next(_examples(task, ["lazy"], renderer, seed=0))
    taught = [index for index in row["labels"] if index != IGNORED]
    assert taught == [*renderer.encode_text("pass"), *renderer.ends.ids[:1]]
    assert row["input_ids"][-len(taught) :] == taught and len(row["input_ids"]) == len(row["labels"])


def test_by_default_the_first_partner_and_the_one_that_rests_are_taught(tmp_path: Path) -> None:
    main([*EFFORT, "--steps", "1", "--batch", "1", "--out", str(tmp_path / "a")])
    assert read_card(tmp_path / "a")["warm_start"]["partners"] == ["first_action"]  # which rests, too


def test_all_agents_of_a_training_start_from_the_adapter(warm: Path, tmp_path: Path) -> None:
    initial = Initial()
    how = {"model_name_or_path": find_model("effort/player"), "task": "effort", "lora_r": 4, "lora_alpha": 16}
    train_tiny(tmp_path / "run", [initial], **how, arm="srpo", initial_adapter=str(warm))
    taught = flat(load_file(warm / "adapter_model.safetensors"))
    assert set(initial.vectors) >= {"first", "second"} and len(initial.vectors) == 4
    assert all(torch.equal(vector, taught) for vector in initial.vectors.values())


def test_an_adapter_of_another_shape_is_refused(warm: Path, tmp_path: Path) -> None:
    how = {"model_name_or_path": find_model("effort/player"), "task": "effort", "lora_r": 2, "lora_alpha": 16}
    with pytest.raises(AdapterError, match="has r 4, but adapter 'first' has 2"):
        train_tiny(tmp_path / "run", **how, initial_adapter=str(warm))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--steps", "0"), "--steps and --batch must be 1 or more, got 0 and 16"),
        (("--partners", "nobody"), "no partner 'nobody'; there are: first_action, last_action, random"),
    ],
)
def test_what_cannot_be_taught_is_said(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=said):
        main([*EFFORT, *flags, "--out", str(tmp_path / "a")])


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """What two people said: Anna works, Bob rests."""
    task = Effort()
    file = PeopleFile(tmp_path / "people.jsonl", "Effort")
    for name, word in (("Anna", "work"), ("Bob", "rest")):
        match = Match("m", {"first": Scripted(name, Says(word)), "second": Scripted("x", Says("rest"))})
        for episode in play(task, [EpisodeSpec(problem, match) for problem in task.problems("test", 4)], {}, seed=0):
            file.append(episode, {"first": name})
    file.close()
    return tmp_path / "people.jsonl"


def test_an_adapter_is_taught_what_a_person_said(people: Path, tmp_path: Path) -> None:
    base, tokenizer = load_model("effort/player")
    renderer = Renderer(tokenizer)
    for name, low, high in (("Anna", 0.95, 1.0), ("Bob", 0.0, 0.05)):
        how = ("--steps", "30", "--episodes", str(people), "--who", name)
        out = main([*EFFORT, *how, "--out", str(tmp_path / name)])
        assert low <= says_work(PeftModel.from_pretrained(load_model("effort/player")[0], out), renderer) <= high
        facts = read_card(out)["warm_start"]
        assert (facts["people"], facts["replies"]) == (name, 4) and "partners" not in facts
    assert 0.05 < says_work(base, renderer) < 0.95
    [entry] = read_roster(roster(tmp_path, "name: proxy, kind: adapter, policy: Bob, base: effort/player"))
    assert set(PolicyLoader(Effort()).partner(entry)) == {"first", "second"}


def test_each_reply_is_taught_as_often_as_any_other(people: Path) -> None:
    renderer = Renderer(load_model("effort/player")[1])
    said = _said(people, "Effort", None)
    assert [text for _, text in said] == ["work"] * 4 + ["rest"] * 4
    rows = list(islice(_of_people(said, renderer, 0), 16))
    taught = [renderer.decode([one for one in row["labels"] if one != IGNORED]).strip() for row in rows]
    assert sorted(taught[:8]) == sorted(taught[8:]) and sum(text.startswith("work") for text in taught) == 8
    assert rows[0]["input_ids"][: len(renderer.render(said[0][0]))] == list(renderer.render(said[0][0]))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--episodes", "FILE", "--partners", "random"), "--episodes teaches what people said, --partners what"),
        (("--who", "Anna"), "--who is a person of --episodes"),
        (("--episodes", "FILE", "--who", "Eve"), "holds nothing that Eve said; there are: Anna, Bob"),
        (("--episodes", "FILE", "--task", "kitchen"), "holds episodes of Effort, expected Kitchen"),
        (("--episodes", "/no/such"), "cannot learn from the episodes in /no/such"),
    ],
)
def test_what_people_cannot_teach_is_said(flags: tuple[str, ...], said: str, people: Path, tmp_path: Path) -> None:
    given = [str(people) if flag == "FILE" else flag for flag in flags]
    with pytest.raises(RuntimeError, match=said):
        main([*EFFORT, *given, "--out", str(tmp_path / "a")])


def test_a_folder_that_holds_something_is_left_alone(warm: Path) -> None:
    with pytest.raises(RuntimeError, match="is not empty"):
        main([*EFFORT, "--out", str(warm)])
