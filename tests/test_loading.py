"""Names and files: tasks, partners, rosters, models and run folders, and what is said when they are not there."""

import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support import Toy, qwen2, qwen2_folder, qwen2_tokenizer, save_model

from llm_sra import runs
from llm_sra.errors import UnknownNameError, unknown
from llm_sra.models.loading import ModelError, load_model
from llm_sra.partners.rosters import Entry, RosterError, read_roster
from llm_sra.registry import load_partner, load_task, shipped_tasks
from llm_sra.runs import Run, RunError
from llm_sra.runs.writer import RunWriter
from tasks.worksheet import Worksheet

PARTNERS = """
import random

class Echo:
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return messages[-1]["content"]

class Mute:
    pass

class Choosy:
    def __init__(self, word):
        self.word = word

    def reply(self, messages, rng):
        return self.word

function = len
"""
TASKS = """
from llm_sra import Task

class Lonely(Task):
    seats = ("only",)

class Nobody(Task):
    pass

class Unfinished(Task):
    seats = ("left", "right")

class NoTask:
    seats = ("left", "right")
"""


@pytest.fixture
def partners(tmp_path: Path) -> Path:
    path = tmp_path / "my partners.py"
    path.write_text(PARTNERS)
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.py"
    path.write_text(TASKS)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "roster.yaml"
    path.write_text(text)
    return path


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("lazzy", ["late", "lazy"], "unknown partner 'lazzy'; did you mean 'lazy'? There are: late, lazy"),
        ("x", ["lazy"], "unknown partner 'x'. There are: lazy"),
        ("x", [], "unknown partner 'x'. There are: none"),
        (3, ["lazy"], "unknown partner 3. There are: lazy"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(name: object, known: list[str], message: str) -> None:
    assert str(unknown("partner", name, known)) == message


# -- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_is_found_by_folder_by_module_and_by_file() -> None:
    import support

    assert isinstance(load_task("worksheet", {"turns": 8}), Worksheet)
    assert isinstance(load_task("tasks.worksheet:Worksheet"), Worksheet)
    toy = load_task(f"{support.__file__}:Toy", {"turns": 2})
    assert type(toy).__name__ == "Toy" and vars(toy)["turns"] == 2


def test_the_shipped_tasks_are_the_folders() -> None:
    assert {"gsm8k", "worksheet"} <= set(shipped_tasks())


def test_loading_a_file_does_not_put_its_folder_on_the_path(tasks: Path) -> None:
    before = list(sys.path)
    with pytest.raises(ValueError):
        load_task(f"{tasks}:NoTask")
    assert sys.path == before
    assert sys.modules["tasks"].__file__ != str(tasks)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("worksheets", UnknownNameError, "unknown task 'worksheets'; did you mean 'worksheet'?"),
        ("nowhere.py:Task", UnknownNameError, r"no file nowhere\.py \(looked for /"),
        ("no.such.module:Task", UnknownNameError, "no module 'no.such.module' to take a task from"),
        ("tasks.worksheet:Worksheets", UnknownNameError, "unknown task class.*did you mean 'Worksheet'"),
        ("{tasks}:NoTask", ValueError, "no task: expected a subclass of llm_sra.Task"),
        ("{tasks}:Lonely", ValueError, "at least two seats"),
        ("{tasks}:Nobody", ValueError, "at least two seats"),
        ("{tasks}:Unfinished", ValueError, "Can't instantiate abstract class Unfinished.*problems"),
    ],
)
def test_a_task_that_cannot_be_had_is_explained(tasks: Path, spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(spec.format(tasks=tasks))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"turn": 8},
            "has no option 'turn'; did you mean 'turns'.*its options.*low, high, turns, cost, spoil_price, last_word",
        ),
        ({"turns": "8"}, "`turns` must be a whole number, got '8'"),
        ({"turns": 2}, "each seat must be able to solve the sheet alone"),
    ],
)
def test_an_option_that_a_task_does_not_take_is_a_value_error_that_lists_them(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_task("worksheet", options)


def test_another_package_of_that_name_is_not_taken_for_the_shipped_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tasks", ModuleType("tasks"))
    with pytest.raises(UnknownNameError, match=r"the package `tasks` that Python finds first is .*not llm-sra's"):
        load_task("worksheet")


# -- scripted partners -----------------------------------------------------------------------------------------------


def test_a_partner_is_one_of_the_tasks_or_a_users_own_class(partners: Path) -> None:
    task, rng = Worksheet(), random.Random(0)
    view = [{"role": "user", "content": "Q: 3+2+5"}]
    assert load_partner("diligent", task).reply(view, rng) == "3+2=5"
    assert load_partner("tasks.worksheet.partners:Lazy", task).reply(view, rng) == "pass"
    assert load_partner(f"{partners}:Echo", task).reply(view, rng) == "Q: 3+2+5"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("diligant", UnknownNameError, "unknown scripted partner 'diligant'; did you mean 'diligent'?"),
        ("{partners}:Ecko", UnknownNameError, "unknown scripted partner class in .*'Ecko'; did you mean 'Echo'"),
        ("{partners}:function", UnknownNameError, "There are: Choosy, Echo, Mute"),
        ("{partners}:Mute", ValueError, r"the class needs `reply\(self, messages"),
        ("{partners}:Choosy", ValueError, "must be made without arguments.*'word'"),
        ("gone.py:Echo", UnknownNameError, r"no file gone\.py"),
    ],
)
def test_a_partner_that_cannot_be_had_is_explained(
    partners: Path, spec: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_partner(spec.format(partners=partners), Worksheet())


def test_a_task_without_partners_says_so() -> None:
    with pytest.raises(UnknownNameError, match="There are: none"):
        load_partner("lazy", Toy())


# -- rosters ---------------------------------------------------------------------------------------------------------


def test_the_paths_of_a_roster_are_taken_from_its_folder_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "rosters").mkdir()
    path = write(
        tmp_path / "rosters",
        """
        partners:
          - {name: lazy, kind: scripted, policy: lazy}
          - {name: module, kind: scripted, policy: "tasks.worksheet.partners:Lazy"}
          - {name: file, kind: scripted, policy: "mine/partners.py:Echo"}
          - {name: run, kind: adapter, policy: "../runs/x/adapters/{seat}", base: ../models/mine}
          - {name: plain, kind: adapter, policy: agents/first}
          - {name: mine, kind: model, policy: ../models/mine, dtype: float32}
          - {name: hub, kind: model, policy: Qwen/Qwen2.5-0.5B-Instruct}
          - {name: 7, kind: adapter, policy: /somewhere/else}
        """,
    )
    assert read_roster(path) == [
        Entry("lazy", "scripted", "lazy"),
        Entry("module", "scripted", "tasks.worksheet.partners:Lazy"),
        Entry("file", "scripted", f"{tmp_path}/rosters/mine/partners.py:Echo"),
        Entry("run", "adapter", f"{tmp_path}/runs/x/adapters/{{seat}}", {"base": f"{tmp_path}/models/mine"}),
        Entry("plain", "adapter", f"{tmp_path}/rosters/agents/first"),
        Entry("mine", "model", f"{tmp_path}/models/mine", {"dtype": "float32"}),
        Entry("hub", "model", "Qwen/Qwen2.5-0.5B-Instruct"),
        Entry("7", "adapter", "/somewhere/else"),
    ]


