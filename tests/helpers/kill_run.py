"""The kill test: a demo run, killed 20 times, must end to the bit as the one left alone.

Run:  PYTHONPATH=tests python -m helpers.kill_run --out DIR [--kills 20] [--seed 0] [ARGUMENTS...]

ARGUMENTS are more of train's.

Trains configs/demo.py twice: once undisturbed, once killed by SIGKILL (with all the processes that
it started) at random moments and started again by the same command each time. At least 5 kills hit
unfinished checkpoint writes and 3 validations: one that misses counts as what it hit, and is tried
again. Then parameters and all other state, best checkpoint, batches, steps, metrics.jsonl and
summary.json are compared. DIR gets a line a kill (kills.jsonl) and the table (kills.md), which is
printed; the exit code is 1 where anything differs.
"""

import argparse
import dataclasses
import datetime
import json
import random
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from helpers.kills import Aim, Event, Hit, WatchedRun, end_faults, history_faults
from helpers.processes import ROOT

DEMO = ROOT / "configs" / "demo.py"
ARGUMENTS = (
    "--config.training.epochs=6",
    "--config.training.validate_every_epochs=1",
    "--config.training.checkpoint_every_steps=20",
    "--config.training.log_every_steps=7",
)
QUOTAS = {"checkpoint write": 5, "validation": 3}
START_UPS = 2
# Kills are spread over this part of the steps, so that the last ones still find work to disturb.
SPREAD = 0.7


@dataclasses.dataclass(frozen=True)
class Pace:
    """Of the undisturbed run: its steps, and the median seconds of what can be hit."""

    steps: int
    seconds: dict[str, float]

    @classmethod
    def of(cls, events: Sequence[Event]) -> "Pace":
        times: dict[str, list[float]] = {"training": [], "checkpoint write": [], "validation": []}
        began: dict[tuple[str, int], float] = {}
        for before, event in zip([None, *events], events, strict=False):
            name, key = event["event"], (event.get("kind", ""), event.get("step", 0))
            if name in ("write begins", "validation begins"):
                began[key] = event["time"]
            elif name == "written":
                times["checkpoint write"].append(event["time"] - began[key])
            elif name == "validation ends":
                times["validation"].append(event["time"] - began[key])
            elif name == "step" and before is not None and before["event"] == "step":
                times["training"].append(event["time"] - before["time"])
        seconds = {name: statistics.median(values) for name, values in times.items()}
        start_up = next(event["time"] for event in events if event["event"] == "resumes")
        seconds["start-up"] = start_up - events[0]["time"]
        return cls(sum(event["event"] == "step" for event in events), seconds)


def targets_of(kills: int, rng: random.Random) -> list[str]:
    """What to aim at, in random order; one more of each quota, and the rest anywhere."""
    targets = [name for name, count in QUOTAS.items() for _ in range(count + 1)]
    targets += ["start-up"] * START_UPS
    targets += ["training"] * (kills - len(targets))
    rng.shuffle(targets)
    return targets


def aim_at(target: str, part: float, reached: int, pace: Pace, rng: random.Random) -> Aim:
    """A random moment of a target, from about this part (0 to 1) of the run on.

    `reached` is the step that the run has come to: where that is further the next chance is
    taken, so that the run doesn't end before its kills.
    """
    step = int(SPREAD * part * pace.steps)
    ahead = reached > step
    delay = rng.uniform(0, pace.seconds[target])
    if target == "start-up":
        return Aim("starts", delay=delay)
    if target == "checkpoint write":
        # The first would do, but the run should get somewhere between two kills.
        count = 1 if ahead else rng.randint(1, 3)
        return Aim("write begins", step, count=count, delay=delay)
    if target == "validation":
        return Aim("validation begins", step, delay=delay)
    return Aim("step", step, count=rng.randint(1, 5 if ahead else 40), delay=delay)


def kill_often(run: WatchedRun, kills: int, pace: Pace, seed: int, log: Path) -> list[Hit]:
    """Kills until so many are done and the quotas are met; each is logged as it falls."""
    rng = random.Random(seed)
    targets, hits = targets_of(kills, rng), []
    while targets:
        part = min(1.0, (len(hits) + rng.random()) / kills)
        target = targets.pop(0)
        reached = max((hit.step or 0 for hit in hits), default=0)
        aim = aim_at(target, part, reached, pace, rng)
        hit = run.kill_at(aim)
        hits.append(hit)
        line = {
            "kill": len(hits),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "target": target,
            "aim": dataclasses.asdict(aim),
            **dataclasses.asdict(hit),
        }
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"kill {len(hits)}: aimed at {target}, hit {hit.phase}, step {hit.step}", flush=True)
        _aim_again(targets, Counter(hit.phase for hit in hits))
    return hits


def _aim_again(targets: list[str], hit: Counter) -> None:
    """Puts what the quotas still lack into the targets, in the place of others where there are."""
    for name, quota in QUOTAS.items():
        while hit[name] + targets.count(name) < quota:
            if "training" in targets:
                targets[targets.index("training")] = name
            else:
                targets.append(name)


def table(hits: Sequence[Hit], faults: Sequence[str], pace: Pace, seed: int) -> str:
    """The Markdown that docs/reliability.md takes."""
    phases = Counter(hit.phase for hit in hits)
    command = "PYTHONPATH=tests " + shlex.join(["python", "-m", "helpers.kill_run", *sys.argv[1:]])
    rows = [
        f"| {number} | {hit.phase} | {_text(hit.resumed)} | {_text(hit.step)} | "
        f"{'; '.join(hit.left) or 'nothing'} |"
        for number, hit in enumerate(hits, 1)
    ]
    verdict = "the ends are equal to the bit" if not faults else f"{len(faults)} difference(s)"
    return "\n".join(
        [
            f"{datetime.datetime.now(datetime.UTC).date()}, `{command}` (seed {seed}): "
            f"{len(hits)} kills in a run of {pace.steps} steps, "
            + ", ".join(f"{count} in {name}" for name, count in sorted(phases.items()))
            + f"; {verdict}.",
            "",
            "| kill | phase | went on at step | last step begun | half-written checkpoints |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            *(f"- {fault}" for fault in faults),
            "",
        ]
    )


def _text(step: int | None) -> str:
    return "-" if step is None else str(step)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    args, overrides = parser.parse_known_args()
    least = sum(QUOTAS.values()) + len(QUOTAS) + START_UPS
    if args.kills < least:
        parser.error(f"--kills: at least {least}")
    out = args.out.absolute()
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out: {out} holds files: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    # After the options of this command, so that they win.
    arguments = ["train", "--config", str(DEMO), f"--config.data.root={out / 'matches'}"]
    arguments += [*ARGUMENTS, *overrides]
    whole, killed = (
        WatchedRun(arguments, out / name, out / "compiled") for name in ("whole", "killed")
    )
    whole.finish()
    pace = Pace.of(whole.events())
    print(f"undisturbed: {pace.steps} steps; median seconds: {pace.seconds}", flush=True)
    hits = kill_often(killed, args.kills, pace, args.seed, out / "kills.jsonl")
    killed.finish()
    faults = history_faults(killed.events(), whole.events())
    faults += end_faults(killed.workdir, whole.workdir)
    text = table(hits, faults, pace, args.seed)
    (out / "kills.md").write_text(text)
    print(text)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
