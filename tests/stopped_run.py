"""`astra`, killed at a training step: python stopped_run.py STEPS CHECKPOINT ARGUMENTS...

The process ends as by a kill before it takes its step number STEPS (from 0, in this process); not
before the latest checkpoint CHECKPOINT (0: any) is complete, so that a test knows what is left.
"""

import os
import sys
import time
from pathlib import Path

from astra_jax import cli
from astra_jax.training import loop


def main() -> None:
    steps, checkpoint, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    workdir = Path(arguments[arguments.index("--workdir") + 1])
    put_batch, taken = loop.put_batch, 0

    def stop_at_a_step(batch, sharding):
        nonlocal taken
        if taken == steps:
            deadline = time.monotonic() + 60
            while checkpoint and time.monotonic() < deadline:
                if (workdir / "checkpoints" / "latest" / str(checkpoint)).exists():
                    break
                time.sleep(0.05)
            os._exit(9)
        taken += 1
        return put_batch(batch, sharding)

    loop.put_batch = stop_at_a_step
    sys.exit(cli.main(arguments))


if __name__ == "__main__":
    main()
