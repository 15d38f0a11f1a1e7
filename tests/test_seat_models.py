"""Two base models in one training: each adapter lives on the base of its seat, and nothing else changes."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from evaluation_support import roster
from support import llama, llama_folder, llama_tokenizer, qwen2, qwen2_folder, qwen2_tokenizer, save_model
from training_support import FLAGS, Letters, train_tiny, vectors, weights

from llm_sra import evaluate
from llm_sra.errors import UserError
from llm_sra.exporting.export import export
from llm_sra.models.adapter_files import read_card
from llm_sra.models.adapters import AdapterError, fingerprint
from llm_sra.models.loading import ModelError, load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import ContextError
from llm_sra.runs import Run, RunError, read_metrics
from llm_sra.trainer.arms import assign_roles
from llm_sra.trainer.bases import engine_names, models_of, seat_models
from llm_sra.trainer.config import check_together
from llm_sra.trainer.parse import ConfigError, parse

SEATS = ("left", "right")
BOTH = {"left": "qwen", "right": "llama"}


def models() -> dict[str, Any]:
    """A Qwen2 for the left seat, a Llama with another tokenizer and template for the right one."""
    return {"model_name_or_path": None, "seat_models": {"left": str(qwen2_folder()), "right": str(llama_folder())}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two steps of SRPO on two bases."""
    return train_tiny(tmp_path_factory.mktemp("bases") / "run", **models(), arm="srpo", tau=2.0, save_strategy="steps",
                      save_steps=1)  # fmt: skip


def test_an_adversary_lives_on_the_base_of_the_seat_that_it_sits_in() -> None:
    assert models_of(assign_roles("ippo", SEATS, "seat", 1.0), BOTH) == BOTH
    roles = assign_roles("srpo", SEATS, "seat", 1.0)
    assert roles.seats["adversary-of-left"] == ("right",)
    assert models_of(roles, BOTH) == {**BOTH, "adversary-of-left": "llama", "adversary-of-right": "qwen"}
    teams = models_of(assign_roles("mep", SEATS, "seat", 1.0, population=2), BOTH)
    assert teams == {**BOTH, "left-2": "qwen", "right-2": "llama"}
    assert engine_names(teams) == {"left": "main", "left-2": "main", "right": "main-2", "right-2": "main-2"}


def test_one_policy_for_all_seats_has_one_model() -> None:
    same = dict.fromkeys(SEATS, "qwen")
    assert models_of(assign_roles("srpo", SEATS, "shared", 1.0), same) == {"hero": "qwen", "adversary": "qwen"}
    with pytest.raises(
        UserError, match=r"hero two models, by its seats left \(qwen\), right \(llama\).*sharing to seat"
    ):
        models_of(assign_roles("ippo", SEATS, "shared", 1.0), BOTH)
    three = {"a": "qwen", "b": "llama", "c": "qwen"}
    with pytest.raises(UserError, match=r"adversary-of-a two models.*more than two seats"):
        models_of(assign_roles("srpo", tuple(three), "seat", 1.0), three)


@pytest.mark.parametrize(
    ("named", "default", "message"),
    [
        ({"lefft": "a"}, "b", "names 'lefft', which is no seat of the task; did you mean 'left'"),
        ({"left": "a"}, None, "no model for right"),
        ({"left": "a", "right": "b"}, "c", "model_name_or_path 'c' would have no effect"),
        ({"left": "/one/name", "right": "/other/name"}, None, "two models of one name"),
    ],
)
def test_seats_without_a_model_and_models_without_a_seat(named: Any, default: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        seat_models(named, default, SEATS)


def test_a_seat_that_is_not_named_has_the_model_of_all() -> None:
    assert seat_models({"left": "a"}, "b", SEATS) == {"left": "a", "right": "b"}
    assert seat_models(None, "b", SEATS) == {"left": "b", "right": "b"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seat_models", "left"], "must be a JSON object"),
        (["--seat_models", '{"left": 3}'], "a model's name or folder for each seat"),
        (["--seat_models", '{"left": "a"}', "--model_revision", "v1"], "cannot be meant for all"),
    ],
)
def test_what_is_wrong_with_seat_models_is_said_before_anything_is_loaded(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(None, [*flags, "--use_cpu", "true", "--bf16", "false"])


@pytest.mark.parametrize("name", ["load_in_4bit", "load_in_8bit", "use_liger_kernel"])
def test_what_was_not_tested_on_two_models_is_refused(name: str) -> None:
    model, config = parse(None, ["--seat_models", '{"left": "a"}', "--use_cpu", "true", "--bf16", "false"])
    check_together(model, config)
    setattr(config if name == "use_liger_kernel" else model, name, True)
    with pytest.raises(ValueError, match=f"{name} goes with one model"):
        check_together(model, config)


def test_a_recipe_names_models_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"seat_models: {{left: ./qwen, right: '{llama_folder()}'}}\n")
    shutil.copytree(qwen2_folder(), tmp_path / "qwen")
    named = parse(tmp_path / "recipe.yaml", ["--use_cpu", "true", "--bf16", "false"])[0].seat_models
    assert named == {"left": str(tmp_path / "qwen"), "right": str(llama_folder())}


