"""`astra score` over whatever files there are: a table, or one line."""

import contextlib
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from helpers.examples import FILES, as_json, damaged, for_any
from helpers.made_up import CLASSES, LABELS, SPOTS
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.cli.main import main
from astra_jax.formats.soccernet_results import FILE_NAME

MATCH = "league/season/Málaga 1 - 0 Ibiza"
PLAIN = {"gameTime": "1 - 00:15", "label": "Goal", "position": "15000"}
SPOT = PLAIN | {"half": "1", "confidence": "0.5"}
GOOD = json.dumps({"annotations": [PLAIN]}).encode()
RESULTS = json.dumps({"predictions": [SPOT]}).encode()
DEEP = RESULTS.replace(b'"Goal"', b"[" * 900 + b"]" * 900)
LONG = RESULTS.replace(b"Goal", b"x" * 5000)

labels = LABELS.map(lambda entries: {"annotations": [PLAIN, *entries]})
spots = SPOTS.map(lambda entries: {"predictions": [SPOT, *entries]})
label_files = as_json(labels) | damaged(as_json(labels)) | FILES
result_files = as_json(spots) | damaged(as_json(spots)) | FILES
lists = st.sampled_from([None, MATCH.encode(), json.dumps([MATCH]).encode()]) | FILES
flags = st.sampled_from(
    [
        [],
        ["--metric", "at1", "--frame-rate", "25"],
        ["--periods", "2,1,3"],
        ["--classes", "Goal,\udcff,é"],
        ["--metric", "at1", "loose", "--metric", "tight"],
    ]
)


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code and what goes to the terminal, which has its way with half characters."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace")
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return code, *texts


@for_any(label_files, result_files, lists, flags)
@example(GOOD, RESULTS, None, ["--classes", "Goal,\udcff"])
@example(GOOD, RESULTS, None, ["--classes", "A\nB,Goal"])
@example(GOOD, DEEP, None, [])
@example(GOOD, LONG, None, [])
@example(GOOD, RESULTS, b'["a/b\\nc"]', [])
def test_any_files_are_scored_or_refused_in_one_line(
    labels: bytes, results: bytes, matches: bytes | None, more: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, file, data in (
            ("labels", "Labels-v2.json", labels),
            ("results", FILE_NAME, results),
        ):
            (root / folder / MATCH).mkdir(parents=True)
            (root / folder / MATCH / file).write_bytes(data)
        arguments = ["score", "--labels", str(root / "labels")]
        arguments += ["--predictions", str(root / "results"), "--json", str(root / "scores.json")]
        if not any(flag == "--classes" for flag in more):
            arguments += ["--classes", ",".join(CLASSES)]
        if matches is not None:
            (root / "list").write_bytes(matches)
            arguments += ["--matches", str(root / "list")]
        code, out, err = run([*arguments, *more])
        if code == 0:
            assert err == "" and out.startswith("1 match")
            blocks: dict[str, Any] = json.loads((root / "scores.json").read_text())
            assert all(math.isfinite(block["a_mAP"]) for block in blocks.values())
        else:
            assert code == 2 and out == ""
            assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
            assert len(err.splitlines()) == 1 and len(err) < 2000
            assert not (root / "scores.json").exists()
