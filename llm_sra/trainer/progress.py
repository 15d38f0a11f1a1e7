"""How a training shows itself while it runs: its progress bar, and TensorBoard's files in the run folder."""

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from llm_sra.files import writing
from llm_sra.untrusted import one_line


class Progress(ProgressCallback):  # type: ignore[misc]
    """transformers' progress bar, followed by a line of numbers instead of a dictionary per step."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show solve rate and effort of the step, or the results on the development roster."""
        if self.training_bar is None or not logs:
            return
        if "eval_self_play" in logs:
            worst = logs.get("eval_worst_partner")
            strangers = f", worst stranger {worst:.2f}" if worst is not None else ""
            self.training_bar.write(
                f"step {state.global_step}: with its own partner {logs['eval_self_play']:.2f}{strangers} (dev roster)"
            )
        elif "solve_rate" in logs:
            self.training_bar.set_postfix_str(summary(logs))


class TensorBoard(TensorBoardCallback):  # type: ignore[misc]
    """transformers' callback, with its files in `logs/` of the run folder; TENSORBOARD_LOGGING_DIR names another.

    A resumed training hides what an earlier process logged after the step that it resumes from.
    """

    logging_dir: str | None  # set by transformers

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the file."""
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            assert args.output_dir is not None
            self.logging_dir = self.logging_dir or str(Path(args.output_dir) / "logs")
            _silence_writer_threads()
            with self._writing():
                self.tb_writer = SummaryWriter(self.logging_dir, purge_step=state.global_step + 1)
        with self._writing():
            super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Write the numbers."""
        with self._writing():
            super().on_log(*args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the file."""
        with self._writing():
            super().on_train_end(*args, **kwargs)

    def _writing(self) -> AbstractContextManager[None]:
        return writing("TensorBoard's log", Path(self.logging_dir or "logs"))


def _silence_writer_threads() -> None:
    """Let TensorBoard's thread not print a traceback of its own: the next call of the writer raises the same error."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            before(args)

    threading.excepthook = hook


def summary(logs: Mapping[str, Any]) -> str:
    """A step in a few words: solve rate, and the effort of the hero in each seat."""
    efforts = [f"{key.split('/')[1]} {value:.1f}" for key, value in logs.items() if _is_own_effort(key)]
    return one_line(f"solved {logs['solve_rate']:.2f}, effort {', '.join(efforts)}")


def _is_own_effort(key: str) -> bool:
    """Whether it is the effort of a hero in a seat, not of an adversary."""
    parts = key.split("/")
    return parts[0] == "play" and parts[-1] == "effort" and not parts[2].startswith("adversary")
