"""`llm-sra serve`: prints and runs the command of a vLLM server that a recipe's training or evaluation can use."""

import argparse
import importlib.metadata
import importlib.util
import ipaddress
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from recipes.commands.train_help import takes_fields
from recipes.fields import check_early

RUNTIME_UPDATES = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the base model of a recipe until interrupted: vLLM's server takes the place of this process.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ConfigError: If the recipe cannot be used.
        EngineError: If vLLM is not installed, or the server is open without a key.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, further = arguments, []
    if "--" in arguments:
        ours, further = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    args, flags = parser().parse_known_args(ours)
    check_early(args.config, flags)  # before what takes seconds to import
    command = [*server_command(args.config, flags, args.host, args.port, args.runs, args.seat), *further]
    print(f"{RUNTIME_UPDATES}=1 {shlex.join(command)}", flush=True)
    if args.print:
        return
    from llm_sra.engines import EngineError

    if importlib.util.find_spec("vllm") is None:
        from llm_sra.engines.vllm import import_vllm

        import_vllm()  # says how to install it
    if not _is_loopback(args.host) and not os.environ.get("VLLM_API_KEY"):
        raise EngineError(
            f"--host {args.host} admits other machines, and whoever reaches the server can make it load files as "
            "adapters: set VLLM_API_KEY here and where you train, or listen at 127.0.0.1"
        )
    # In this process's place: it needs no memory beside the server's, and a signal that ends it ends the server.
    os.execvpe(command[0], command, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", **os.environ, RUNTIME_UPDATES: "1"})


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra serve",
        description="Serve a recipe's base model with vLLM, with room for its adapters. An API key is taken from the "
        "environment variable VLLM_API_KEY, here and by the training.",
        epilog="Further arguments are fields of the recipe (--lora_r 8; --help-all lists them); those after -- go to "
        "vLLM as they are.",
    )
    takes_fields(parser)
    parser.add_argument("--config", help="recipe")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default %(default)s)")
    parser.add_argument("--seat", help="whose model to serve, where the recipe has seat_models")
    parser.add_argument("--runs", type=int, default=1, help="trainings that share the server (default %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the command and do not run it")
    return parser


def server_command(
    recipe: str | None, flags: Sequence[str], host: str, port: int, trainings: int = 1, seat: str | None = None
) -> list[str]:
    """The server's command line.

    Args:
        recipe: YAML file.
        flags: That replace the recipe's fields.
        host: Address to listen at.
        port: Port to listen at.
        trainings: That use the server at the same time.
        seat: Whose model, where seats have different ones.

    Raises:
        ModelError: If the model's files cannot be read.
        UserError: If `seat` is missing where it is needed, is no seat, or all seats have one model.
    """
    from llm_sra.engines.vllm import LOGPROBS, context_in_vllm, lora_room, placement
    from llm_sra.models.loading import check_files, read_config
    from llm_sra.partners.rosters import read_roster
    from llm_sra.registry import find_model, load_task
    from llm_sra.trainer.arms import assign_roles
    from llm_sra.trainer.bases import models_of, seat_models
    from llm_sra.trainer.parse import parse

    model_args, args = parse(recipe, flags)
    assert not isinstance(args.task_args, str) and not isinstance(model_args.seat_models, str)
    task = load_task(args.task, args.task_args)
    roles = assign_roles(args.arm, task.seats, args.sharing, args.tau, args.partners is not None, args.population)
    models = models_of(roles, seat_models(model_args.seat_models, model_args.model_name_or_path, task.seats))
    name = _model({place: models[hero] for place, hero in roles.heroes.items()}, seat)
    adapters = [adapter for adapter, model in models.items() if model == name]
    pool = [entry for entry in read_roster(args.partners) if entry.kind == "adapter"] if args.partners else []
    # As the training has it: vLLM's own `auto` halves the precision of a float32 model.
    # vLLM knows no names of shipped models.
    name, trust = find_model(name), args.trust_remote_code
    config = read_config(name, model_args.model_revision, trust)
    saved = str(config.dtype or "float32").removeprefix("torch.")
    check_files(name, config, model_args.model_revision, trust)
    context = context_in_vllm(name, config, args.vllm_max_model_length)
    options = {
        "served-model-name": "base",
        "host": host,
        "port": port,
        "dtype": model_args.dtype if model_args.dtype not in (None, "auto") else saved,
        "logprobs-mode": LOGPROBS,
        "generation-config": "vllm",
        "tensor-parallel-size": args.vllm_tensor_parallel_size,
        "max-model-len": context,
        "revision": model_args.model_revision if model_args.model_revision != "main" else None,
        # While a new version is loaded the one before it is still there.
        **lora_room((2 * len(adapters) + len(pool) * len(task.seats)) * trainings, model_args.lora_r),
        **placement(context),
    }
    command = [*_program(), name, "--enable-lora", *(["--trust-remote-code"] if trust else [])]
    for key, value in options.items():
        if isinstance(value, bool):
            command.append(f"--{'' if value else 'no-'}{key.replace('_', '-')}")
        elif value is not None:
            command += [f"--{key.replace('_', '-')}", str(value)]
    return command


def _model(of_seats: Mapping[str, str], seat: str | None) -> str:
    """The model to serve."""
    from llm_sra.errors import UserError, unknown

    if seat is not None and seat not in of_seats:
        raise unknown("seat", seat, of_seats)
    if len(set(of_seats.values())) == 1:
        if seat is not None:
            raise UserError(f"all seats have one model: leave --seat {seat} out")
        return next(iter(of_seats.values()))
    if seat is None:
        raise UserError(f"seats have different models: name whose to serve, --seat {' or --seat '.join(of_seats)}")
    return of_seats[seat]


def _program() -> list[str]:
    """`vllm serve`, which looks for a distribution of that name, or the module it stands for."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return ["vllm", "serve"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