def test_a_models_folder_beside_the_roster_needs_no_dot(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = write(tmp_path, "partners: [{name: mine, kind: model, policy: mine}]")
    assert read_roster(path)[0].policy == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partners: [", "is not YAML"),
        ("just text", "must hold one key, `partners`"),
        ("", "must hold one key, `partners`"),
        ("- {name: a, kind: scripted, policy: lazy}", "must hold one key, `partners`"),
        ("partners: {name: a}", "must hold one key, `partners`"),
        ("partners: []\nparnters: []", "must hold one key, `partners`"),
        ("partners: [lazy]", "each partner needs name, kind and policy, got 'lazy'"),
        ("partners: [{name: a, kind: scripted}]", "each partner needs name, kind and policy"),
        ("partners: [{name: a, kind: script, policy: lazy}]", "'a': unknown kind 'script'; did you mean 'scripted'"),
        ("partners: [{name: a, kind: [model], policy: lazy}]", "`kind` must be text"),
        (
            "partners: [{name: a, kind: model, policy: x, dtpye: bf16}]",
            "'a': unknown key 'dtpye'; did you mean 'dtype'",
        ),
        ("partners: [{name: a, kind: scripted, policy: lazy, base: x}]", "'a': unknown key 'base'"),
        ("partners: [{name: a, kind: scripted, policy: lazy, 1: x}]", "'a': unknown key 1"),
        ("partners: [{name: self-play, kind: scripted, policy: lazy}]", "'self-play' is kept for a run's own partner"),
        (
            "partners: []\npartners: [{name: a, kind: scripted, policy: lazy}]",
            "has the key 'partners' twice, at lines 1 and",
        ),
        ("partners: [{name: a, name: b, kind: scripted, policy: lazy}]", "has the key 'name' twice"),
        ("partners: [{name: no, kind: scripted, policy: lazy}]", "`name` must be text .* got False .*in quotes"),
        (
            "partners: [{name: null, kind: scripted, policy: lazy}]",
            "`name` must be text of at most 500 characters, got No",
        ),
        (
            "partners:\n- {name: a, kind: scripted, policy: lazy}\n- {name: b, kind: scripted, policy: lazy}\n"
            "- {name: a, kind: scripted, policy: half}",
            "names more than once: a$",
        ),
    ],
)
def test_a_roster_that_cannot_be_used_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RosterError, match=message):
        read_roster(write(tmp_path, text))


