"""Exports a trained policy: a PEFT adapter that plain `PeftModel.from_pretrained` loads, or a merged model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel

from llm_sra.adapters import CARD, read_config
from llm_sra.loading import unknown
from llm_sra.models import load_model
from llm_sra.runs import Run, RunError


def export(run: str | Path | Run, policy: str, out: str | Path, *, merge: bool = False) -> Path:
    """Write one policy of a run, with tokenizer, chat template and a model card.

    Args:
        run: A finished run.
        policy: Name of an adapter of the run, such as a seat's.
        out: A new or empty folder.
        merge: Merge the adapter into the base and write a plain model folder.

    Returns:
        The folder.

    Raises:
        RunError: If the run is not finished, or `out` holds something.
        UnknownNameError: If the run has no such policy.
        AdapterError: If the policy is not a LoRA adapter in safetensors.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out)
    if not run.adapters.is_dir():
        raise RunError(
            f"{run.path} has no adapters: the training has not finished; export one of its checkpoints' runs "
            "after `--resume_from_checkpoint true`"
        )
    known = [folder.name for folder in run.adapters.iterdir() if folder.is_dir()]
    if policy not in known:
        raise unknown("policy", policy, known)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already holds something: choose a new folder for the export")
    read_config(run.adapters / policy)
    base, tokenizer = load_model(
        str(run.config["model_name_or_path"]),
        dtype=run.config.get("dtype"),
        revision=run.config.get("model_revision"),
        trust_remote_code=bool(run.config.get("trust_remote_code")),
    )
    model = PeftModel.from_pretrained(base, str(run.adapters / policy))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    saved = model.merge_and_unload() if merge else model
    saved.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    if not merge:
        shutil.copy(run.adapters / policy / CARD, partial / CARD)
    (partial / "README.md").write_text(model_card(run, policy, merge), encoding="utf-8")
    if out.exists():
        out.rmdir()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(out)
    return out


def model_card(run: Run, policy: str, merged: bool) -> str:
    """The card of an exported policy, in the Hugging Face format: task, objective, settings and results."""
    config = run.config
    base = str(config["model_name_or_path"])
    tags = ["llm-sra", "multi-agent", str(config["arm"]), *([] if merged else ["lora", "peft"])]
    seats = ", ".join(seat for seat, name in run.heroes.items() if name == policy) or "none (an adversary)"
    settings = {
        "task": config["task"],
        "task_args": json.dumps(config["task_args"]),
        "arm": config["arm"],
        "tau": config["tau"],
        "entropy_coef (ε)": config["entropy_coef"],
        "sharing": config["sharing"],
        "seats": seats,
        "base model": base,
        "LoRA rank": config["lora_r"],
        "steps": config["max_steps"],
        "seed": config["seed"],
    }
    table = "\n".join(f"| {key} | `{value}` |" for key, value in settings.items())
    front = "\n".join(
        [
            "---",
            *([] if merged else ["library_name: peft"]),
            f"base_model: {base}",
            "tags:",
            *(f"- {tag}" for tag in tags),
            "---",
        ]
    )
    load = (
        'model = AutoModelForCausalLM.from_pretrained("<this folder>")'
        if merged
        else f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "<this folder>")'
    )
    return (
        f"{front}\n\n# {policy}, trained on {config['task']} by {config['arm']}\n\n"
        "An agent for a task that it shares with a partner, fine-tuned by llm-sra (SRPO, arXiv 2602.21515).\n\n"
        f"| | |\n|---|---|\n{table}\n\n## Results\n\n{_results(run, seats)}\n\n"
        f"## Use\n\n```python\n{load}\n```\n"
    )


def _results(run: Run, seats: str) -> str:
    """The run's last evaluation, if one lies in its report folder."""
    path = run.path / "report" / "results.json"
    if not path.is_file():
        return "Not evaluated yet: `llm-sra eval --run RUN --roster FILE --out RUN/report` before the export."
    records: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["records"]
    rows = [
        f"| {r['seat']} | {r['partner']} | {r['decoding']} | {r['solve_rate']:.2f} "
        f"[{r['solve_rate_ci95'][0]:.2f}, {r['solve_rate_ci95'][1]:.2f}] | {r['own_return']:.2f} | {r['n']} |"
        for r in records
        if r["run"] == run.name and r["seat"] in seats.split(", ")
    ]
    head = (
        "| seat | partner | decoding | solve rate, 95 % interval | own return | problems |\n|---|---|---|---|---|---|"
    )
    return "\n".join([head, *rows])
