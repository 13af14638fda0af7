"""InceptionV3 with a top of its own, as it is published for ImageNet -> a graph like any other."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bottlenecks import atomic
from bottlenecks.config import Config
from bottlenecks.errors import WeightsError, shown
from bottlenecks.network import kept
from bottlenecks.network.inception import FREEZE_VERSION, freeze, keras_model, parted
from bottlenecks.network.weights import (
    OnDownload,
    PublishedFile,
    Weights,
    check_weights_argument,
    fetch,
    find_weights,
)
from bottlenecks.outputs import check_folder_place
from bottlenecks.row_spec import BOTTLENECK
from bottlenecks.settings import checked_path

# keras/src/applications/inception_v3.py: WEIGHTS_PATH and its file_hash.
WEIGHTS = PublishedFile(
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
    "9a0d58056eeedaa3f26cb7ebd46da564",
    what="ImageNet weights with their top",
    otherwise="use --weights FILE",
)
# keras/src/applications/imagenet_utils.py: CLASS_INDEX_PATH and its file_hash.
CLASS_INDEX = PublishedFile(
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    "c2c37ea517e94d9795004a39431a14cb",
    what="labels of ImageNet",
    otherwise="name a file with one label a line with --labels",
)
VERSION = "top-1"  # part of the graph's name: change it with anything here that changes the graph


def classifier(
    weights: str = Config.weights,
    labels: Sequence[str] | None = None,
    model_dir: str | os.PathLike[str] = Config.model_dir,
    on_download: OnDownload | None = None,
) -> tuple[Path, Path]:
    """The paths of a graph, as `retrain.export.graph` makes it, and of its labels.

    ``weights`` is "imagenet" or the path of a Keras weights file with the top, ``labels`` those of
    its outputs, None for ImageNet's. Both files are kept in ``model_dir``, the graph under the hash
    of its bytes, so that Keras' model is built once for the same weights and labels.

    Raises `WeightsError` for weights that are not to be had, have no top, or one of another size,
    and where ImageNet's labels are wanted and not to be had, and `OutputError` where ``model_dir``
    cannot be made.
    """
    folder = Path(checked_path(model_dir, "model_dir"))
    check_weights_argument(weights, "imagenet, or")
    check_folder_place(folder, "model_dir")
    if labels is None:
        labels = imagenet_labels(folder)  # 35 KB: no bar for that
    found = find_weights(weights, folder, WEIGHTS, on_download)
    source = " ".join([VERSION, FREEZE_VERSION, found.sha256, json.dumps(labels)])
    graph = kept.find(folder, source) or kept.keep(folder, source, _made(found, labels))
    lines = "".join(f"{label}\n" for label in labels).encode()
    labels_path = graph.with_suffix(".txt")
    if not labels_path.is_file() or labels_path.read_bytes() != lines:
        atomic.write_bytes(labels_path, lines)
    return graph, labels_path


def imagenet_labels(model_dir: str | os.PathLike[str]) -> list[str]:
    """The labels of ImageNet in the order of the published weights' outputs, each once.

    They are as Keras' ``decode_predictions`` gives them, but for those that are the name of two
    classes, which get their WordNet number too: ``crane_n02012849`` is the bird. The index is
    downloaded if it is not in ``model_dir`` whole. Raises `WeightsUnavailableError`.
    """
    index = json.loads(fetch(CLASS_INDEX, model_dir).read_bytes())
    classes = [index[str(i)] for i in range(len(index))]
    counts = Counter(name for _, name in classes)
    return [name if counts[name] == 1 else f"{name}_{number}" for number, name in classes]


def _made(weights: Weights, labels: Sequence[str]) -> bytes:
    """The serialized graph of Keras' model with ``weights``. Raises `WeightsError`."""
    from retrain.export.graph import graph_bytes
    from retrain.training.head import Head

    outputs = _outputs_of(weights)
    if outputs != len(labels):
        raise WeightsError(
            f"the weights {shown(weights.name)} have {outputs} outputs and there are {len(labels)} "
            "labels; --labels takes a file with one label a line, in the order of the outputs"
        )
    network, kernel, bias = parted(keras_model(weights, outputs))
    return graph_bytes(freeze(network), Head(kernel, bias), labels)


def _outputs_of(weights: Weights) -> int:
    """The size of the top in a weights file: its kernel is the only matrix with 2048 rows."""
    import h5py

    found = set()

    def look(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and len(item.shape) == 2:
            found.add(item.shape)

    try:
        with h5py.File(weights.path, "r") as file:
            file.visititems(look)
    except Exception as error:  # h5py raises many kinds for a damaged file
        raise WeightsError(
            f"the weights file {shown(weights.name)} cannot be read; fetch it again"
        ) from error
    outputs = {columns for rows, columns in found if (rows,) == BOTTLENECK.shape}
    if len(outputs) != 1:
        raise WeightsError(
            f"the weights file {shown(weights.name)} has no top, the layer from 2048 numbers to "
            "the labels; --weights takes a file with it (not the ..._notop.h5 kind)"
        )
    return int(outputs.pop())
