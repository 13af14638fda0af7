"""What was measured is what is served: training, evaluation and labelling agree."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import retrain
from bottlenecks.builder import build
from bottlenecks.network.inception import Extractor, InceptionV3, NetworkExtractor
from label_image.classifier import Classifier
from retrain.data.dataset import Dataset, assemble
from tests.conftest import make_dataset
from tests.standin import StandIn


@pytest.mark.parametrize("kind", ["stand-in", "real"])
def test_100_photos_through_the_evaluation_and_through_label_image(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    extractor: NetworkExtractor = StandIn()
    if kind == "real":
        extractor = InceptionV3(request.getfixturevalue("real_weights"), tmp_path / "models")
    config = retrain.Config(
        image_dir=str(make_dataset(tmp_path / "Dataset", per_label=34)),
        bottleneck_dir=str(tmp_path / "cache"),
        output_graph=str(tmp_path / "graph.pb"),
        output_labels=str(tmp_path / "labels.txt"),
        how_many_training_steps=100,
    )
    result = retrain.train(config, extractor=extractor)
    report = build(config, extractor=extractor)
    images = report.images[:100]
    evaluated = result.head.predict(report.cache.read(image.key for image in images))
    classifier = Classifier(config.output_graph, config.output_labels)
    labelled = [
        [{guess.label: guess.score for guess in photo.ranking}[label] for label in result.labels]
        for photo in classifier.classify(image.path for image in images)
    ]
    assert len(labelled) == 100
    np.testing.assert_allclose(labelled, evaluated, atol=1e-5)


def sets(image_dir: str, cache: Path, extractor: Extractor) -> dict[str, str]:
    """relpath -> set of every image, as `retrain.train` splits them."""
    config = retrain.Config(image_dir=image_dir, bottleneck_dir=str(cache))
    dataset: Dataset = assemble(build(config, extractor=extractor), 10, 10)
    images = dataset.everything.images
    return {image.relpath: set_ for image, set_ in zip(images, dataset.set_of, strict=True)}


def almost_copy(source: str, target: str) -> None:
    """The same photo with another key: the very same one would be left out."""
    Path(target).write_bytes(Path(source).read_bytes() + b"\n")


def test_an_image_stays_in_its_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the folder is named, wherever it is, and whatever is added."""
    dataset = make_dataset(tmp_path / "Dataset", per_label=100)  # so many that none is borrowed
    cache, extractor = tmp_path / "cache", StandIn()
    first = sets(str(dataset), cache, extractor)
    assert len(first) == 300
    monkeypatch.chdir(tmp_path)
    for name in ("Dataset", "./Dataset", "Dataset/", f"../{tmp_path.name}/Dataset"):
        assert sets(name, cache, extractor) == first
    moved = tmp_path / "elsewhere" / "Photos"
    moved.parent.mkdir()
    dataset.rename(moved)
    assert sets(str(moved), cache, extractor) == first
    make_dataset(moved, per_label=110)
    shutil.copytree(moved / "cyan", moved / "a new label", copy_function=almost_copy)
    grown = sets(str(moved), cache, extractor)
    assert len(grown) == 440
    assert set(grown.values()) == {"training", "validation", "testing"}
    assert {path: grown[path] for path in first} == first
    for path in list(first)[::2]:
        os.remove(moved / path)
    fewer = sets(str(moved), cache, extractor)
    assert fewer == {path: grown[path] for path in fewer}
