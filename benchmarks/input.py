"""What loading costs: CPU of a batch, clips a second, seconds to the first batch.

Run:  python benchmarks/input.py [--config configs/astra.py:visual] [--out runs/input.json]

Writes made-up matches of the config's shapes into a temporary folder (0.4 GB without audio, 1 GB
with), reads them once, so that they lie in the page cache, and measures:

- "one core": CPU time of a batch, partners included, loaded in threads (`data.workers=0`);
- "N processes": batches that arrive, from N loading processes and the process that takes them, all
  on N cores; the first batches don't count;
- "start": seconds to the first batch of a training on 300 matches (files of one of the made-up
  matches, labels of their own), the stream's making included, with N loading processes.

The config's batch size counts clips of the batch; with mixup as many partners are read beside
them. Linux only.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes the same as JSON where asked to."""
    # Loading processes import this file, as they do a training's: it must be light.
    from input_cases import measure

    from astra_jax.files import write_atomically

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/astra.py:visual")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--starters", type=int, default=8)
    parser.add_argument("--batches", type=int, default=50, help="a round; there are five")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    found = measure(args.config, args.workers, args.starters, args.batches)
    for case, figures in found.items():
        print(f"{case:<20}" + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    text = json.dumps({"config": args.config, "cores": os.cpu_count(), **found}, indent=1)
    print(text)
    if args.out is not None:
        write_atomically(args.out, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
