r"""The four models of the paper's ensemble (section 4.4): ASTRA, and without one of its parts.

Command:  for member in full visual no_focal no_uncertainty; do
              python train.py --config configs/ensemble.py:$member \
                  --config.data.root=SOCCERNET --workdir runs/$member
          done
          python evaluate.py --split test --out runs/ensemble \
              --workdir runs/full,runs/visual,runs/no_focal,runs/no_uncertainty
          (configs/ensemble.py:visual,demo: small, on simulated matches)
Data:     as configs/astra.py.
Expected: 67.60 tight Average-mAP on the test split together, 66.82 for `full` alone, as the paper
          reports. These are its figures, not ours: we have not trained them at full size yet.
"""

from ml_collections import ConfigDict

from astra_jax.config.recipes import MEMBERS, at_demo_size, member, parse_variant


def get_config(variant: str = "full") -> ConfigDict:
    """The member `full`, `visual`, `no_focal` or `no_uncertainty`; behind `,demo` at its size."""
    name, demo = parse_variant(variant, MEMBERS, "full")
    config = member(name)
    return at_demo_size(config) if demo else config
