"""The commands of a comparison instead of their running: a line each, or a SLURM array of the trainings."""

import shlex
from collections.abc import Sequence

LINES, SLURM = "lines", "slurm"


def as_lines(commands: Sequence[Sequence[str]]) -> str:
    """A command a line.

    Args:
        commands: Arguments of `llm-sra` each.
    """
    return "".join(f"llm-sra {shlex.join(words)}\n" for words in commands)


def as_slurm(trainings: Sequence[Sequence[str]], after: Sequence[Sequence[str]], name: str) -> str:
    """A batch file for `sbatch`: an array with a task for each training, and one more that plays and reports.

    Args:
        trainings: Arguments of `llm-sra` of each training.
        after: Those of what comes when all are trained.
        name: Of the job.
    """
    last = len(trainings)
    cases = [f"  {number}) llm-sra {shlex.join(words)} ;;" for number, words in enumerate(trainings)]
    rest = [f"    llm-sra {shlex.join(words)}" for words in after]
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={shlex.quote(name)}",
            f"#SBATCH --array=0-{last - 1}",
            "#SBATCH --ntasks=1",
            "#SBATCH --gpus-per-task=1",
            "#SBATCH --output=slurm-%A_%a.log",
            "#SBATCH --requeue",
            "# Each task is a training, which goes on from its newest checkpoint. When all are done, play and report:",
            "#   id=$(sbatch --parsable FILE)",
            f"#   sbatch --dependency=afterok:$id --array={last} FILE",
            "set -e",
            'case "$SLURM_ARRAY_TASK_ID" in',
            *cases,
            f"  {last})",
            *rest,
            "    ;;",
            f'  *) echo "no task $SLURM_ARRAY_TASK_ID: expected 0 to {last}" >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )
