"""The `astra` command: one subcommand a tool."""

import argparse
import errno
import inspect
import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from astra_jax.data.soccernet import CLASSES, load_split, read_raw_annotations
from astra_jax.errors import GOES_ON, Interrupted, UserError
from astra_jax.evaluation.metrics import METRICS, SUBSETS, Block, average_maps
from astra_jax.files import write_atomically
from astra_jax.spotting.results import read_predictions

LABELS_FILE = "Labels-v2.json"

_MENDS = {
    errno.ENOSPC: "free some space, then give the same command again",
    errno.EDQUOT: "free some space, then give the same command again",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "give yourself the right to it, or choose another folder",
    errno.EPERM: "give yourself the right to it, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}

_CONFIG_HELP = (
    "a config file; configs/demo.py (needs no data), configs/astra.py, configs/astra_small_data.py "
    "and configs/commentary.py come with astra_jax: where the folder you are in has no such file, "
    "the shipped one is read"
)
_SUBSET_TITLES = ("all", "visible", "not shown")

logger = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, as all others of the command."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.splitlines())
        self.exit(2, f"error: {line}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `astra ARGV`; the exit code, 2 for anything that the user can mend."""
    parser = _Parser(
        prog="astra",
        description="Spot the actions of football broadcasts.",
        epilog="astra COMMAND --help: the arguments of one command, and an example.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_train, _add_evaluate, _add_score, _add_runs):
        add(commands)
    args, rest = parser.parse_known_args(argv)
    overrides = rest if "overrides" in args else []
    if rest and not overrides:
        commands.choices[args.command].error(f"unknown argument {rest[0]}")
    args.overrides = overrides
    return run_command(lambda: args.run(args))


def run_command(command: Callable[[], None]) -> int:
    """0, or 2 with one line on stderr where `command` raises UserError or a file can't be used."""
    try:
        command()
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except OSError as error:
        # A full disk, a folder without rights, a name that is too long: not ours to mend.
        if error.filename is None or error.strerror is None:
            raise
        mend = _MENDS.get(error.errno or 0, "mend it")
        print(f"error: {error.filename}: {error.strerror}; {mend}", file=sys.stderr)
        return 2
    except Interrupted as end:
        print(end, file=sys.stderr)
        return 128 + end.signal
    except KeyboardInterrupt:
        print(f"interrupted; {GOES_ON}", file=sys.stderr)
        return 130
    return 0


def score_table(blocks: Mapping[str, Block], per_class: Collection[str] = METRICS) -> str:
    """Readable text of `metrics.json`'s blocks, in percent: the averages, then each class's.

    `per_class`: the metrics whose classes are shown.
    """
    rows: list[tuple[str, Sequence[str]]] = [("Average-mAP, %", _SUBSET_TITLES)]
    for metric, block in blocks.items():
        rows.append((metric, [f"{100 * block[f'a_mAP{subset}']:.2f}" for subset in SUBSETS]))
    for metric, block in blocks.items():
        if metric not in per_class:
            continue
        rows += [("", ()), (f"{metric} per class, %", _SUBSET_TITLES)]
        for name in block["a_mAP_per_class"]:
            values = [block[f"a_mAP_per_class{subset}"][name] for subset in SUBSETS]
            rows.append((name, [f"{100 * value:.2f}" for value in values]))
    width = max(len(title) for title, _ in rows)
    lines = [title.ljust(width) + "".join(f"{cell:>11}" for cell in cells) for title, cells in rows]
    return "\n".join(line.rstrip() for line in lines)


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], example: str
) -> argparse.ArgumentParser:
    """A subcommand whose help is the first paragraph of its function's docstring."""
    description = inspect.getdoc(run) or ""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description.splitlines()[0],
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(commands: Any) -> None:
    example = "astra train --config configs/astra.py --workdir runs/astra --config.data.root=DIR"
    parser = _add(commands, "train", _train, example)
    parser.add_argument("--config", required=True, metavar="FILE", help=_CONFIG_HELP)
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/CONFIG'S NAME)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, measure some steps, print memory and time needed, leave nothing",
    )
    _add_distributed(parser)
    parser.set_defaults(overrides=[])


def _add_distributed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one process of several, the same command in each: they find each other by "
        "JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, "
        "or, without these, as JAX detects on TPU pods, Slurm, Open MPI and Kubernetes",
    )


def _train(args: argparse.Namespace) -> None:
    """Train a config, or go on where the run in this folder stopped.

    Values of the config are set by --config.KEY=VALUE; astra_jax/defaults.py has every key.
    """
    from astra_jax import configuration, launch, runs  # JAX takes seconds to import

    launch.keep_freed_memory()
    config = configuration.load_config(args.config, args.overrides)
    name = args.config.partition(":")[0]
    workdir = args.workdir or Path("runs") / Path(name).stem
    if args.distributed:
        launch.join_hosts()
    if args.dry_run:
        from astra_jax import dry_run

        with launch.messages():
            measured = dry_run.measure(config, workdir)
        if launch.speaks():
            print(dry_run.report(measured))
        return
    with launch.messages():
        if (file := configuration.find_config(name)) != name:
            logger.info("%s is not in this folder: the shipped %s is read", name, file)
        runs.train(config, workdir)


