"""The mixing rule, on the host and on the device."""

from pathlib import Path

import jax
import numpy as np
import pytest

from astra_jax.data.mixing import finish_mixing, mix

GOLDEN = Path(__file__).parent / "golden" / "mixup.npz"


def example(prefix: str, golden) -> dict:
    displacement = golden[f"{prefix}displacement"]
    features = golden[f"{prefix}features"]
    return {
        "features": (features,),
        "masks": {"features": (np.ones(features.shape[:2], bool),)},
        "class_targets": golden[f"{prefix}targets"],
        "displacements": np.where(displacement == 1000, 0, displacement),
        "displacement_mask": displacement != 1000,
    }


def test_mixing_equals_the_published_rule():
    golden = np.load(GOLDEN)
    mixed = example("", golden)
    mix(mixed, example("partner_", golden), float(golden["lam"]))
    np.testing.assert_array_equal(mixed["features"][0], golden["mixed_features"])
    np.testing.assert_array_equal(mixed["class_targets"], golden["mixed_targets"])
    displacements = np.where(mixed["displacement_mask"], mixed["displacements"], 1000)
    np.testing.assert_array_equal(displacements, golden["mixed_displacement"])
    assert {array.dtype for array in (*mixed["features"], mixed["class_targets"])} == {
        np.dtype(np.float32)
    }


def rows(values: list[float], present: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(values, np.float32)[:, None], np.array(present)


def clip(values: list[float], present: list[bool]) -> dict:
    array, mask = rows(values, present)
    targets = np.array([[1, 0], [0, 1]], np.float32)
    return {
        "features": (array,),
        "log_mel": -array,
        "masks": {"features": (mask,), "log_mel": ~mask},
        "class_targets": targets,
        "displacements": np.zeros((2, 2), np.float32),
        "displacement_mask": np.zeros((2, 2), bool),
    }


def test_where_one_clip_lacks_a_row_the_other_ones_counts_unscaled():
    mixed = clip([1, 2, 0, 0], [True, True, False, False])
    partner = clip([3, 0, 5, 0], [True, False, True, False])
    mix(mixed, partner, 0.75)
    assert mixed["features"][0][:, 0].tolist() == [1.5, 2, 5, 0]
    assert mixed["masks"]["features"][0].tolist() == [True, True, True, False]
    assert mixed["log_mel"][:, 0].tolist() == [-1, 0, 0, 0]
    assert mixed["masks"]["log_mel"].tolist() == [False, True, True, True]
    assert mixed["features"][0].dtype == mixed["log_mel"].dtype == np.float32


# On the device


def halved(present: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in half precision of all magnitudes, zeros where none is present."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((*present.shape, 40)) * 10.0 ** rng.integers(
        -6, 5, (*present.shape, 40)
    )
    return np.where(present[..., None], rows, 0).astype(np.float16), present


@pytest.fixture
def on_both() -> tuple[dict, list[dict]]:
    """A batch whose first source is to be mixed on the device, and its clips mixed on the host.

    Of the six clips the first lacks nothing; then the partner, the clip, both lack rows in other
    places; then one of the two lacks all.
    """
    present = np.random.default_rng(0).random((2, 6, 9)) < 0.5
    present[:, 0] = present[0, 1] = present[1, 2] = True
    present[0, 4] = present[1, 5] = False
    own, own_mask = halved(present[0], 1)
    partner, mask = halved(present[1], 2)
    lam = np.array([0.9, 0.1, 0.5, 1 / 3, 0.0, 1.0], np.float32)
    mixed = np.zeros((6, 4, 3), np.float32)
    masks = np.ones((6, 4), bool)
    batch = {
        "features": (own, mixed),
        "masks": {"features": (own_mask, masks)},
        "partner": {"features": (partner, None), "masks": (mask, None)},
        "lam": lam,
    }
    clips = []
    for row in range(6):
        clip, other = (
            {
                "features": (rows[row].astype(np.float32),),
                "masks": {"features": (there[row].copy(),)},
                "class_targets": np.zeros((2, 2), np.float32),
                "displacements": np.zeros((2, 2), np.float32),
                "displacement_mask": np.zeros((2, 2), bool),
            }
            for rows, there in ((own, own_mask), (partner, mask))
        )
        mix(clip, other, float(lam[row]))
        clips.append(clip)
    return batch, clips


def test_what_the_device_mixes_is_what_the_host_would_mix_to_the_last_bit(on_both):
    """Operation by operation, as each is rounded on its own."""
    batch, clips = on_both
    done = finish_mixing(batch)
    assert set(done) == {"features", "masks"} and done["features"][0].dtype == np.float32
    np.testing.assert_array_equal(done["features"][1], batch["features"][1])
    for row, clip in enumerate(clips):
        np.testing.assert_array_equal(done["features"][0][row], clip["features"][0])
        np.testing.assert_array_equal(
            done["masks"]["features"][0][row], clip["masks"]["features"][0]
        )


def test_compiled_it_is_the_same_up_to_one_rounding_of_a_product(on_both):
    """A compiler may round a product and its sum at once: 2^-24 of the larger product."""
    batch, clips = on_both
    done = jax.jit(finish_mixing)(batch)
    (own, _), (partner, _), lam = batch["features"], batch["partner"]["features"], batch["lam"]
    for row, clip in enumerate(clips):
        products = [lam[row] * own[row], (1 - lam[row]) * partner[row]]
        tolerance = np.spacing(np.abs(products).max(axis=0).astype(np.float32))
        assert (np.abs(done["features"][0][row] - clip["features"][0]) <= tolerance).all()
        np.testing.assert_array_equal(
            done["masks"]["features"][0][row], clip["masks"]["features"][0]
        )


def test_a_batch_without_partners_becomes_single_precision_alone(on_both):
    batch, _ = on_both
    alone = {"features": batch["features"], "masks": batch["masks"], "class_targets": np.ones(3)}
    done = finish_mixing(alone)
    assert set(done) == set(alone) and done["masks"] is alone["masks"]
    for before, after in zip(alone["features"], done["features"], strict=True):
        assert after.dtype == np.float32
        np.testing.assert_array_equal(before.astype(np.float32), after)
