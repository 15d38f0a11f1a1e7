"""`accelerate launch` for trainings: ends with the exit code of the training, and adds no traceback of its own.

python -m recipes.launch --config_file "$(llm-sra list accelerate_configs --path cpu)" -m recipes.train ...

accelerate itself ends with exit code 1 and a traceback of its own, whatever ended the processes.
"""

import logging
import os
import signal
import sys
import tempfile

from recipes.stopping import SAID, stopping

if __name__ == "__main__":
    stopping.install([sys.executable, "-m", "recipes.launch"], watch=False)  # until torch's launcher takes over
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of torch's launcher, which tells at length of every signal


def main() -> int:
    """Launch; returns the exit code."""
    from accelerate.commands.launch import main as launch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.NamedTemporaryFile(prefix="llm-sra-") as said:
        os.environ[SAID] = said.name
        try:
            launch()
        except SignalException as error:
            stopping.number = int(error.sigval)
            if not said.read():  # the processes were only starting
                print(stopping.line(), file=sys.stderr)
            return 130 if stopping.number == signal.SIGINT else 143
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            code = int(failure.exitcode)
            if code < 0:
                print(f"llm-sra: {stopping.ended(rank, signal.Signals(-code))}", file=sys.stderr)
            return code if code >= 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
