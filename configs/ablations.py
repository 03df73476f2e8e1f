"""The paper's ablation (section 4.4, table 2): each model is the one before and one feature.

Command:  python train.py --config configs/ablations.py:m4 --config.data.root=SOCCERNET
          python train.py --config configs/ablations.py:m4,demo     # small, on simulated matches
          with --seeds 1,2,3,4,5 as the paper's protocol P1: five runs, their mean (README)
Data:     as configs/astra.py; only m9 reads audio.
Expected: Average-mAP on the test split, mean of five seeds, as the paper reports it. These are
          its figures, not ours: we have not trained these models at full size yet.

              model  added feature                                    loose  tight
              m0     radii 3 and 6 s, squared error, visual only      75.21  62.38
              m1     m0 + hierarchical encoder                        75.42  62.32
              m2     m1 + radii r_c = 2, r_d = 3 s                    74.65  63.97
              m3     m2 + plain mixup, Beta(0.6, 0.6)                 75.61  64.97
              m4     m2 + balanced mixup, Beta(1, 0.6)                76.55  65.82
              m5     m4 + temporal dropout and switch                 77.49  66.07
              m6     m5 + one output position a second                77.72  64.24
              m7     m5 + focal loss                                  78.02  66.09
              m8     m7 + uncertainty                                 78.14  66.63
              m9     m8 + audio: ASTRA                                78.09  66.82
"""

from ml_collections import ConfigDict

from astra_jax.config import paper
from astra_jax.config.recipes import at_demo_size, parse_variant

MODELS = tuple(f"m{number}" for number in range(10))


def get_config(variant: str = "m9") -> ConfigDict:
    """One of `MODELS`, or `m4,demo`: it at the demo's size."""
    name, demo = parse_variant(variant, MODELS, "m9")
    number = MODELS.index(name)
    config = paper()
    config.model.hierarchical = number >= 1
    if number < 2:
        config.targets.update(class_radius_seconds=3.0, displacement_radius_seconds=6.0)
    if number < 3:
        config.mixup.kind = "none"
    elif number == 3:
        config.mixup.update(kind="plain", alpha=0.6, beta=0.6)
    if number < 5:
        config.model.update(temporal_dropout=0.0, temporal_switch=0.0)
    if number == 6:
        config.clip.positions_per_second = 1.0
    config.loss.focal = number >= 7
    config.model.uncertainty = number >= 8
    if number < 9:
        with config.ignore_type():
            config.data.audio = None
    return at_demo_size(config) if demo else config
