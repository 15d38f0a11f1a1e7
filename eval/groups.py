"""How runs differ: the keys of their configurations, and the groups of runs that differ only in their seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from llm_sra.runs import Run

SEED, MODEL = "seed", "model_name_or_path"
# A run's place, name and permissions: never what was compared.
PLACE = frozenset(
    ("output_dir", "run_name", "logging_dir", "overwrite_output_dir", "resume_from_checkpoint", "hub_token",
     "hub_model_id", "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_group_port",
     "engine_adapter_dir", "report_to", "disable_tqdm", "trust_scripts")
)  # fmt: skip
ABSENT = "-"


@dataclass(frozen=True)
class Group:
    """Runs of one setting: one per seed.

    Attributes:
        label: The arm, and the settings that tell the group from others of its arm.
        arm: The objective.
        runs: Name of the run of each seed, in the order of the seeds.
        model: The base model.
    """

    label: str
    arm: str
    runs: Mapping[int, str]
    model: str = ""


def differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """Keys of the configuration whose values differ between runs, without those of a run's place."""
    keys = sorted({key for run in runs for key in run.config} - PLACE - {"seat_models"})  # that is a part of the model
    return tuple(key for key in keys if len({_seen(run, key) for run in runs}) > 1)


def value_of(run: Run, key: str) -> str:
    """A setting as text; `ABSENT` where the run's configuration does not have the key."""
    value = _value(run, key)
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown_value(run: Run, key: str) -> str:
    """A setting as readers elsewhere can use it: of a path on this machine its last two parts."""
    value = value_of(run, key)
    path = PurePath(value)
    return PurePath(*path.parts[-2:]).as_posix() if path.is_absolute() else value


def groups(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Runs by setting, in the order of their first run; runs with the same seed and setting are groups of their own."""
    keys = [key for key in differing(runs) if key != SEED]
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.config["arm"], run.checkpoint or "", *(value_of(run, key) for key in keys)), []).append(
            run
        )
    split = [part for members in found.values() for part in _by_seed(members)]
    made = []
    for members in split:
        arm = str(members[0].config["arm"])
        others = [part[0] for part in split if part[0].config["arm"] == arm]
        made.append(
            Group(_label(members[0], others, keys, len(members)), arm, _named(members), value_of(members[0], MODEL))
        )
    return tuple(made)


def _seen(run: Run, key: str) -> str:
    """A value that compares: 10 and 10.0 are the same."""
    value = _value(run, key)
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


def _value(run: Run, key: str) -> Any:
    """A setting; the model of a run with several is that of its seats, in their order."""
    if key == MODEL and run.models:
        return " and ".join(run.models_of_seats)
    return run.config.get(key, ABSENT)


def _by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """One group, or one per run where two have the same seed."""
    seeds = [run.config.get(SEED, 0) for run in runs]
    return [list(runs)] if len(set(seeds)) == len(seeds) else [[run] for run in runs]


def _named(runs: Sequence[Run]) -> dict[int, str]:
    return dict(sorted((int(run.config.get(SEED, 0)), run.name) for run in runs))


def _label(run: Run, others: Sequence[Run], keys: Sequence[str], members: int) -> str:
    """The arm; settings in which it differs from other groups of the arm, and the model from any; its checkpoint."""
    named = [key for key in keys if key == MODEL or len({_seen(other, key) for other in others}) > 1]
    said = [f"{key} {shown_value(run, key)}" for key in named]
    said += [run.checkpoint] if run.checkpoint and any(other.checkpoint != run.checkpoint for other in others) else []
    same = [o for o in others if o.checkpoint == run.checkpoint and all(_seen(o, k) == _seen(run, k) for k in keys)]
    said += [run.path.name] if members == 1 and len(same) > 1 else []
    arm = str(run.config["arm"])
    return f"{arm} ({', '.join(said)})" if said else arm
