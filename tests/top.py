"""InceptionV3 with a small top, its weights file and a class index, as if they were published."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.network.inception import keras_model
from bottlenecks.network.weights import find_weights
from retrain import imagenet
from tests.serving import Server, serving

INDEX = {
    "0": ["n02124075", "Egyptian_cat"],
    "1": ["n02012849", "crane"],
    "2": ["n03710637", "maillot"],
    "3": ["n03126707", "crane"],
    "4": ["n01440764", "tench"],
}
LABELS = ["Egyptian_cat", "crane_n02012849", "maillot", "crane_n03126707", "tench"]


def make_model_with_top() -> Any:
    """Keras' model with seeded weights, whose scores differ from photo to photo."""
    model = keras_model(find_weights("random", "nowhere"), len(INDEX))
    kernel, bias = model.layers[-1].get_weights()
    random = np.random.default_rng(0)
    model.layers[-1].set_weights(
        [random.normal(0, 0.3, kernel.shape), random.normal(0, 0.1, bias.shape)]
    )
    return model


@dataclass
class Published:
    """The servers of both files."""

    weights: Server
    index: Server


@contextlib.contextmanager
def published(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """Serve ``weights`` and `INDEX`, of which `retrain.imagenet` then takes the hashes."""
    monkeypatch.setenv("no_proxy", "*")
    with serving(weights) as first, serving(json.dumps(INDEX).encode()) as second:
        for name, published, file in (
            ("WEIGHTS", first, "inception_v3_weights_top.h5"),
            ("CLASS_INDEX", second, "imagenet_class_index.json"),
        ):
            monkeypatch.setattr(imagenet, name, published.published(file))
        yield Published(first, second)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}
