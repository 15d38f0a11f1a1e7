"""What the documentation says can be done as it says: links lead somewhere, snippets are accepted, keys exist."""

import inspect
import random
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from llm_sra import __version__
from llm_sra.partners.rosters import read_roster
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted
from llm_sra.registry import load_task, task_class
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.parse import parse

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TASK_PAGES = sorted((DOCS / "tasks").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MARKS = re.compile(r"`([^`]+)`")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language, each with the page and its number there."""
    found = []
    for page in PAGES:
        here = [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]
        found += [(f"{page.stem}-{number}", text) for number, text in enumerate(here, 1)]
    return found


def named(chosen: list[tuple[str, str]]) -> dict[str, list]:
    """As arguments of `parametrize`."""
    return {"argvalues": [text for _, text in chosen], "ids": [name for name, _ in chosen]}


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def key_columns(page: Path, head: str = "keys") -> list[str]:
    """All words in backticks that stand in a page's table columns with this head."""
    keys: list[str] = []
    header: list[str] = []
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        keys += [key for name, cell in zip(header, cells, strict=False) if name == head for key in MARKS.findall(cell)]
    return keys


ROSTERS = [block for block in blocks("yaml") if block[1].startswith("partners:")]
LM_EVAL = [block for block in blocks("yaml") if "dataset_path:" in block[1]]  # tasks of lm-eval
RECIPES = [block for block in blocks("yaml") if block not in ROSTERS + LM_EVAL]
TASKS = [block for block in blocks("python") if "(Task):" in block[1]]


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES, *TASK_PAGES],
    ids=lambda page: page.name,
)
def test_relative_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    links = [link for link in LINK.findall(prose(page)) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_on_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(prose(DOCS / "index.md"))}
    assert {page for page in DOCS.rglob("*.md")} - {DOCS / "index.md"} <= linked


@pytest.mark.parametrize("text", **named(ROSTERS))
def test_rosters_are_accepted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "roster.yaml"
    path.write_text(text)
    assert read_roster(path)


@pytest.mark.parametrize("text", **named(RECIPES))
def test_recipes_are_accepted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{text}model_name_or_path: some/model\nuse_cpu: true\nbf16: false\n")
    parse(path)


@pytest.mark.parametrize("text", **named(LM_EVAL))
def test_tasks_of_lm_eval_are_accepted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    from llm_sra.evaluation.single.tasks import load_tasks

    monkeypatch.chdir(tmp_path)
    document = re.search(r"such as `({.*?})`", " ".join((DOCS / "evaluate.md").read_text().split()))
    folder = Path("my_tasks")
    folder.mkdir()
    (folder / "capitals.yaml").write_text(text)
    (folder / "documents.jsonl").write_text(document[1] if document else "")
    (asked,) = load_tasks(["capitals"], folder)
    (loaded,) = asked.loaded["tasks"].values()
    assert [one.args for one in loaded.instances] == [
        ("The capital of France is", " Paris"), ("The capital of France is", " Rome")
    ]  # fmt: skip


def test_keys_in_the_tables_of_objectives_exist() -> None:
    keys = key_columns(DOCS / "objectives.md")
    assert {"tau", "loss_type", "adversary_reset_steps"} <= set(keys)  # so that the tables are found at all
    assert set(keys) - {field.name for field in fields(SRPOConfig)} == set()


def test_own_keys_of_the_objective_are_all_in_the_tables() -> None:
    ours = set(SRPOConfig.__annotations__)
    elsewhere = {  # on the run, the task, the engine; not on the objective
        "task", "task_args", "engine", "engine_adapter_dir", "rollout_batch_size", "dev_roster", "dev_problems",
        "trust_scripts",
        "log_episodes", "overwrite_output_dir", "allow_untested_backend", "max_completion_length", "output_dir",
        "logging_steps", "logging_nan_inf_filter", "template_date", "seeded_rollouts",
        "metric_for_best_model", "greater_is_better", "vllm_server_host",
    }  # fmt: skip
    assert ours - elsewhere - set(key_columns(DOCS / "objectives.md")) == set()


@pytest.mark.parametrize("page", TASK_PAGES, ids=lambda page: page.stem)
def test_a_tasks_page_names_all_of_its_options(page: Path) -> None:
    task = task_class(page.stem)
    assert set(key_columns(page, "option")) == set(inspect.signature(task).parameters)


@pytest.mark.parametrize("text", **named(TASKS))
def test_tasks_are_played_to_their_end_whatever_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    [name] = re.findall(r"class (\w+)\(Task\)", text)
    task = load_task(f"{path}:{name}")
    splits = [{problem.id for problem in task.problems(split)} for split in ("train", "dev", "test")]
    assert len(set.union(*splits)) == sum(map(len, splits)) > 0

    class Babbler:
        def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
            assert messages[-1]["role"] == "user"
            return rng.choice(["", "<|im_end|>", messages[-1]["content"], *task.choices])

    match = Match("babble", {seat: Scripted("babbler", Babbler()) for seat in task.seats})
    for episode in play(task, [EpisodeSpec(problem, match) for problem in task.problems("dev", 8)], {}, seed=1):
        assert set(episode.rewards) == set(task.seats)
        assert all(episode.turns_of(seat) for seat in task.seats)


def test_the_readme_is_short_and_shows_a_picture_that_loads_quickly() -> None:
    readme = ROOT / "README.md"
    assert readme.stat().st_size <= 6_000
    [picture] = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    assert (ROOT / picture).stat().st_size <= 150_000


def test_every_room_of_the_code_is_on_the_page_of_the_house_once() -> None:
    rooms = key_columns(DOCS / "house.md", "room")
    library = [path for path in (ROOT / "llm_sra").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in library} - {"__init__.py", "__main__.py"}
    assert sorted(room for room in rooms if "/" not in room.rstrip("/") and "NAME" not in room) == sorted(names)
    packages = key_columns(DOCS / "house.md", "package")
    assert {"tasks/", "eval/", "recipes/"} <= set(packages)
    text = (DOCS / "house.md").read_text(encoding="utf-8")
    below = [path.parent.relative_to(ROOT) for path in ROOT.glob("llm_sra/*/*/__init__.py")]
    assert [str(folder) for folder in below if f"`{folder}/`" not in text] == []
    assert [
        path.parent.name for path in ROOT.glob("recipes/*/__init__.py") if f"`{path.parent.name}/`" not in text
    ] == []


def test_places_that_the_page_of_the_house_names_exist() -> None:
    places = key_columns(DOCS / "house.md", "place")
    assert len(places) > 8
    assert [place for place in places if not (ROOT / place.replace("NAME", "worksheet")).exists()] == []


def test_the_citation_names_the_software_its_version_and_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["type"], cited["version"]) == ("llm-sra", "software", __version__)
    [paper] = cited["references"]
    assert paper["url"].endswith("2602.21515") and [author["family-names"] for author in paper["authors"]] == [
        "Qu", "Zhang", "Lanzetti", "Mazumdar"
    ]  # fmt: skip
