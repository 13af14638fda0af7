"""retrain.evaluate: the figures are scikit-learn's own, their intervals hold the truth."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_matrix

from retrain import evaluate
from retrain.evaluate import (
    Answers,
    Confusion,
    Figures,
    LabelScore,
    Outcomes,
    cells,
    most_confused,
    most_mistaken,
    score,
    standard_error,
)

LABELS = ("ant", "bee", "cat", "dog")


def figures(probabilities: np.ndarray, y: np.ndarray, seed: int = 0) -> Figures:
    return evaluate.figures(Answers.of(probabilities, y), seed)


def score_labels(
    probabilities: np.ndarray, y: np.ndarray, labels: tuple[str, ...]
) -> list[LabelScore]:
    return evaluate.score_labels(Answers.of(probabilities, y), labels)


def confusion_matrix(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    return evaluate.confusion_matrix(Answers.of(probabilities, y), probabilities.shape[1])


def reliability(probabilities: np.ndarray, y: np.ndarray) -> list[tuple[float, float, int]]:
    return evaluate.reliability(Answers.of(probabilities, y))


def predictions(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 4) float32 that are right about half of the time, and labels (n,)."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    logits = random.normal(0, 1, (n, 4))
    logits[np.arange(n), y] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), y


def test_accuracy_and_cross_entropy() -> None:
    probabilities, y = predictions()
    found = score(probabilities, y)
    assert found.accuracy == accuracy_score(y, probabilities.argmax(axis=1))
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    assert found.cross_entropy == pytest.approx(log_loss(y, exact), rel=1e-5)
    assert found.n == 200


def test_one_image() -> None:
    found = score(np.array([[0.25, 0.75]], np.float32), np.array([0]))
    assert (found.accuracy, found.n) == (0.0, 1)
    assert found.cross_entropy == pytest.approx(np.log(4), rel=1e-6)


def test_a_probability_of_zero_has_a_finite_cross_entropy() -> None:
    found = score(np.array([[1, 0], [1, 0]], np.float32), np.array([0, 1]))
    assert found.accuracy == 0.5
    assert 40 < found.cross_entropy < 50  # half of -log of float32's smallest normal number


def test_certainty_has_none() -> None:
    assert score(np.array([[1, 0], [0, 1]], np.float32), np.array([0, 1])).cross_entropy == 0


def test_scores_of_each_label() -> None:
    probabilities, y = predictions()
    found = score_labels(probabilities, y, LABELS)
    columns = precision_recall_fscore_support(y, probabilities.argmax(axis=1))
    expected = [LabelScore(*row) for row in zip(LABELS, *columns, strict=True)]
    assert found == expected
    assert sum(label.support for label in found) == 200


def test_labels_without_a_test_image_or_a_prediction() -> None:
    probabilities = np.array([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.9, 0.1, 0, 0]], np.float32)
    assert score_labels(probabilities, np.array([0, 0, 2]), LABELS) == [
        LabelScore("ant", 0.5, 0.5, 0.5, 2),
        LabelScore("bee", 0.0, 0.0, 0.0, 0),  # predicted, never there
        LabelScore("cat", 0.0, 0.0, 0.0, 1),  # there, never predicted
        LabelScore("dog", 0.0, 0.0, 0.0, 0),  # neither
    ]


# Figures with their intervals.


def answers(right: list[int], classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are certain, of label 0 where ``right``; all images are of label 0."""
    probabilities = np.zeros((len(right), classes), np.float32)
    probabilities[np.arange(len(right)), 1 - np.array(right)] = 1
    return probabilities, np.zeros(len(right), np.int64)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (10, 10), (1, 1), (190, 200)])
