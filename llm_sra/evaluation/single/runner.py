"""`evaluate_single`: tasks of lm-eval on each agent of runs alone, and on its base model before training.

Every number of a model is kept as soon as it is there, in a file named by a hash of all that it depends on.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from llm_sra.evaluation.results import LARGEST
from llm_sra.evaluation.single.measured import language_model, measure, quiet
from llm_sra.evaluation.single.results import Number, Single, SingleError, SingleRecord, compared, write_single
from llm_sra.evaluation.single.tasks import Asked, load_tasks, require_lm_eval, sandboxed
from llm_sra.files import to_json, write_whole, writing
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import QUANTIZED, load_model, quantization_of
from llm_sra.models.renderer import Renderer
from llm_sra.partners.identity import digest
from llm_sra.runs import Run, RunError
from llm_sra.runs.trust import may_run_code
from llm_sra.untrusted import one_line, parse_json, read_text

CELLS = "single"  # folder of the numbers, below that of the results
FORMAT = 1  # raised when equal settings no longer give equal numbers
logger = logging.getLogger(__name__)


def evaluate_single(
    runs: Sequence[str | Path | Run],
    tasks: Sequence[str],
    out: str | Path,
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: float | None = None,
    apply_chat_template: bool = False,
    batch_size: int = 8,
    confirm_run_unsafe_code: bool = False,
    trust_remote_code: bool = False,
    disable_tqdm: bool | None = None,
) -> list[SingleRecord]:
    """Run tasks of lm-eval on each agent of runs, alone, and on its base model. Options have lm-eval's names.

    What `out` holds already is not computed again.

    Args:
        runs: Run folders.
        tasks: Names of lm-eval's tasks, groups or tags, patterns, or YAML files.
        out: Folder for `single.json`, and for the numbers of each model in `single/`.
        include_path: Folder of further tasks.
        num_fewshot: Solved examples in each prompt; None: as a task says, or none.
        limit: The first so many documents of each task, or a share of them below 1; None: all.
        apply_chat_template: Whether prompts are turns of a chat, by the template with which the run was trained.
        batch_size: Most prompts at a time.
        confirm_run_unsafe_code: Whether tasks may execute what a model wrote, and Python that does not ship with
            lm-eval.
        trust_remote_code: Whether Python that comes with a run's model may run.
        disable_tqdm: Whether to show no progress; None: lm-eval's bars in a terminal, elsewhere a line for each model
            and task.

    Returns:
        One record for each number of each agent.

    Raises:
        SingleError: If lm-eval is not installed, a task is not known or cannot be used, or would execute what was not
            allowed; or an option cannot be used.
        RunError: If a folder is not a run, or its model would run Python that was not allowed.
        ModelError, AdapterError: If a base model or an agent's weights cannot be used.
        WriteError: If the disk does not take the numbers.
    """
    require_lm_eval()
    out, opened = Path(out), [run if isinstance(run, Run) else Run.open(run) for run in runs]
    _check(limit, num_fewshot, batch_size)
    for run in opened:
        if not run.adapters.is_dir():
            raise RunError(f"{run.path} has no adapters: the training has not finished; name one of its checkpoints")
    settings = {
        "lm_eval": version("lm-eval"),
        "tasks": list(tasks),
        "num_fewshot": num_fewshot,
        "limit": limit,
        "apply_chat_template": apply_chat_template,
    }
    how = {"limit": limit, "apply_chat_template": apply_chat_template, "confirmed": confirm_run_unsafe_code}
    shown = None if disable_tqdm else sys.stderr  # before `quiet` takes it
    records: list[SingleRecord] = []
    with quiet(disable_tqdm), nullcontext() if confirm_run_unsafe_code else sandboxed():
        asked = load_tasks(
            tasks,
            Path(include_path) if include_path is not None else None,
            num_fewshot=num_fewshot,
            limit=limit,
            confirmed=confirm_run_unsafe_code,
        )
        models: _Models | None = None
        for run in opened:
            for name in dict.fromkeys(run.heroes.values()):
                if models is None or not models.serves(run, name):
                    models = None  # free one base before the next is loaded
                    models = _Models(run, name, out / CELLS, batch_size, may_run_code(run, trust_remote_code))
                seats = [seat for seat, hero in run.heroes.items() if hero == name]
                for each in asked:
                    both = [models.numbers(each, run, policy, how, shown) for policy in (None, name)]
                    records += compared(run.name, name, seats, run.model_of(name), both)
    write_single(out, Single(tuple(records), settings))
    return records


class _Models:
    """A base model with the agents of runs on it, and what is known of each.

    Args:
        run: A run.
        policy: Its first agent on this base.
        folder: Of the numbers.
        batch_size: Most prompts at a time.
        trusted: Whether Python that comes with the model may run.
    """

    def __init__(self, run: Run, policy: str, folder: Path, batch_size: int, trusted: bool) -> None:
        self._loaded, self._folder, self._batch_size = _how_loaded(run, policy), folder, batch_size
        base, self._tokenizer = load_model(
            run.model_of(policy),
            dtype=run.config.get("dtype"),
            revision=run.config.get("model_revision"),
            trust_remote_code=trusted,
            quantization=quantization_of(run.config),
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        self._bank = AdapterBank(base)
        self._models: dict[str, Any] = {}

    def serves(self, run: Run, policy: str) -> bool:
        """Whether the base is that of a run's agent."""
        return self._loaded == _how_loaded(run, policy)

    def numbers(
        self, asked: Asked, run: Run, policy: str | None, how: Mapping[str, Any], shown: TextIO | None
    ) -> list[Number]:
        """What lm-eval says of a run's agent, or of the base if `policy` is None; measured if it is not there yet."""
        adapter = self._adapter(run, policy) if policy else None
        renderer = Renderer.of(self._tokenizer, run.config)
        facts = {
            "format": FORMAT,
            "lm_eval": version("lm-eval"),
            "task": asked.name,
            "asked": asked.digest,
            "template": renderer.identity if how["apply_chat_template"] else None,
            "base": [self._bank.fingerprint, str(self._bank.base.dtype), *self._loaded[2:]],
            "adapter": [self._bank.digest(adapter), self._bank.shape(adapter)] if adapter else None,
        }
        path = self._folder / f"{digest(facts)}.json"
        if (kept := _read(path)) is not None:
            return kept
        if shown:
            who = f"{policy} of {run.name}" if policy else f"the base of {run.name}"
            print(one_line(f"lm-eval: {asked.name}, {who}"), file=shown, flush=True)
        self._tokenizer.chat_template = renderer.template.alone()  # asks as the training asked
        with self._bank.using(adapter), torch.inference_mode():
            model = language_model(self._bank.model, self._tokenizer, self._batch_size)
            found = measure(model, asked, **how)
        with writing("what lm-eval measured", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, to_json({"of": facts, "numbers": [asdict(number) for number in found]}) + "\n")
        return found

    def _adapter(self, run: Run, policy: str) -> str:
        folder = run.adapters / policy
        name = f"adapter-{digest(str(folder.resolve()))}"
        if name not in self._bank.names:
            self._bank.load(folder, name)
        return name


def _how_loaded(run: Run, policy: str) -> tuple[Any, ...]:
    """What a base model is loaded by: agents for whom all of it is equal share one."""
    quantized = QUANTIZED if quantization_of(run.config) else ()
    return (run.model_of(policy), *(run.config.get(key) for key in ("model_revision", "dtype", *quantized)))


def _read(path: Path) -> list[Number] | None:
    """The numbers in a file; None if it is not there, or damaged: they are measured again."""
    if not path.is_file():
        return None
    try:
        return [Number.read(item) for item in parse_json(read_text(path, LARGEST))["numbers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read (%s): its numbers are measured again", path, error)
        return None


def _check(limit: float | None, num_fewshot: int | None, batch_size: int) -> None:
    if limit is not None and not 0 < limit < float("inf"):
        raise SingleError(f"--limit must be above 0, documents or a share of them, got {limit}")
    if num_fewshot is not None and num_fewshot < 0:
        raise SingleError(f"--num_fewshot must be 0 or more, got {num_fewshot}")
    if batch_size < 1:
        raise SingleError(f"--batch_size must be 1 or more, got {batch_size}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SingleError("--single runs in one process: start it without accelerate launch")
