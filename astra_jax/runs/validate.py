"""The validation of a training: whole matches, by the real inference and the official metric."""

import dataclasses
from typing import Any

from astra_jax.data.halves import Half
from astra_jax.data.time import exact_seconds
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_results import Prediction
from astra_jax.runs.memory import EVALUATION, explain_shortage
from astra_jax.runs.prepare import Validation
from astra_jax.runs.settings import Settings
from astra_jax.spotting.inference import Forward, Predictor, windows_at_a_time
from astra_jax.spotting.matches import predict_matches, spots_to_predictions
from astra_jax.spotting.programs import Programs
from astra_jax.training.interruption import Interruption
from astra_jax.training.loop import Validate


def make_validate(
    settings: Settings,
    validation: Validation | None,
    interruption: Interruption,
    programs: Programs,
) -> Validate | None:
    """The validation on the split `valid`; None where there is no split.

    `programs`: the model on the devices of this host. A signal ends it between two halves.
    """
    if validation is None:
        return None
    return _Validate(settings, validation, interruption, programs)


class _Validate:
    """`training.loop.Validate`; its programs are compiled once."""

    def __init__(
        self,
        settings: Settings,
        validation: Validation,
        interruption: Interruption,
        programs: Programs,
    ) -> None:
        self._settings, self._validation, self._interruption = settings, validation, interruption
        self._programs = programs

    def __call__(self, params: Any) -> dict[str, float]:
        """The scores of all matches."""
        halves, classes = self._validation.halves, self._settings.data.classes
        with explain_shortage(EVALUATION):
            predictor = self._predictor(params, halves)
            predictions = predict_matches(predictor, halves, classes, self._interruption.check)
        return self._score(predictions)

    def try_out(self, params: Any) -> None:
        """One batch of windows, from the start of the first half, to its spots and the metric.

        Every process takes the same one by itself: what fails, fails in all.
        """
        inference, half = self._settings.inference, self._validation.halves[0]
        with explain_shortage(EVALUATION):
            # So many strides hold at most a batch of windows.
            strides = max(windows_at_a_time(inference, self._programs.mesh) - 1, 1)
            seconds = strides * exact_seconds(inference.stride_seconds)
            half = dataclasses.replace(half, seconds=min(exact_seconds(half.seconds), seconds))
            spots = self._predictor(params, [half]).spots(half)
        found = spots_to_predictions(
            spots, half.half, self._settings.data.classes, inference.positions_per_second
        )
        nothing: dict[str, list[Prediction]] = {match: [] for match in self._validation.labels}
        self._score({**nothing, half.match: found})

    def _predictor(self, params: Any, halves: list[Half]) -> Predictor:
        # Nothing keeps them once it is done: the next step is given their memory.
        forward = Forward(self._programs, params)
        return Predictor(self._settings.inference, [(forward, halves)])

    def _score(self, predictions: dict[str, list[Prediction]]) -> dict[str, float]:
        settings = self._settings
        blocks = average_maps(
            self._validation.labels,
            predictions,
            ("tight", "loose"),
            settings.data.classes,
            settings.frame_rate,
            settings.data.periods,
        )
        tight, loose = blocks["tight"]["a_mAP"], blocks["loose"]["a_mAP"]
        return {"score": tight, "tight": tight, "loose": loose}
