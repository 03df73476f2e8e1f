"""The epoch plan: clips, partners, lambdas."""

import numpy as np
import pytest

from astra_jax.data.mixup import ClipTable, balanced_partners, pair_clips, plan
from astra_jax.errors import UserError


def table(pairs: int = 100, classes: int = 5, share: float = 0.3) -> ClipTable:
    holds = np.random.default_rng(0).random((2 * pairs, classes)) < share
    holds[:, 0] = True
    return ClipTable(pair_clips(np.array([2 * pairs])), holds)


# The plan


def test_clips_pair_within_their_half_and_an_odd_last_one_stands_alone():
    assert pair_clips(np.array([3, 2, 1])).tolist() == [[0, 1], [2, 2], [3, 4], [5, 5]]


@pytest.mark.parametrize("kind", ["balanced", "plain", "none"])
def test_a_plan_is_a_function_of_seed_and_epoch(kind):
    first = plan(7, 3, 8, table(), kind)
    again = plan(7, 3, 8, table(), kind)
    for name in ("own", "partner", "lam"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for other in (plan(7, 4, 8, table(), kind), plan(8, 3, 8, table(), kind)):
        assert (other.own != first.own).any() and (other.partner != first.partner).any()
        assert kind == "none" or (other.lam != first.lam).all()


def test_own_clips_are_the_same_for_every_kind_of_mixup():
    kinds = [plan(7, 3, 8, table(), kind).own for kind in ("balanced", "plain", "none")]
    np.testing.assert_array_equal(kinds[0], kinds[1])
    np.testing.assert_array_equal(kinds[0], kinds[2])


def test_an_epoch_takes_one_clip_of_every_pair_and_drops_an_incomplete_batch():
    own = plan(0, 0, 10, table(100)).own
    assert sorted(own.ravel() // 2) == list(range(100))
    assert 20 < (own % 2).sum() < 80
    own = plan(0, 0, 8, table(100)).own
    assert own.shape == (12, 8) and len(set(own.ravel() // 2)) == 96
    assert plan(0, 0, 101, table(100)).own.shape == (0, 101)


def test_over_epochs_both_clips_of_a_pair_are_taken_alike():
    taken = np.concatenate([plan(0, epoch, 10, table()).own.ravel() for epoch in range(200)])
    counts = np.bincount(taken, minlength=200)
    assert counts.sum() == 200 * 100 and counts.min() > 60 and counts.max() < 140


def test_without_mixup_a_clip_is_alone():
    alone = plan(0, 0, 8, table(), "none")
    np.testing.assert_array_equal(alone.own, alone.partner)
    assert (alone.lam == 1).all()


def test_another_kind_of_mixup_is_an_error():
    with pytest.raises(UserError, match=r"mixup\.kind.*balanced, plain, none"):
        plan(0, 0, 8, table(), "cutmix")


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.6), (2.0, 2.0)])
def test_lambda_follows_its_beta_distribution(alpha, beta):
    lam = np.concatenate(
        [plan(0, epoch, 1, table(), alpha=alpha, beta=beta).lam for epoch in range(50)]
    )
    variance = alpha * beta / ((alpha + beta) ** 2 * (alpha + beta + 1))
    assert abs(lam.mean() - alpha / (alpha + beta)) < 4 * np.sqrt(variance / len(lam))
    assert lam.var() == pytest.approx(variance, rel=0.1)


def test_plain_partners_are_uniform_over_the_epochs_clips():
    counts = np.zeros(200)
    for epoch in range(200):
        entry = plan(0, epoch, 10, table(), "plain")
        assert set(entry.partner.ravel()) <= set(entry.own.ravel())
        counts += np.bincount(entry.partner.ravel(), minlength=200)
    assert counts.min() > 60 and counts.max() < 140  # 100 +- 10 expected


def test_balanced_partners_are_uniform_over_the_classes():
    # One class a clip, of very different frequencies; the fifth has none.
    of_clip = np.repeat([0, 1, 2, 3], [150, 40, 8, 2])
    clips = ClipTable(pair_clips(np.array([200])), np.eye(5, dtype=bool)[of_clip])
    partners = np.concatenate([plan(0, epoch, 10, clips).partner.ravel() for epoch in range(100)])
    counts = np.bincount(of_clip[partners], minlength=5)
    assert counts[4] == 0
    deviation = np.sqrt(10_000 * 0.25 * 0.75)
    assert (abs(counts[:4] - 2500) < 4 * deviation).all()


# The queue


class Scripted(np.random.Generator):
    """A generator whose integers come from a list and whose choices are the first ones."""

    def __init__(self, *integers: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.answers = list(integers)

    def choice(self, holders: np.ndarray, size: int, replace: bool) -> np.ndarray:
        assert replace == (len(holders) < size)
        return np.resize(holders, size)

    def integers(self, high: int, size: int) -> np.ndarray:
        answer = np.array(self.answers.pop(0))
        assert len(answer) == size and (answer < high).all()
        return answer


def test_the_queue_starts_with_two_clips_a_class_and_takes_the_batch_in_after_pairing():
    # Clips 0-5; class 0 is held by 0 1 2, class 1 by 3 4, class 2 by 5 alone, class 3 by none.
    holds = np.zeros((6, 4), bool)
    holds[[0, 1, 2], 0] = holds[[3, 4], 1] = holds[5, 2] = True
    own = np.array([[2, 4, 1], [3, 5, 0], [0, 0, 0], [0, 0, 0]])
    rng = Scripted(
        [0, 1, 2], [1, 1, 0], [0, 1, 0],  # slots [0 1] [3 4] [5 5]; then lone 4 takes slot 1
        [0, 0, 1], [0, 1, 1], [0, 0, 1],  # [2 1] [3 4] [5 5]: two took both, one took its slot
        [0, 0, 1], [0, 1, 0], [0, 0, 0],  # [0 1] [3 4] [5 5]: lone 0, 3 and 5 took slots 0, 0 and 1
        [0, 0, 2], [0, 1, 1], [0, 0, 0],  # [0 0]: three took both
    )  # fmt: skip
    partners = balanced_partners(own, holds, rng)
    assert partners.tolist() == [[1, 4, 5], [2, 1, 4], [0, 1, 3], [0, 0, 5]]


def test_a_batchs_own_clips_are_not_their_own_partners_by_the_queue():
    # All clips hold the one class: the slots are the first two clips of the batch before.
    holds = np.zeros((40, 2), bool)
    holds[:, 0] = True
    own = np.arange(40).reshape(10, 4)
    partners = balanced_partners(own, holds, np.random.default_rng(0))
    for step in range(1, 10):
        assert set(partners[step]) <= {4 * (step - 1), 4 * (step - 1) + 1}
