"""A published checkpoint to the folder of a run, to be evaluated or to start a training from."""

import contextlib
import logging
from pathlib import Path
from statistics import median

import jax
import numpy as np
from ml_collections import ConfigDict

from astra_jax.config.check import check
from astra_jax.config.classes import CLASSES, SOFT_WINDOWS_SECONDS
from astra_jax.config.defaults import paper
from astra_jax.config.saved import to_json
from astra_jax.data.normalization import save_normalizations
from astra_jax.data.targets import ClipConfig
from astra_jax.data.time import steps_of
from astra_jax.errors import UserError
from astra_jax.files import write_atomically, write_folder
from astra_jax.model import ModelConfig, count_parameters
from astra_jax.runs import provenance
from astra_jax.runs.folder import RunFolder
from astra_jax.spotting.inference import InferenceConfig
from astra_jax.torch_import import from_state_dict
from astra_jax.torch_import.files import State, read_state_dict
from astra_jax.torch_import.names import QUEUE
from astra_jax.training.checkpoints import Checkpoints

_log = logging.getLogger(__name__)


def import_checkpoint(
    path: Path,
    out: Path,
    heads: int = 8,
    hierarchical: bool = True,
    classes: tuple[str, ...] | None = None,
) -> None:
    """Writes config, normalisation, provenance and the best checkpoint of a run into `out`.

    Args:
        path: of the checkpoint, as `read_state_dict` takes it.
        out: what is there must be an empty folder, if anything.
        heads, hierarchical: what the shapes don't tell.
        classes: the actions in the model's order; None: SoccerNet's 17.

    Raises:
        UserError: the file can't be read, it is of another model, or `out` holds something. Nothing
            is written then.
    """
    path, out = path.expanduser(), out.expanduser().resolve()  # a link's folder, not the link
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there already: choose a new folder, nothing is written over")
    state = read_state_dict(path)
    try:
        model, params = from_state_dict(state, heads, hierarchical)
        _check_finite(state)
        config = config_of(model, _classes(model.num_classes, classes))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with write_folder(out) as unfinished:
        folder = RunFolder(unfinished)
        write_atomically(folder.config_path, to_json(config))
        # One source, taken as it is.
        save_normalizations(folder.normalization_path, (None,))
        provenance.write_import(
            folder.provenance_path, path, heads=heads, hierarchical=hierarchical
        )
        checkpoints = Checkpoints(folder.latest_checkpoints, folder.best_checkpoints)
        with contextlib.closing(checkpoints):
            checkpoints.save_best(0, jax.tree.map(np.ascontiguousarray, params))
    _log.info(
        "%s: %s parameters, %s audio, %s uncertainty, %d classes, clips of %g s",
        out,
        f"{count_parameters(params):,}",
        "no" if model.audio is None else "with",
        "with" if model.uncertainty else "no",
        model.num_classes,
        config.clip.seconds,
    )


def config_of(model: ModelConfig, classes: tuple[str, ...]) -> ConfigDict:
    """The paper's config with the sizes and parts of an imported model, in float32 throughout.

    A clip has as many seconds as the model has visual rows: the features hold one a second. So the
    audio's clip is as long, although its last frames, 8 of 5,000, fill no segment.

    Raises:
        UserError: the checkpoint's audio is of clips of another length.
    """
    config = paper()
    source = model.sources[0]
    seconds = source.rows / config.data.sources[0]["rows_per_second"]
    config.clip.update(
        seconds=seconds,
        stride_seconds=seconds / 2,
        positions_per_second=model.positions / seconds,
    )
    config.inference.stride_seconds = min(config.inference.stride_seconds, seconds)
    windows = dict(zip(CLASSES, SOFT_WINDOWS_SECONDS, strict=True))
    # Of other actions nobody published how long they keep their like away.
    usual = float(median(SOFT_WINDOWS_SECONDS))
    config.inference.suppression.windows_seconds = tuple(windows.get(c, usual) for c in classes)
    with config.ignore_type():
        config.data.sources = ({**config.data.sources[0], "widths": source.widths},)
        config.data.classes = classes
    _set_audio(config, model)
    for key in (
        *("dim", "heads", "feed_forward", "encoder_layers", "decoder_layers", "hierarchical"),
        *("uncertainty", "temporal_dropout", "temporal_switch", "dtype"),
    ):
        config.model[key] = getattr(model, key)
    check(config)
    sections = config.to_dict()
    clip = ClipConfig.from_config(sections["clip"])
    InferenceConfig.from_config(sections["inference"], clip, len(classes))
    return config


def _set_audio(config: ConfigDict, model: ModelConfig) -> None:
    audio = model.audio
    if audio is None:
        with config.ignore_type():
            config.data.audio = None
        return
    config.data.audio.mels = audio.mels
    config.model.audio.update(
        segment_frames=audio.segment_frames, channels=audio.channels, hidden=audio.hidden
    )
    frames = steps_of(config.clip.seconds, config.data.audio.frames_per_second)
    if audio.segments != frames // audio.segment_frames:
        raise UserError(
            f"checkpoint: its clips have {model.sources[0].rows} visual rows, so "
            f"{config.clip.seconds:g} s, but {audio.segments} segments of audio, where "
            f"{frames // audio.segment_frames} fit: it isn't of a row a second and "
            f"{config.data.audio.frames_per_second} frames of audio a second"
        )


def _classes(count: int, given: tuple[str, ...] | None) -> tuple[str, ...]:
    classes = CLASSES if given is None else given
    if len(classes) != count:
        which = "SoccerNet's" if given is None else "--classes names"
        raise UserError(
            f"checkpoint: of {count} classes, but {which} are {len(classes)}: name them in the "
            "model's order, without the background: --classes 'A,B,C'"
        )
    return classes


def _check_finite(state: State) -> None:
    for name, values in state.items():
        if name not in QUEUE and not np.isfinite(values).all():
            raise UserError(
                f"checkpoint: {name} holds NaN or infinite values: such a model predicts nothing"
            )
