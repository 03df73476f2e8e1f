"""Where the files of a match lie: `ROOT/league/season/match/`, and how each is opened."""

from dataclasses import replace
from pathlib import Path

from astra_jax.data.arrays import ArrayFile, open_array
from astra_jax.data.sources import AudioSpec, DataSpec, SourceSpec
from astra_jax.errors import UserError


def label_path(spec: DataSpec, match: str) -> Path:
    """Where the label file of a match lies."""
    return spec.labels_root / match / spec.labels_file


def source_path(spec: DataSpec, source: SourceSpec, match: str, half: int) -> Path:
    """Where a source's file of a half lies."""
    return spec.features_root / match / source.pattern.format(half=half)


def audio_path(spec: DataSpec, audio: AudioSpec, match: str, half: int) -> Path:
    """Where the file of mel power of a half lies."""
    return spec.audio_root / match / audio.pattern.format(half=half)


def check_roots(spec: DataSpec, labelled: bool) -> None:
    """Raises UserError where one of the roots that will be read is no folder."""
    roots = {"features_root": spec.features_root} if spec.has_features else {}
    if labelled:
        roots["labels_root"] = spec.labels_root
    if spec.audio is not None:
        roots["audio_root"] = spec.audio_root
    for key, root in roots.items():
        if not root.is_dir():
            raise UserError(
                f"{root}: no such folder (data.root or data.{key}); pass --config.data.root=DIR, "
                "where the matches lie now; SoccerNet's labels and features: "
                "https://www.soccer-net.org/data with its SoccerNet package's downloader "
                "(the Baidu embeddings are those of github.com/baidu-research/vidpress-sports); "
                "without any files, `python train.py --config configs/demo.py` runs the demo"
            )


def check_folders(spec: DataSpec, match: str, labelled: bool) -> None:
    """Raises UserError where a match has no folder of files, or of labels."""
    roots = [("features_root", spec.features_root if spec.has_features else spec.audio_root)]
    if labelled:
        roots.append(("labels_root", spec.labels_root))
    for key, root in roots:
        if not (root / match).is_dir():
            raise UserError(
                f"{match}: no such match folder in {root} (data.root or data.{key}); download it "
                "or take it off the split's list"
            )


def open_source(spec: DataSpec, source: SourceSpec, match: str, half: int) -> ArrayFile | None:
    """A source's file of a half, None where absent; errors as `open_array`."""
    path = source_path(spec, source, match, half)
    if not path.exists():
        return None
    file = open_array(path)
    if file.columns != source.width:
        raise UserError(
            f"{path}: has {file.columns} columns, the config announces {source.width}; mend "
            f"data.sources (pattern {source.pattern!r}, widths {source.widths}) or the file"
        )
    return file


def open_audio(spec: DataSpec, audio: AudioSpec, match: str, half: int) -> ArrayFile | None:
    """Mel power as (mel, frame), the published way and the reading where both fit, or turned.

    None where absent; errors as `open_array`.
    """
    path = audio_path(spec, audio, match, half)
    if not path.exists():
        return None
    file = open_array(path)
    if audio.mels not in file.shape:
        raise UserError(
            f"{path}: has the shape {file.shape}, none of its axes has {audio.mels} mel bands; "
            "mend data.audio.mels or the file"
        )
    return replace(file, time_axis=1 if file.shape[0] == audio.mels else 0)
