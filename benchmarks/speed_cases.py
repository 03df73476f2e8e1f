"""The cases that benchmarks/speed.py measures, by name."""

from dataclasses import dataclass
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "astra.py"


@dataclass(frozen=True)
class Case:
    """A kind of measurement at full size.

    `kind`: "train" and "forward" are single steps; "start", "loop" and "inference" whole programs.
    `variant`: the model without audio ("visual") or with it ("full"). `clips`: in a batch.
    """

    kind: str
    variant: str
    dtype: str = "float32"
    clips: int = 8

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        if self.kind in ("train", "forward"):
            return f"{self.kind} {self.variant} {self.dtype} {self.clips}"
        return f"{self.kind} {self.variant}"

    @property
    def config(self) -> str:
        """The config file and its argument."""
        return f"{CONFIG}:{self.variant}"


def _programs(dtype: str, clips_with_audio: int) -> list[Case]:
    sizes = {"visual": 8, "full": clips_with_audio}
    kinds = ("start", "loop", "inference")
    return [
        # A match is predicted in single precision everywhere.
        Case(kind, variant, "float32" if kind == "inference" else dtype, clips)
        for kind in kinds
        for variant, clips in sizes.items()
    ]


def _steps() -> list[Case]:
    return [
        Case(kind, variant, dtype, clips)
        for kind in ("train", "forward")
        for variant in ("visual", "full")
        for dtype in ("bfloat16", "float32")
        for clips in (8, 64)
    ]


# Two train steps of 8 clips with audio, one a framework, may not fit into a small machine's memory.
_FEW = [
    Case("train", "visual"),
    Case("train", "full", clips=4),
    Case("forward", "visual"),
    Case("forward", "full"),
]


def cases_of(device: str) -> dict[str, Case]:
    """All that can be measured on a device ("cpu" or "gpu"), in the order in which it is."""
    if device == "cpu":
        found = [*_FEW, *_programs("float32", 4), *_steps()]
    else:
        found = [*_steps(), Case("forward", "full", "bfloat16", 32), *_programs("bfloat16", 8)]
    return {case.name: case for case in found}


def usual_cases(device: str) -> list[str]:
    """The names of those that are measured unless others are asked for."""
    return [case.name for case in _FEW] if device == "cpu" else list(cases_of(device))
