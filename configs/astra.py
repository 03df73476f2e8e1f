"""The paper's ASTRA: visual embeddings and audio, SoccerNet-v2's train split.

Command:  python train.py --config configs/astra.py --config.data.root=SOCCERNET
          (configs/astra.py:visual without audio: 44,299,574 parameters)
Data:     SOCCERNET/league/season/match/ with {1,2}_baidu_soccer_embeddings.npy, audio{1,2}.npy
          and Labels-v2.json (README, "SoccerNet").
Size:     168,372,918 parameters; batches of 8 clips over all devices, 50 epochs of about
          4,000 steps.
Expected: 66.82 tight and 78.09 loose Average-mAP on the test split, as the paper reports
          (mean of five seeds). These are its figures, not ours: we have not trained it at
          full size yet.
"""

from ml_collections import ConfigDict

from astra_jax.config.recipes import member
from astra_jax.errors import UserError


def get_config(variant: str = "full") -> ConfigDict:
    """The paper's config; `configs/astra.py:visual` is the one without audio.

    Every value and its meaning stands in astra_jax/config/defaults.py.
    """
    if variant not in ("full", "visual"):
        raise UserError("there are full and visual")
    return member(variant)