def _add_evaluate(commands: Any) -> None:
    example = "astra evaluate --workdir runs/astra --split test --out runs/astra/test"
    parser = _add(commands, "evaluate", _evaluate, example)
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="a split of the config, or a list of matches"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="folder that gets results/, results.zip and metrics.json",
    )
    _add_distributed(parser)
    parser.set_defaults(overrides=[])


def _evaluate(args: argparse.Namespace) -> None:
    """Predict a split with a run's best checkpoint, write the results and score them.

    Where the data lie elsewhere now, say so by --config.data.root=DIR.
    """
    from astra_jax import launch, runs

    launch.keep_freed_memory()
    if args.distributed:
        launch.join_hosts()
    with launch.messages():
        blocks = runs.evaluate(args.workdir, args.split, args.out, args.overrides)
    if blocks is not None and launch.speaks():
        print(score_table(blocks, per_class=("tight", "loose")))


def _add_score(commands: Any) -> None:
    example = "astra score --labels SoccerNet --predictions out/results.zip --split test"
    parser = _add(commands, "score", _score, example)
    parser.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="DIR",
        help=f"folder that holds league/season/match/{LABELS_FILE}",
    )
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="DIR|ZIP",
        help="results folder or zip: league/season/match/results_spotting.json",
    )
    matches = parser.add_mutually_exclusive_group()
    matches.add_argument("--split", metavar="NAME", help="train, valid or test of SoccerNet")
    matches.add_argument(
        "--matches", metavar="FILE", help="text file, one league/season/match a line"
    )
    parser.add_argument(
        "--classes",
        default=",".join(CLASSES),
        metavar="A,B,C",
        help="the classes that count, separated by commas (default: SoccerNet's 17)",
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        default=["tight", "loose"],
        choices=list(METRICS),
        metavar="NAME",
        help=f"some of {', '.join(METRICS)} (default: tight loose)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the scores there, as in metrics.json"
    )


def _score(args: argparse.Namespace) -> None:
    """Score results by the official SoccerNet metric.

    Without --split and --matches every labelled match counts; each needs its predictions.
    """
    classes = tuple(name.strip() for name in args.classes.split(","))
    if "" in classes or len(set(classes)) < len(classes):
        raise UserError(f"--classes: {args.classes!r}, it must name every class once: A,B,C")
    chosen, given_by = (args.split, "--split") if args.split else (args.matches, "--matches")
    matches = load_split(chosen, given_by=given_by) if chosen else labelled_matches(args.labels)
    labels = {match: read_raw_annotations(args.labels / match / LABELS_FILE) for match in matches}
    predictions = read_predictions(args.predictions, matches)
    _check_known(args.labels, labels, classes)
    _check_known(args.predictions, predictions, classes)
    blocks = average_maps(labels, predictions, args.metric, classes)
    if args.json is not None:
        try:
            write_atomically(args.json, json.dumps(blocks, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{args.json}: cannot be written ({error.strerror or error}); mend --json"
            ) from error
    print(f"{len(matches)} match{'es' if len(matches) > 1 else ''}\n\n{score_table(blocks)}")


def _add_runs(commands: Any) -> None:
    example = "astra runs runs --config astra/first astra/second"
    parser = _add(commands, "runs", _runs, example)
    parser.add_argument(
        "folder",
        nargs="?",
        default=Path("runs"),
        type=Path,
        metavar="DIR",
        help="folder that runs lie in, at any depth up to four (default: runs)",
    )
    parser.add_argument(
        "--config",
        nargs=2,
        metavar=("A", "B"),
        help="print the config keys that differ between two runs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _runs(args: argparse.Namespace) -> None:
    """List the runs below a folder: state, epochs, scores, duration; or compare two configs.

    Scores are Average-mAP in percent: the best of the validation, and those of the evaluations
    that lie in the run's folder.
    """
    from astra_jax import listing

    if args.config:
        found = listing.config_differences(args.folder, *args.config)
        same = "the two configs are the same"
        text = listing.difference_table(found, *args.config) if found else same
        print(json.dumps(found, indent=1) if args.json else text)
        return
    runs = listing.find_runs(args.folder)
    if args.json:
        print(listing.as_json(runs))
    else:
        print(listing.table(runs) if runs else f"{args.folder}: no run in it")


def _check_known(
    path: Path, of_matches: Mapping[str, Sequence[Mapping[str, Any]]], classes: Sequence[str]
) -> None:
    """Raises UserError where there are labels and all are of other classes: the score would be 0.

    Some of other classes are allowed, as in the official metric, which leaves them out.
    """
    found = [entry["label"] for entries in of_matches.values() for entry in entries]
    if found and not any(label in classes for label in found):
        raise UserError(
            f"{path}: none of its {len(found)} label(s) is of a known class (the first is "
            f"{found[0]!r}); name the classes: --classes 'A,B,C'"
        )


def labelled_matches(root: Path) -> tuple[str, ...]:
    """Every `league/season/match` under `root` that has a label file, sorted.

    Raises UserError where there is no such folder or no label file in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of labels; mend --labels")
    files = root.glob(f"*/*/*/{LABELS_FILE}")
    matches = tuple(sorted(file.parent.relative_to(root).as_posix() for file in files))
    if not matches:
        raise UserError(
            f"{root}: holds no league/season/match/{LABELS_FILE}; mend --labels, or download "
            "SoccerNet-v2's labels"
        )
    return matches