def test_the_interval_of_the_accuracy_is_wilson_s(right: int, n: int) -> None:
    """Wilson 1927: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    found = figures(*answers([1] * right + [0] * (n - right))).accuracy
    z, p = 1.959963985, right / n
    centre = p + z**2 / (2 * n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (found.value, found.n) == (p, n)
    assert found.low == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-8)
    assert found.high == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-8)
    assert 0 <= found.low <= p <= found.high <= 1


def test_the_values_are_those_of_the_score() -> None:
    probabilities, y = predictions()
    found, expected = figures(probabilities, y), score(probabilities, y)
    assert found.accuracy.value == expected.accuracy
    assert found.cross_entropy.value == pytest.approx(expected.cross_entropy, rel=1e-12)
    for figure in vars(found).values():
        assert figure.low <= figure.value <= figure.high
        assert figure.n == 200


def test_among_3_labels_each_is_in_the_top_5() -> None:
    found = figures(*answers([0, 0, 1, 0], classes=3)).top_5_accuracy
    assert (found.value, found.high) == (1, 1)


def test_among_10_labels_the_fifth_is_in_the_top_5_and_the_sixth_is_not() -> None:
    probabilities = np.tile(np.float32(np.arange(10, 0, -1)) / 55, (10, 1))  # label 0 the likeliest
    found = figures(probabilities, np.arange(10))
    assert found.top_5_accuracy.value == 0.5
    assert found.accuracy.value == 0.1
    assert figures(probabilities, np.full(10, 4)).top_5_accuracy.value == 1
    assert figures(probabilities, np.full(10, 5)).top_5_accuracy.value == 0


def test_scores_that_are_all_the_same_are_no_top_5() -> None:
    found = figures(np.full((10, 10), 0.1, np.float32), np.arange(10))
    assert found.top_5_accuracy.value == 0


def test_each_label_counts_the_same_in_the_mean_label_accuracy() -> None:
    guesses, y = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 0, 0, 2, 3])
    found = figures(np.eye(5, dtype=np.float32)[guesses], y)
    assert found.accuracy.value == pytest.approx(4 / 6)
    # 3/4 of label 0, all of 2, none of 3; 1 and 4 have no image
    assert found.mean_label_accuracy.value == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_scores_that_are_right_as_often_as_they_say_have_no_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40_000)
    y = (random.random(40_000) > confidence).astype(np.int64)
    probabilities = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    assert figures(probabilities, y).calibration_error.value < 0.01


def test_certainty_that_is_right_half_of_the_time_has_a_calibration_error_of_a_half() -> None:
    found = figures(*answers([0, 1] * 200)).calibration_error
    assert found.value == 0.5
    assert 0.4 < found.low < 0.5 < found.high < 0.6


def test_doubt_that_is_always_right_has_the_calibration_error_of_the_doubt() -> None:
    probabilities = np.tile(np.array([0.625, 0.375], np.float32), (40, 1))
    found = figures(probabilities, np.zeros(40, np.int64)).calibration_error
    assert 0.36 < found.low <= found.value <= found.high == pytest.approx(0.37, abs=0.01)


def test_intervals_hold_the_truth_in_95_percent_of_all_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 100)
    share, recall = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.7, 0.6])
    accuracy = float(share @ recall)
    truth = {
        "accuracy": accuracy,
        "mean_label_accuracy": recall.mean(),
        "cross_entropy": -accuracy * np.log(0.8) - (1 - accuracy) * np.log(0.1),
    }
    random = np.random.default_rng(1)
    held = dict.fromkeys(truth, 0)
    for test in range(300):
        y = random.choice(3, 150, p=share)
        guess = np.where(random.random(150) < recall[y], y, (y + 1) % 3)
        probabilities = (0.1 + 0.7 * np.eye(3)[guess]).astype(np.float32)
        found = vars(figures(probabilities, y, seed=test))
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    for name, times in held.items():
        assert 0.9 * 300 <= times <= 0.985 * 300, (name, times)  # by three deviations


@pytest.mark.parametrize(("labels", "per_label"), [(2, 3), (10, 4), (100, 1), (100, 4), (101, 20)])
@pytest.mark.parametrize("recall", [0.3, 0.9])
def test_the_interval_of_the_mean_label_accuracy_holds_it_with_many_labels(
    labels: int, per_label: int, recall: float
) -> None:
    random = np.random.default_rng(0)
    y, held = np.repeat(np.arange(labels), per_label), 0
    for _ in range(500):
        found = evaluate.mean_label_accuracy(random.random(len(y)) < recall, y)
        held += found.low <= recall <= found.high
    assert held >= 0.91 * 500


@pytest.mark.parametrize(
    ("images", "recalls"),
    [
        ([100] * 9 + [2], [0.99] * 9 + [0.5]),
        ([40] * 4 + [2], [0.97] * 4 + [0.4]),
        ([40] * 19 + [3], [0.95] * 19 + [0.5]),
        ([80, 40, 20, 10, 5, 2], [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]),
    ],
)
def test_and_where_a_label_of_few_images_is_the_hard_or_the_easy_one(
    images: list[int], recalls: list[float]
) -> None:
    random = np.random.default_rng(0)
    y, held = np.repeat(np.arange(len(images)), images), 0
    for _ in range(500):
        right = random.random(len(y)) < np.array(recalls)[y]
        found = evaluate.mean_label_accuracy(right, y)
        held += bool(found.low <= np.mean(recalls) <= found.high)
    assert held >= 0.91 * 500


@pytest.mark.parametrize("n", [20, 60, 200, 1000])
def test_scores_that_are_right_as_often_as_they_say_may_have_no_calibration_error(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 100)
    random = np.random.default_rng(n)
    held = 0
    for _ in range(60):
        confidence = random.beta(5, 1, n) / 2 + 0.5
        y = (random.random(n) > confidence).astype(np.int64)
        found = figures(np.stack([confidence, 1 - confidence], axis=1), y).calibration_error
        assert found.low <= found.value <= found.high
        held += found.low == 0
    assert held >= 0.85 * 60


@pytest.mark.parametrize(("n", "off"), [(8, 0.0), (8, 0.1), (20, 0.1), (62, 0.05)])
def test_the_interval_of_the_calibration_error_holds_with_few_images(n: int, off: float) -> None:
    """Scores that promise ``off`` more than they hold: 200 tests of ``n`` images."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        confidence = random.uniform(0.6, 1.0, n)
        right = random.random(n) < confidence - off
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        found = figures(probabilities, np.where(right, 0, 1)).calibration_error
        assert found.high > 0
        held += found.low <= off <= found.high
    assert held >= 0.93 * 200


