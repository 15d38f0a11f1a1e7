"""Training on two processes. Run as a program by `accelerate launch`, this file is what each of them runs."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import FakeVllm
from support import ROOT, llama_folder, qwen2_folder
from training_support import Initial, train_tiny, vectors
from transformers import TrainerCallback

from llm_sra.runs import read_metrics
from llm_sra.trainer import updates

# Rows that differ in number from rank to rank: a reply that ends at a stop string makes a second row of its episode.
UNEVEN: dict[str, Any] = {
    "task_args": {"stop": ["a", "e", "i", "o", "1", "2", "3", "4"]},
    "per_device_train_batch_size": 4,
    "num_generations": 3,
    "problems_per_step": 4,
    "entropy_coef": 0.1,
    "tau": 3.0,
}
# Plain gradient descent: the change of the weights is as exact as the gradients are.
DESCENT: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.3, "max_grad_norm": 0}
RUNS: dict[str, dict[str, Any]] = {
    "tokens": {**UNEVEN, **DESCENT, "loss_type": "dapo", "num_iterations": 2},
    "rows": {**UNEVEN, **DESCENT, "loss_type": "grpo", "kl_direction": "partner_adversary", "scale_rewards": "batch"},
    "reference": {**UNEVEN, **DESCENT, "loss_type": "dr_grpo", "beta": 0.01, "max_grad_norm": 0.05},
    "adam": {**UNEVEN, "adversary_updates": 2},
}


class Report(TrainerCallback):
    """Writes what one process ends with: a hash of each adapter, and of how many rows it made each update."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[int] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        final = Initial()
        final.on_train_begin(args, state, control, **kwargs)
        hashes = {name: hashlib.sha256(vector.numpy().tobytes()).hexdigest() for name, vector in final.vectors.items()}
        report = {"processes": args.world_size, "rank": args.process_index, "adapters": hashes, "rows": self.rows}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_name(f"{self.path.name}-{args.process_index}.json").write_text(json.dumps(report))


def count_rows(report: Report) -> None:
    """Let the trainer tell of how many rows each of its updates is made on this process."""
    original = updates.Share.of.__func__

    def counting(cls: type, samples: Sequence[Any], *args: Any) -> Any:
        report.rows.append(len(samples))
        return original(cls, samples, *args)

    updates.Share.of = classmethod(counting)


def main(out: Path, model: str, server: str, other: str) -> None:
    """All runs, one after the other; one with a server; one on two bases; and one that is broken off and resumed."""
    original = updates.Share.of
    for name, flags in RUNS.items():
        report = Report(out / "reports" / name)
        count_rows(report)
        train_tiny(out / name, [report], model_name_or_path=model, **flags)
        updates.Share.of = original
    remote = {**RUNS["tokens"], "engine": "server", "vllm_server_base_url": server}
    train_tiny(out / "server", [Report(out / "reports" / "server")], model_name_or_path=model, **remote)
    train_tiny(out / "bases", model_name_or_path=None, seat_models={"left": model, "right": other}, **RUNS["tokens"])
    saving = {**RUNS["adam"], "save_strategy": "steps", "save_steps": 1}
    train_tiny(out / "resumed", model_name_or_path=model, **{**saving, "max_steps": 1})
    report = Report(out / "reports" / "resumed")
    train_tiny(out / "resumed", [report], model_name_or_path=model, **saving, resume_from_checkpoint="true")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    out = tmp_path_factory.mktemp("launched")
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    config = ["--config_file", ROOT / "accelerate_configs" / "cpu.yaml", "--num_processes", "2"]
    server = FakeVllm(qwen2_folder())
    command = [sys.executable, "-m", "accelerate.commands.launch", *config, __file__, out, qwen2_folder(), server.url]
    command.append(llama_folder())
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=600)
    server.stop()
    assert done.returncode == 0, done.stderr[-5000:]
    return out


def reports_of(launched: Path, name: str) -> list[dict[str, Any]]:
    """What each process reported, by rank."""
    paths = sorted((launched / "reports").glob(f"{name}-*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.parametrize("name", [*RUNS, "server", "resumed"])
def test_both_processes_end_with_the_same_adapters(launched: Path, name: str) -> None:
    first, second = reports_of(launched, name)
    assert (first["processes"], first["rank"], second["rank"]) == (2, 0, 1)
    assert set(first["adapters"]) == {"left", "right", "adversary-of-left", "adversary-of-right"}
    assert first["adapters"] == second["adapters"]


def test_the_processes_had_different_numbers_of_rows_and_of_micro_batches(launched: Path) -> None:
    pairs = [pair for name in RUNS for pair in zip(*(r["rows"] for r in reports_of(launched, name)), strict=True)]
    assert any(one != other for one, other in pairs)
    size = UNEVEN["per_device_train_batch_size"]
    assert any(-(-one // size) != -(-other // size) for one, other in pairs)


@pytest.mark.parametrize("name", [name for name, flags in RUNS.items() if "optim" in flags])
def test_two_processes_make_of_the_same_episodes_what_one_makes(launched: Path, name: str, tmp_path: Path) -> None:
    initial = Initial()
    run = train_tiny(tmp_path / name, [initial], **RUNS[name])
    alone, together = vectors(run.adapters), vectors(launched / name / "adapters")
    for adapter, before in initial.vectors.items():
        change, other = alone[adapter] - before, together[adapter] - before
        assert change.norm() > 0.01
        assert (other - change).norm() < 1e-4 * change.norm(), adapter
    one, two = read_metrics(run.path / "metrics.jsonl"), read_metrics(launched / name / "metrics.jsonl")
    assert [line["step"] for line in two] == [1, 2, 2]
    for alone_line, line in zip(one[:2], two[:2], strict=True):
        assert line.keys() == alone_line.keys()
        for key, value in alone_line.items():
            if not key.startswith("time/"):
                assert line[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_two_processes_share_a_server(launched: Path) -> None:
    here, there = vectors(launched / "tokens" / "adapters"), vectors(launched / "server" / "adapters")
    for adapter, vector in here.items():
        torch.testing.assert_close(there[adapter], vector, rtol=0, atol=1e-4)


def test_two_processes_train_two_bases_as_one_process_does(launched: Path, tmp_path: Path) -> None:
    models = {"left": str(qwen2_folder()), "right": str(llama_folder())}
    run = train_tiny(tmp_path / "run", model_name_or_path=None, seat_models=models, **RUNS["tokens"])
    alone, together = vectors(run.adapters), vectors(launched / "bases" / "adapters")
    assert {key: vector.shape for key, vector in alone.items()} == {
        key: vector.shape for key, vector in together.items()
    }
    for adapter, vector in alone.items():
        torch.testing.assert_close(together[adapter], vector, rtol=1e-4, atol=1e-5)


def test_two_processes_go_on_from_a_checkpoint_as_if_they_had_not_stopped(launched: Path) -> None:
    whole, resumed = vectors(launched / "adam" / "adapters"), vectors(launched / "resumed" / "adapters")
    for adapter, vector in whole.items():
        assert torch.equal(resumed[adapter], vector), adapter


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