@pytest.mark.parametrize(
    "flags",
    [
        {"arm": "srpo", "tau": 2.0},
        {"arm": "srpo", "tau": 2.0, "kl_direction": "partner_adversary", "beta": 0.1, "adversary_updates": 2},
        {"arm": "srpo", "tau": 2.0, "algorithm": "ppo", "gradient_checkpointing": True},
        {"arm": "mep", "population": 2, "population_entropy_coef": 0.1},
        {"arm": "ippo", "influence_coef": 0.2, "loss_type": "dr_grpo"},
    ],
    ids=["srpo", "exact", "ppo", "mep", "influence"],
)
def test_two_bases_with_equal_weights_train_as_one(tmp_path: Path, flags: dict[str, Any]) -> None:
    one = train_tiny(tmp_path / "one", **flags)
    shutil.copytree(qwen2_folder(), tmp_path / "copy")
    of_seats = {"left": str(qwen2_folder()), "right": str(tmp_path / "copy")}
    two = train_tiny(tmp_path / "two", model_name_or_path=None, seat_models=of_seats, **flags)
    ours, theirs = vectors(two.adapters), vectors(one.adapters)
    assert ours.keys() == theirs.keys()
    for name, vector in theirs.items():
        torch.testing.assert_close(ours[name], vector, atol=1e-5, rtol=1e-4)
    said = [
        [json.loads(line)["turns"] for path in sorted((run.path / "episodes").iterdir()) for line in path.open()]
        for run in (one, two)
    ]
    assert said[0] == said[1]


