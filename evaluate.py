"""Spot and score: python evaluate.py --workdir DIR --split test --out OUT."""

import sys

from astra_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