def test_the_standard_error_takes_what_belongs_together_for_one() -> None:
    values = np.random.default_rng(0).normal(size=30)
    alone = standard_error(values, np.arange(30))
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(30))
    copies, units = np.repeat(values, 4), np.repeat(np.arange(30), 4)
    assert standard_error(copies, units) == pytest.approx(alone)
    assert standard_error(copies, np.arange(120)) == pytest.approx(alone / 2, rel=0.05)
    assert standard_error(values, np.zeros(30, int)) == np.inf


def test_intervals_are_seeded() -> None:
    found = [figures(*predictions(), seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1]
    one, other = found[0].cross_entropy, found[2].cross_entropy
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


@pytest.mark.parametrize("right", [0, 1])
def test_figures_of_one_image(right: int) -> None:
    found = figures(*answers([right]))
    assert found.accuracy.value == found.mean_label_accuracy.value == right
    assert found.accuracy.low < found.accuracy.high
    assert found.calibration_error.value == found.calibration_error.low == 1 - right
    assert found.calibration_error.high > 0.7  # one image says next to nothing
    assert np.isfinite([found.cross_entropy.low, found.cross_entropy.high]).all()


# Which labels are taken for which.


def test_the_confusion_matrix_has_a_row_for_each_true_label() -> None:
    guesses, y = np.array([0, 1, 1, 3]), np.array([0, 0, 0, 2])
    found = confusion_matrix(np.eye(4, dtype=np.float32)[guesses], y)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [[1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def test_the_confusion_matrix_is_scikit_learn_s() -> None:
    probabilities, y = predictions()
    expected = sklearn_matrix(y, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(confusion_matrix(probabilities, y), expected)


def test_the_most_confused_come_with_the_largest_count_first() -> None:
    matrix = np.array([[90, 0, 2, 1], [7, 50, 0, 2], [0, 9, 3, 0], [4, 0, 3, 0]])
    assert most_confused(matrix, LABELS) == [
        Confusion("cat", "bee", 9),
        Confusion("bee", "ant", 7),
        Confusion("dog", "ant", 4),
        Confusion("dog", "cat", 3),
        Confusion("ant", "cat", 2),  # as often as bee for dog: the first in the table
    ]
    assert len(most_confused(matrix, LABELS, count=2)) == 2
    assert matrix[0, 0] == 90  # it is as it was


def test_no_more_confusions_are_named_than_there_are() -> None:
    assert most_confused(np.array([[3, 0], [1, 2]]), LABELS[:2]) == [Confusion("bee", "ant", 1)]


def test_nothing_is_confused_when_all_are_right() -> None:
    assert most_confused(np.diag([5, 0, 3, 1]), LABELS) == []


def test_the_cells_of_a_matrix_are_those_that_are_not_0() -> None:
    assert cells(np.array([[3, 0, 1], [0, 0, 0], [2, 0, 5]])) == [
        (0, 0, 3),
        (0, 2, 1),
        (2, 0, 2),
        (2, 2, 5),
    ]


def test_the_most_mistaken_labels_are_those_of_the_largest_cells() -> None:
    matrix = np.array([[90, 0, 2, 0], [0, 50, 0, 3], [0, 0, 3, 0], [0, 0, 1, 4]])
    assert most_mistaken(matrix, 2) == [1, 3]
    assert most_mistaken(matrix, 3) == [1, 2, 3]  # 0 would come with 2, which are too many
    assert most_mistaken(matrix, 4) == most_mistaken(matrix, 9) == [0, 1, 2, 3]
    assert most_mistaken(np.eye(4, dtype=np.int64), 2) == []


@pytest.mark.parametrize("rows", [slice(None), np.array([3, 5, 8])])
def test_a_score_of_some_rows_is_that_of_these_rows(rows: slice | np.ndarray) -> None:
    probabilities, y = predictions()
    assert Outcomes.of(probabilities, y).score(rows) == score(probabilities[rows], y[rows])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 3])
def test_one_number_that_is_not_finite_is_noticed(value: float, column: int) -> None:
    probabilities, y = predictions()
    assert Outcomes.of(probabilities, y).is_finite
    probabilities[17, column] = value
    assert not Outcomes.of(probabilities, y).is_finite


def test_reliability_is_of_the_bins_that_have_images() -> None:
    confidence = np.array([0.51, 0.52, 0.97, 0.99, 1.0], np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = reliability(probabilities, np.array([1, 0, 0, 0, 1]))
    assert [point[2] for point in found] == [2, 3]
    assert [point[1] for point in found] == [0.5, pytest.approx(2 / 3)]
    assert [point[0] for point in found] == [pytest.approx(0.515), pytest.approx(2.96 / 3)]


def binned_error(probabilities: np.ndarray, y: np.ndarray) -> float:
    points = reliability(probabilities, y)
    return sum(n * abs(confidence - accuracy) for confidence, accuracy, n in points) / len(y)


def scores_and_answers(n: int, seed: int, sharper: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two labels whose logits are ``sharper`` times what is true."""
    random = np.random.default_rng(seed)
    true = random.beta(4, 1, n) / 2 + 0.5
    y = (random.random(n) > true).astype(np.int64)
    given = 1 / (1 + ((1 - true) / true) ** sharper)
    return np.stack([given, 1 - given], axis=1), y


def test_of_many_images_the_calibration_error_is_that_of_the_bins() -> None:
    probabilities, y = scores_and_answers(20_000, 0, sharper=3.0)
    error = binned_error(probabilities, y)
    assert error > 0.05
    assert figures(probabilities, y).calibration_error.value == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize("n", [62, 200])
def test_what_is_chance_in_the_calibration_error_of_few_images_is_taken_off(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(evaluate, "RESAMPLES", 100)
    truth = binned_error(*scores_and_answers(200_000, 0, sharper=4.0))
    found: dict[float, list[float]] = {1.0: [], 4.0: []}
    binned = []
    for sharper, values in found.items():
        for seed in range(60):
            test = scores_and_answers(n, seed, sharper)
            values.append(figures(*test).calibration_error.value)
            if sharper == 1.0:
                binned.append(binned_error(*test))
    assert np.mean(found[1.0]) < 0.4 * np.mean(binned)
    assert abs(np.mean(found[4.0]) - truth) < 0.03
    assert truth > 0.08
