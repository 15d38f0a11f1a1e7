"""`accelerate launch` for trainings: ends with the exit code of the training, and adds no traceback of its own.

python -m recipes.launch --config_file "$(llm-sra list accelerate_configs --path cpu)" -m recipes.train ...

accelerate itself ends with exit code 1 and a traceback of its own, whatever ended the processes.
"""

import logging
import os
import signal
import sys

from recipes.stopping import stopping

if __name__ == "__main__":
    stopping.install([sys.executable, "-m", "recipes.launch"], watch=False)  # until torch's launcher takes over
    os.environ.setdefault("LOGLEVEL", "ERROR")  # of torch's launcher, which tells at length of every signal


def main() -> int:
    """Launch; returns the exit code."""
    from accelerate.commands.launch import main as launch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    try:
        launch()
    except SignalException as error:
        return 130 if error.sigval == signal.SIGINT else 143
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return code if code >= 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
