"""Exports a trained policy: a PEFT adapter that plain `PeftModel.from_pretrained` loads, or a merged model."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from llm_sra.errors import TaskError, unknown
from llm_sra.exporting import hub
from llm_sra.exporting.cards import find_evaluation, model_card
from llm_sra.exporting.choices import measure
from llm_sra.exporting.example import Example, find_example
from llm_sra.exporting.exported import Exported
from llm_sra.exporting.generation import Generation
from llm_sra.exporting.single import find_single
from llm_sra.files import WriteError, readable_as_others, writing
from llm_sra.models.adapters import CARD, check_base, fingerprint, read_adapter_config
from llm_sra.models.loading import load_model, quantization_of
from llm_sra.models.renderer import Renderer
from llm_sra.runs import Run, RunError
from llm_sra.runs.trust import may_run_code, task_of_run
from llm_sra.task import Task, description


def export(
    run: str | Path | Run,
    policy: str,
    out: str | Path,
    *,
    merge: bool = False,
    evaluation: str | Path | None = None,
    push_to_hub: str | None = None,
    private: bool = False,
    trust_remote_code: bool = False,
    trust_task: bool = False,
) -> Path:
    """Write one policy of a run, with tokenizer, chat template and a model card; and upload it, if that is asked for.

    Args:
        run: A finished run.
        policy: Name of an adapter of the run, such as a seat's.
        out: A new or empty folder.
        merge: Merge the adapter into the base and write a plain model folder.
        evaluation: Folder of `llm-sra eval` whose results the card shows; the run's `report` if None, where there is
            one.
        push_to_hub: Repository `namespace/name` that the folder is uploaded to; None: nothing is sent.
        private: Make that repository private.
        trust_remote_code: Whether Python that comes with the run's model may run.
        trust_task: Whether the file of the run's task may run, though somebody else trained the run.

    Returns:
        The folder.

    Raises:
        RunError: If the run is not finished, its model would run Python that was not allowed, `out` holds something, or
            `evaluation` knows nothing of the run.
        UnknownNameError: If the run has no such policy.
        AdapterError: If the policy is not a LoRA adapter in safetensors, or was trained on other weights than its base
            has now.
        TemplateError: If the model cannot be asked as the run's configuration says.
        WriteError: If the disk does not take it.
        HubError: If the upload fails; the folder is there then.
    """
    if push_to_hub is not None:
        hub.check_repository(push_to_hub)
    elif private:
        raise hub.HubError("private is of the repository on the hub: name it with --push_to_hub, too")
    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out)
    _check(run, policy, out, merge)
    rank, shown = read_adapter_config(run.adapters / policy).r, find_evaluation(run, evaluation)
    single = find_single(run, policy, evaluation)
    base, tokenizer = load_model(
        run.model_of(policy),
        dtype=run.config.get("dtype"),
        revision=run.config.get("model_revision"),
        trust_remote_code=may_run_code(run, trust_remote_code),
        quantization=quantization_of(run.config),
    )
    check_base(run.adapters / policy, fingerprint(base), run.model_of(policy))
    renderer = Renderer.of(tokenizer, run.config)
    template = renderer.template
    tokenizer.chat_template = template.alone()  # any chat API asks what the training asked
    where = push_to_hub or "path/to/this/folder"
    model = PeftModel.from_pretrained(base, str(run.adapters / policy))
    task = task_of_run(run, run.config.get("task_args"), trust_task)
    about, example = description(task), _example(run, policy, task)
    exported = Exported(run, policy, rank, merge, where, shown, template.notes, about, example)
    choices = measure(task, exported.seats, model, renderer)
    generation = Generation.of(base, renderer, task, run.config)
    for each in choices:
        asked = f"{policy} in seat {each.seat}" if each.seat else policy
        print(
            f"{asked}: P(choices) is {each.mass:.3f} without restricting "
            f"tokens to {', '.join(each.words)}; the card says how to restrict them"
        )
    card = model_card(replace(exported, choices=choices, generation=generation, single=single))
    saved = model.merge_and_unload() if merge else model
    base.generation_config = generation.config
    _write(out, (saved, generation.config, tokenizer), card, None if merge else run.adapters / policy / CARD)
    if push_to_hub is not None:
        hub.push(out, push_to_hub, private)
    return out


def _check(run: Run, policy: str, out: Path, merge: bool) -> None:
    """See that there is what is to be exported, and room for it."""
    if not run.adapters.is_dir():
        raise RunError(
            f"{run.path} has no adapters: the training has not finished; export one of its checkpoints' runs "
            "after `--resume_from_checkpoint true`"
        )
    known = [folder.name for folder in run.adapters.iterdir() if folder.is_dir()]
    if merge and (run.config.get("load_in_4bit") or run.config.get("load_in_8bit")):
        raise RunError(
            f"{policy} was trained on a quantised base: merged into one that is not, it would say something else. "
            "Export the adapter, without merge"
        )
    if policy not in known:
        raise unknown("policy", policy, known)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already holds something: choose a new folder for the export")


def _example(run: Run, policy: str, task: Task) -> Example | None:
    """What the card shows as an example; says so if there is none."""
    try:
        return find_example(run, policy, task)
    except (OSError, ValueError, TaskError) as error:
        print(f"{policy}: the card has no example: {error}")
        return None


def _write(out: Path, parts: Sequence[Any], card: Any, config: Path | None) -> None:
    """Write all files to a folder beside, which then gets its name; a disk that is full is left as it was."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing("the export", partial):
            for part in parts:
                part.save_pretrained(str(partial))
            readable_as_others(partial)
            if config:
                shutil.copy(config, partial / config.name)
            card.save(partial / "README.md")
            if out.exists():
                out.rmdir()
            out.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(out)
    except WriteError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
