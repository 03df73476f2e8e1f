"""The validation of a training: whole matches, by the real inference and the official metric."""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from astra_jax.devices import host_copy
from astra_jax.evaluation.metrics import average_maps
from astra_jax.runs.memory import EVALUATION, explain_shortage
from astra_jax.runs.prepare import Validation
from astra_jax.runs.settings import Settings
from astra_jax.spotting.inference import Apply, Forward, Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.training.interruption import Interruption
from astra_jax.training.loop import Validate


def make_validate(
    settings: Settings,
    validation: Validation | None,
    interruption: Interruption,
    apply: Apply,
    make_mesh: Callable[[], Mesh],
) -> Validate | None:
    """A function from parameters to scores of the validation split; None where there is no split.

    `apply`: the model's forward pass, for the mesh that `make_mesh` makes. A signal ends it between
    two halves.
    """
    if validation is None:
        return None
    halves, labels, data = validation.halves, validation.labels, settings.data
    forward: Forward | None = None

    def validate(params: Any) -> dict[str, float]:
        nonlocal forward
        with explain_shortage(EVALUATION):
            params = host_copy(params)
            if forward is None:
                forward = Forward(apply, params, make_mesh())
            else:
                forward.replace_params(params)
            predictor = Predictor(settings.inference, [(forward, halves)])
            predictions = predict_matches(predictor, halves, data.classes, interruption.check)
        blocks = average_maps(
            labels,
            predictions,
            ("tight", "loose"),
            data.classes,
            settings.frame_rate,
            data.periods,
        )
        tight, loose = blocks["tight"]["a_mAP"], blocks["loose"]["a_mAP"]
        return {"score": tight, "tight": tight, "loose": loose}

    return validate