def test_a_roster_may_be_a_file_of_json(tmp_path: Path) -> None:
    inner = {"kind": "scripted", "policy": "lazy"}
    item = {"name": "\U0001f600", "kind": "perturbed", "of": inner, "how": "drop", "probability": 1e-05}
    path = tmp_path / "roster.json"
    path.write_text(
        "\ufeff" + json.dumps({"partners": [item]}, indent="\t")
    )  # the emoji as two halves, no point in 1e-05
    [entry] = read_roster(path)
    assert (entry.name, entry.options["probability"]) == ("\U0001f600", 1e-05)
    path.write_text('{"partners": [], "partners": []}')
    with pytest.raises(RosterError, match=r"cannot be read: it is not JSON: it has the key 'partners' twice"):
        read_roster(path)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_missing_roster_says_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(RosterError, match=r"no roster .*looked for /"):
        read_roster(tmp_path / name)


def test_the_shipped_rosters_can_be_read_and_dev_and_test_share_no_partner() -> None:
    folder = Path(__file__).parent.parent / "eval" / "rosters"
    rosters = {path.stem: {entry.name for entry in read_roster(path)} for path in folder.glob("*.yaml")}
    assert rosters["worksheet_dev"] and rosters["worksheet_test"] >= {"lazy", "late", "saboteur", "stranger"}
    assert not rosters["worksheet_dev"] & rosters["worksheet_test"]


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_model_comes_with_its_tokenizer_padded_on_the_left(tmp_path: Path) -> None:
    model, tokenizer = load_model(str(qwen2_folder()))
    assert model.dtype == torch.float32 and len(tokenizer) == model.config.vocab_size
    assert tokenizer.padding_side == "left" and tokenizer.pad_token == "<|endoftext|>"
    assert load_model(str(qwen2_folder()), dtype="bfloat16")[0].dtype == torch.bfloat16


