"""`llm-sra eval`: play runs with the partners of a roster and with each other, then write and show the result."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from recipes.single import check_single, evaluate_alone, plays, single_flags
from recipes.terminal import playing_flags, trust_flags

STRANGERS = "strangers.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, write, and say where.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ValueError: If a run, the roster or a number cannot be used; nothing is written then.
    """
    flags = parser()
    args = flags.parse_args(argv)
    check_single(flags, args)
    from llm_sra.registry import find_roster
    from llm_sra.runs import open_runs

    if args.problems < 1:
        raise ValueError(f"--problems must be 1 or more, got {args.problems}")
    if args.inspect_log:
        from eval.inspect_log import require_inspect

        require_inspect()
    runs = open_runs(args.run)
    if args.roster is not None:
        find_roster(args.roster)
    if args.roster is not None and args.strangers is not None:
        raise ValueError("--strangers makes a roster: name either it or a --roster")
    if not (plays(args) or args.single):
        raise ValueError(
            "nobody to play with: name a --roster or --strangers, or add --cross_play, --contributions or --single"
        )
    # What takes seconds to import, now that what was asked for can be done.
    from eval.inspect_log import write_inspect_logs
    from eval.rows import CSV, PARQUET
    from eval.summary import write_summary
    from llm_sra import evaluate
    from llm_sra.engines import EngineOptions
    from llm_sra.evaluation.results import read_results
    from llm_sra.registry import task_options
    from llm_sra.untrusted import one_line
    from recipes.terminal import console, kept_if_stopped

    roster = _roster(args, tuple(runs[0].heroes)) if plays(args) else None
    alone = evaluate_alone(args, runs) if args.single else []
    if not plays(args):
        print("Written:", *map(one_line, alone), sep="\n  ")
        return
    decodings = list(dict.fromkeys(args.decoding))
    engine = {
        "engine": args.engine,
        "vllm_server_base_url": args.server,
        "vllm_max_model_length": args.max_model_length,
        "engine_adapter_dir": args.engine_adapter_dir,
    }
    if args.gpu_memory_utilization is not None:
        engine["vllm_gpu_memory_utilization"] = args.gpu_memory_utilization
    with kept_if_stopped():
        evaluate(
            runs,
            roster,
            args.out,
            problems=args.problems,
            split=args.split,
            decodings=decodings,
            seed=args.seed,
            engine=EngineOptions.of_run(runs[0].config, engine),
            cross_play=args.cross_play,
            contributions=args.contributions,
            divergence=args.divergence,
            task_args=task_options(args.task_args),
            chunk=args.chunk,
            disable_tqdm=args.disable_tqdm or None,
            trust_remote_code=args.trust_remote_code,
            trust_task=args.trust_task,
            trust_scripts=args.trust_scripts,
            best_responses=args.best_responses,
        )
    if int(os.environ.get("RANK", "0")):
        return  # the first process of several shows and writes
    figure = write_summary(runs, args.out, console())
    logs = write_inspect_logs(read_results(args.out), str(runs[0].config["task"]), args.out) if args.inspect_log else []
    written = [args.out / name for name in ("results.json", CSV, PARQUET, "episodes.jsonl", "table.md")]
    print("Written:", *map(one_line, [*written, *([figure] if figure else []), *logs, *alone]), sep="\n  ")


def _roster(args: argparse.Namespace, seats: Sequence[str]) -> Path | str | None:
    """The roster that is played; that of strangers is written to the results. Says first what its partners take."""
    import yaml

    from llm_sra.files import write_whole, writing
    from llm_sra.partners.costs import cost_lines
    from llm_sra.partners.rosters import as_item, read_roster
    from llm_sra.partners.strangers import strangers

    roster: Path | str | None = args.roster
    if args.strangers is not None:
        entries = strangers(args.strangers, seats)
        made: Path = args.out / STRANGERS
        with writing("the roster of strangers", made):
            args.out.mkdir(parents=True, exist_ok=True)
            write_whole(made, yaml.safe_dump({"partners": list(map(as_item, entries))}, sort_keys=False))
        roster = made
    if roster is not None and not int(os.environ.get("RANK", "0")):
        lines = cost_lines(read_roster(roster), seats)
        if lines:
            print("Partners that take memory or tokens:", *lines, sep="\n  ", end="\n\n", flush=True)
    return roster


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra eval",
        description="Play each run's agents, in each seat, with each partner of a roster, on the same problems. What "
        "--out holds already is not played again.",
    )
    parser.add_argument(
        "--run", action="extend", nargs="+", required=True, metavar="RUN",
        help="run folder, or RUN@checkpoint-30 or RUN@best; the first is compared with the later ones",
    )  # fmt: skip
    parser.add_argument("--roster", help="YAML file, or a shipped roster's name (worksheet_test)")
    parser.add_argument(
        "--strangers", metavar="PLACE", type=Path,
        help="in place of a roster: a folder, of which every adapter becomes a partner, or a YAML list of endpoints; "
        f"the roster that it makes is kept as OUT/{STRANGERS}",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--best_responses", metavar="FILE", type=Path,
        help="what best responses to the roster's partners earn, as llm-sra best-response wrote it (default: "
        "ROSTER.best.json beside the roster, if it is there)",
    )  # fmt: skip
    parser.add_argument(
        "--cross_play", action="store_true",
        help="play every run's agents with those of every other run, too: the work grows with the square of the runs",
    )  # fmt: skip
    parser.add_argument(
        "--contributions", action="store_true",
        help="play each run's team with others in its seats, too: what does each of its agents contribute?",
    )  # fmt: skip
    parser.add_argument(
        "--divergence", action="store_true",
        help="measure how far partners are from the one that an agent was trained with, in nats an episode",
    )  # fmt: skip
    parser.add_argument(
        "--inspect_log", action="store_true",
        help="write what was said as logs of inspect-ai, too, to OUT/inspect/ (needs the package inspect-ai)",
    )  # fmt: skip
    playing_flags(parser)
    parser.add_argument(
        "--task_args", metavar="JSON",
        help="options of the task that replace the runs' own: other conditions (default: as they were trained)",
    )  # fmt: skip
    parser.add_argument(
        "--engine",
        default="transformers",
        help="transformers, vllm or server: plays the runs' agents (default %(default)s)",
    )
    parser.add_argument(
        "--server",
        metavar="URL[,URL]",
        help="servers of the engine `server`; see llm-sra serve. Where seats have different models: SEAT=URL,SEAT=URL",
    )
    parser.add_argument(
        "--engine_adapter_dir", metavar="FOLDER",
        help="where those servers find adapters, if they run on other machines (default: memory of this one)",
    )  # fmt: skip
    parser.add_argument(
        "--max_model_length", type=int, help="tokens of prompt and reply in vLLM (default: the model's)"
    )
    parser.add_argument(
        "--gpu_memory_utilization", type=float,
        help="share of the GPU for vLLM, of each base model that the runs have (default: the first run's)",
    )  # fmt: skip
    parser.add_argument(
        "--chunk", type=int, default=1024,
        help="most episodes at a time: what a kill can lose, never the results (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--disable_tqdm", action="store_true", help="no progress (default: a bar, or lines)")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and replies (default %(default)s)")
    trust_flags(parser, roster=True)
    single_flags(parser)
    return parser
