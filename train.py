"""Train ASTRA: python train.py --config configs/astra.py --config.data.root=DIR."""

import sys

from astra_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