def test_a_tokenizer_without_padding_pads_with_its_end_of_turn(tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    tokenizer.pad_token = None
    folder = save_model(qwen2(qwen2_tokenizer()), tokenizer, tmp_path / "model")
    assert load_model(str(folder))[1].pad_token == "<|im_end|>"


def test_a_model_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model folder \./nowhere \(looked for /"):
        load_model("./nowhere")
    with pytest.raises(ModelError, match=f"cannot load the model '{tmp_path}'"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match="cannot load the model 'nobody/has-this-model'"):
        load_model("nobody/has-this-model")


def test_a_model_that_is_only_pickled_is_refused(tmp_path: Path) -> None:
    model = qwen2(qwen2_tokenizer())
    folder = save_model(model, qwen2_tokenizer(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(folder))


# -- run folders -----------------------------------------------------------------------------------------------------


def a_run(path: Path, **arguments: object) -> Path:
    path.mkdir(parents=True)
    runs.write_config(path, {"seed": 3, "metric_for_best_model": "worst_partner", **arguments}, {"first": "a"})
    return path


def test_what_a_training_writes_about_itself_is_read_again(tmp_path: Path) -> None:
    path = a_run(tmp_path / "study" / "srpo", tau=0.1, task_args={"turns": 8}, output_dir=tmp_path)
    run = Run.open(path)
    assert run.heroes == {"first": "a"} and run.name == "study/srpo" and run.adapters == path / "adapters"
    assert run.config["tau"] == 0.1 and run.config["task_args"] == {"turns": 8}
    assert run.config["output_dir"] == str(tmp_path)
    facts = json.loads((path / "environment.json").read_text())
    assert facts["seed"] == 3 and {"torch", "peft", "trl", "transformers"} <= facts["packages"].keys()


def test_a_checkpoint_of_a_run_can_be_meant(tmp_path: Path) -> None:
    path = a_run(tmp_path / "study" / "srpo")
    for step in (10, 20, 30):
        (path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    scores = {10: 0.2, 20: 0.7, 30: 0.7, 40: 0.9}  # of the last there is no checkpoint
    lines = [json.dumps({"step": step, "eval_worst_partner": score}) for step, score in scores.items()]
    (path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 50, "eval_wor']))

    run = Run.open(f"{path}@checkpoint-10")
    assert (run.name, run.adapters) == ("study/srpo@checkpoint-10", path / "checkpoints" / "checkpoint-10")
    assert Run.open(f"{path}@best").name == "study/srpo@checkpoint-20"
    with pytest.raises(RunError, match=r"has no checkpoint-40; its checkpoints: checkpoint-10, checkpoint-20"):
        Run.open(f"{path}@checkpoint-40")


def test_a_run_that_was_never_evaluated_has_no_best_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint with eval_worst_partner: train with dev_roster"):
        Run.open(f"{a_run(tmp_path / 'run')}@best")


def test_an_at_sign_in_a_path_is_part_of_the_path(tmp_path: Path) -> None:
    assert Run.open(a_run(tmp_path / "me@home" / "x")).path == tmp_path / "me@home" / "x"
    assert Run.open(a_run(tmp_path / "srpo@0.1")).checkpoint is None


@pytest.mark.parametrize("text", ["just text", "{heroes: {}}", "heroes: [", ""])
def test_a_folder_with_another_config_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml was not written by a training"):
        Run.open(tmp_path)


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "missing@best"):
        with pytest.raises(RunError, match=r"is not a run: expected config\.yaml"):
            Run.open(path)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    run, notes = a_run(tmp_path / "run"), tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path, overwrite, message in (
        (run, False, "already holds a run: .*resume_from_checkpoint true, or delete it with --overwrite_output_dir"),
        (notes, False, "already holds other files: choose another"),
        (notes, True, "already holds other files: choose another"),
        (notes / "thesis.txt", True, "is a file"),
    ):
        with pytest.raises(RunError, match=message):
            RunWriter(path, overwrite=overwrite, resume=False).__enter__()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_is_deleted_or_gone_on_with_only_where_that_was_asked_for(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    for path, overwrite, resume, kept in ((run, False, True, True), (run, True, False, False)):
        with RunWriter(path, overwrite, resume) as writer:
            writer.begin()
            writer.started()
        assert (run / "config.yaml").is_file() == kept
    assert list(run.iterdir()) == []
    with RunWriter(tmp_path / "new" / "run", overwrite=False, resume=False):
        assert (tmp_path / "new" / "run").is_dir()