def test_each_adapter_is_of_the_base_of_its_seat(trained: Run) -> None:
    assert trained.models == {
        "left": str(qwen2_folder()), "right": str(llama_folder()),
        "adversary-of-left": str(llama_folder()), "adversary-of-right": str(qwen2_folder()),
    }  # fmt: skip
    assert trained.base == "qwen2+llama"
    for adapter, model in trained.models.items():
        config = json.loads((trained.adapters / adapter / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == model
        assert read_card(trained.adapters / adapter)["base_fingerprint"] == fingerprint(load_model(model)[0])
    shapes = {
        name: {key: tuple(one.shape) for key, one in state.items()} for name, state in weights(trained.adapters).items()
    }
    assert shapes["adversary-of-left"] == shapes["right"]
    lines = read_metrics(trained.path / "metrics.jsonl")
    assert {f"policy/{name}/grad_norm" for name in trained.models} <= lines[0].keys()
    assert all(lines[1][f"policy/{name}/grad_norm"] > 0 for name in SEATS)


def test_talk_crosses_by_text(trained: Run) -> None:
    episodes = [json.loads(line) for path in (trained.path / "episodes").iterdir() for line in path.open()]
    renderers = {seat: Renderer.of(load_model(trained.model_of(seat))[1], trained.config) for seat in SEATS}
    heard = 0
    for episode in episodes:
        for before, turn in zip(episode["turns"], episode["turns"][1:], strict=False):
            assert turn["seat"] != before["seat"]
            heard += before["text"] in "".join(message["content"] for message in turn["view"]) if "view" in turn else 1
            for one in (before, turn):
                if one.get("token_ids"):
                    assert renderers[one["seat"]].decode(tuple(one["token_ids"])).startswith(one["text"])
    assert heard


def test_a_run_on_two_bases_resumes_to_the_bit(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    shutil.rmtree(run / "adapters")
    shutil.rmtree(run / "checkpoints" / "checkpoint-2")
    train_tiny(run, **models(), arm="srpo", tau=2.0, save_strategy="steps", save_steps=1, resume_from_checkpoint=True)
    for name, vector in vectors(trained.adapters).items():
        assert torch.equal(vectors(run / "adapters")[name], vector)


def test_a_run_on_two_bases_is_evaluated_and_exported(trained: Run, tmp_path: Path) -> None:
    path = roster(
        tmp_path, f"name: other, kind: adapter, policy: '{trained.adapters}/{{seat}}'", "name: live, kind: live"
    )
    records = evaluate([trained.path], path, tmp_path / "eval", problems=2, decodings=["greedy", "sampled"])
    by_partner = {(one.partner, one.seat, one.decoding): one for one in records}
    for seat in SEATS:  # the same agents under another name
        assert by_partner["other", seat, "greedy"].solve_rate == by_partner["self-play", seat, "greedy"].solve_rate
    for policy, base in trained.models.items():
        out = export(trained, policy, tmp_path / policy, merge=True)
        kind = json.loads((out / "config.json").read_text())["model_type"]
        assert kind == {"qwen2": "qwen2", "llama": "llama"}[Path(base).name]
        assert Path(base).name in (out / "README.md").read_text()


def test_an_adapter_of_the_other_base_is_refused(trained: Run, tmp_path: Path) -> None:
    flags = {**models(), "initial_adapter": str(trained.adapters / "left")}
    with pytest.raises(AdapterError, match="load the adapter on the base that it was trained on"):
        train_tiny(tmp_path / "run", **flags)
    again = train_tiny(
        tmp_path / "warm", **{**flags, "initial_adapter": f"{trained.adapters}/{{seat}}"}, arm="untrained"
    )
    for seat in SEATS:
        assert torch.equal(vectors(again.adapters)[seat], vectors(trained.adapters)[seat])


class Words(Letters):
    """`Letters` in which each seat chooses among words of its own."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"left": ("apple", "pear"), "right": ("lion", "zebra", "cow")}


def test_each_seats_choices_are_words_of_its_own_model(tmp_path: Path) -> None:
    fruit, animals = (list(Words.choices[seat]) * 9 for seat in SEATS)
    left, right = qwen2_tokenizer(fruit, 300), llama_tokenizer(animals, 300)
    folders = {
        "left": save_model(qwen2(left), left, tmp_path / "a"),
        "right": save_model(llama(right), right, tmp_path / "b"),
    }
    named = {seat: str(folder) for seat, folder in folders.items()}
    flags: dict[str, Any] = {"task": f"{__file__}:Words", "arm": "srpo", "tau": 2.0, "model_name_or_path": None}
    run = train_tiny(tmp_path / "run", **flags, seat_models=named)
    episodes = [json.loads(line) for path in (run.path / "episodes").iterdir() for line in path.open()]
    said = {seat: {t["text"] for e in episodes for t in e["turns"] if t["seat"] == seat} for seat in SEATS}
    assert all(said[seat] <= set(Words.choices[seat]) and len(said[seat]) > 1 for seat in SEATS)
    path = roster(tmp_path, "name: again, kind: live")
    assert evaluate([run.path], path, tmp_path / "eval", problems=2, decodings=["sampled"])
    with pytest.raises(ValueError, match=r"one token each.*makes \d of 'apple'"):
        train_tiny(tmp_path / "swapped", **flags, seat_models=dict(zip(SEATS, reversed(named.values()), strict=True)))


def test_choices_that_are_one_token_for_one_model_only(tmp_path: Path) -> None:
    flags = {**FLAGS, **models(), "task": "effort", "task_args": {"explain": False}}
    flags["seat_models"] = {"first": "effort/player", "second": str(llama_folder())}
    from llm_sra import train

    with pytest.raises(ValueError, match=r"one token each.*llama' makes \d of 'rest'"):
        train(output_dir=tmp_path / "run", **flags)
    assert not (tmp_path / "run").exists()


def test_an_adapter_or_a_run_is_no_model_of_a_seat(trained: Run, tmp_path: Path) -> None:
    for folder, what in ((trained.adapters / "right", "an adapter, not a model"), (trained.path, "a run folder")):
        with pytest.raises(ModelError, match=f"{folder.name}' is {what}"):
            train_tiny(
                tmp_path / "run",
                model_name_or_path=None,
                seat_models={"left": str(qwen2_folder()), "right": str(folder)},
            )
    assert not (tmp_path / "run").exists()


def with_right(folder: Path) -> dict[str, Any]:
    return {"model_name_or_path": None, "seat_models": {"left": str(qwen2_folder()), "right": str(folder)}}


def test_a_context_that_is_too_short_for_one_seat_is_an_error_of_that_seat(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer()
    short = save_model(llama(tokenizer, context=12), tokenizer, tmp_path / "short")
    with pytest.raises(ContextError, match=r"seat 'right' sees \d+ tokens, but the context .* holds 12\."):
        train_tiny(tmp_path / "run", **with_right(short), arm="srpo", tau=2.0)
    assert not (tmp_path / "run").exists()


def test_a_context_that_fills_up_for_one_seat_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = llama_tokenizer()
    tight = save_model(llama(tokenizer, context=28), tokenizer, tmp_path / "tight")
    run = train_tiny(tmp_path / "run", **with_right(tight), arm="ippo")
    said = [record.getMessage() for record in caplog.records if "had no room for" in record.getMessage()]
    first = [json.loads(line) for line in (run.path / "episodes" / "step-000001.jsonl").open()]
    turns = [turn for episode in first for turn in episode["turns"] if turn["seat"] == "right"]
    assert any(turn["finish"] == "context" for turn in turns)
    [message] = said
    assert re.search(r"the context of 28 tokens had no room for \d+ of the 24 replies of right in seat right", message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: os.truncate(folder / "model.safetensors", 9_000), "cut off or damaged"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwen9"}'), "qwen9"),
    ],
    ids=["tokenizer", "weights", "architecture"],
)
def test_a_model_that_cannot_be_loaded_is_named_by_its_seat(
    damage: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(llama_folder(), tmp_path / "broken"))
    damage(folder)
    with pytest.raises(ModelError, match=f"^the model of seat right: .*broken'.*{message}"):
        train_tiny(tmp_path / "run", **with_right(folder))
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_its_models_swapped(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    swapped = {"left": str(llama_folder()), "right": str(qwen2_folder())}
    flags: dict[str, Any] = {"arm": "srpo", "tau": 2.0, "max_steps": 3, "resume_from_checkpoint": True}
    with pytest.raises(
        AdapterError, match=r"left was trained on '.*qwen2', whose weights then differ from .*llama' now"
    ):
        train_tiny(run, model_name_or_path=None, seat_models=swapped, **flags)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before


def test_weights_that_changed_since_are_not_exported(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    tokenizer = llama_tokenizer()
    other = save_model(llama(tokenizer, seed=5), tokenizer, tmp_path / "llama")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(llama_folder()), str(other)))
    export(run, "left", tmp_path / "left", merge=True)
    for merge in (True, False):
        with pytest.raises(AdapterError, match=r"whose weights then differ from those of .*llama' now"):
            export(run, "right", tmp_path / "right", merge=merge)
    shutil.rmtree(other)
    with pytest.raises(ModelError, match=r"no model folder .*named in its config.yaml"):
        export(run, "right", tmp_path / "right", merge=True)
    assert not (tmp_path / "right").exists()


def test_each_model_is_given_the_arguments_that_its_template_takes(tmp_path: Path) -> None:
    shutil.copytree(llama_folder(), tmp_path / "thinks")
    template = (tmp_path / "thinks" / "chat_template.jinja").read_text()
    (tmp_path / "thinks" / "chat_template.jinja").write_text(template + "{% if brief %}{{ 'short: ' }}{% endif %}")
    flags: dict[str, Any] = {"model_name_or_path": None, "arm": "untrained"}
    flags["seat_models"] = {"left": str(qwen2_folder()), "right": str(tmp_path / "thinks")}
    run = train_tiny(tmp_path / "run", **flags, chat_template_kwargs={"brief": True})
    given = [Renderer.of(load_model(run.model_of(seat))[1], run.config).template.given for seat in SEATS]
    assert given == [{}, {"brief": True}]
    with pytest.raises(RunError, match="sets breif, which no model's chat template takes"):
        train_tiny(tmp_path / "wrong", **flags, chat_template_kwargs={"breif": True})


def test_models_in_a_configuration_are_names(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["models"]["left"] = 3
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match="the name of a model for each adapter"):
        Run.open(run)


def test_partners_of_a_roster_meet_agents_of_two_bases(trained: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, f"name: base, kind: model, policy: '{llama_folder()}'")
    run = train_tiny(tmp_path / "run", **models(), arm="fcp", partners=path, risk="expectation", num_generations=4)
    assert run.models == models()["seat_models"]
