"""The network can be cut at every block, and its two parts are the whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import UsageError
from bottlenecks.network import inception, layers
from bottlenecks.network.cuts import CUTS, INPUT, TRAINED, cut_for
from bottlenecks.network.engines import bfloat16
from bottlenecks.network.inception import InceptionV3
from bottlenecks.network.names import BOTTLENECK_NODE
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.network.weights import find_weights
from bottlenecks.row_spec import BOTTLENECK
from tests.bottlenecks.network.test_inception import assert_close, pixels


@pytest.fixture(scope="module")
def extractor(model_dir: Path) -> InceptionV3:
    return InceptionV3("random", model_dir)


@pytest.fixture(scope="module")
def keras_layers() -> Iterator[dict[str, Any]]:
    """The layers of Keras' own model by the names that they have in a new process."""
    model = inception.keras_model(find_weights("random", "nowhere"))
    names = inception.canonical_names([layer.name for layer in model.layers])
    yield {names[layer.name]: layer for layer in model.layers[1:]}


def rest_of(network: bytes, cut: str, rows: np.ndarray) -> np.ndarray:
    """What the part above ``cut`` makes of ``rows``, (n, 2048) float32."""
    tf = import_tensorflow()
    part = layers.above(tf.compat.v1.GraphDef.FromString(network), cut)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, *rows.shape[1:]))
        tf.import_graph_def(part, {f"{layers.CUT_NODE}:0": x}, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            result: np.ndarray = session.run(f"{BOTTLENECK_NODE}:0", {x: rows})
    return result


@pytest.mark.parametrize("cut", CUTS)
def test_the_parts_of_a_cut_are_the_whole(extractor: InceptionV3, cut: str) -> None:
    photos = pixels("cyan", "magenta")
    part = extractor.at(cut)
    rows = part(photos)
    assert part.spec.fits(rows)
    assert len(rows) == 2
    rows = rows.astype(np.float32)
    if cut == INPUT:
        np.testing.assert_array_equal(rows, photos)
        rows = rows / 127.5 - 1
    rest = rest_of(extractor.frozen, cut, rows)
    assert np.abs(rest - extractor(photos)).max() <= 2e-3 * np.abs(rest).max()  # float16 between


def test_the_places_to_cut_are_as_keras_has_them(keras_layers: dict[str, Any]) -> None:
    for cut in CUTS[1:]:
        assert layers.spec_at(cut).shape == tuple(keras_layers[cut].output.shape[1:])


def test_what_is_trained_above_a_cut_is_counted(extractor: InceptionV3) -> None:
    tf = import_tensorflow()
    network = tf.compat.v1.GraphDef.FromString(extractor.frozen)
    for cut in CUTS:
        part = layers.above(network, cut)
        trained = {node.input[1] for node in part.node if node.op in ("Conv2D", "BiasAdd")}
        arrays = [node.attr["value"].tensor for node in part.node if node.name in trained]
        assert sum(tf.make_ndarray(array).size for array in arrays) == TRAINED[cut]


def test_every_layer_of_keras_can_be_fine_tuned_from(keras_layers: dict[str, Any]) -> None:
    """What is cut off below a layer within a block does not reach past what the layer reads."""
    reached: dict[str, set[str]] = {}
    for name, layer in keras_layers.items():
        if name.startswith("global"):
            continue
        cut = cut_for(name)
        several = layer.input if isinstance(layer.input, list) else [layer.input]
        below = {n for n, other in keras_layers.items() if any(other.output is x for x in several)}
        reached[name] = {name}.union(*(reached[n] for n in below))
        if cut in reached[name]:  # the cut is the layer, or the last place before it
            after = CUTS[CUTS.index(cut) + 1 :]
            assert not reached[name] & set(after) - {name}, name
        else:  # a layer of the stem, whose activation follows it
            number = name.rpartition("_")[2] if name[-1].isdigit() else ""
            kind = name.removesuffix(f"_{number}") if number else name
            assert kind in ("conv2d", "batch_normalization"), name
            assert cut == name.replace(kind, "activation")


@pytest.mark.parametrize(
    ("layer", "cut"),
    [
        *((name, name) for name in CUTS),
        ("conv2d_3", "activation_3"),
        ("conv2d_70", "mixed7"),
        ("batch_normalization_75", "mixed7"),
        ("activation_76", "mixed8"),
        ("max_pooling2d_3", "mixed7"),
        ("average_pooling2d_8", "mixed9"),
        ("mixed9_0", "mixed8"),
        ("concatenate_1", "mixed9"),
        ("conv2d_5", "max_pooling2d_1"),
    ],
)
def test_a_layer_within_a_block_is_cut_before_it(layer: str, cut: str) -> None:
    assert cut_for(layer) == cut


@pytest.mark.parametrize(
    "name",
    [
        *("", "mixed11", "mixed", "conv2d_94", "conv2d_05", "activation_0", "conv2d_9999999"),
        *("mixed9_2", "concatenate_2", "Mixed7", "avg_pool", "mixed7\n", "conv2d_-1", "conv2d_٣"),
    ],
)
def test_an_unknown_layer_lists_the_blocks(name: str) -> None:
    with pytest.raises(UsageError, match=r"no layer .*choose one of input, mixed0, .*mixed9, or"):
        cut_for(name)


def test_rows_of_another_cut_have_another_fingerprint(extractor: InceptionV3) -> None:
    parts = [extractor, *(extractor.at(cut) for cut in CUTS)]
    assert len({part.fingerprint for part in parts}) == len(parts)
    assert extractor.at("mixed7").at("mixed8").fingerprint == extractor.at("mixed8").fingerprint
    assert extractor.spec == BOTTLENECK


def test_decoded_pixels_hang_on_no_network(tmp_path: Path) -> None:
    """They are the same for all weights, and none are looked for."""
    never_downloaded = InceptionV3("imagenet", tmp_path).at("input")
    assert never_downloaded.fingerprint == InceptionV3("random", tmp_path).at("input").fingerprint
    assert never_downloaded.description["weights"] == "none"
    photos = pixels("yellow")
    assert never_downloaded(photos) is photos
    assert not list(tmp_path.iterdir())


def test_bfloat16_keeps_its_scales_out_of_what_is_cached(model_dir: Path) -> None:
    tf = import_tensorflow()
    exact = InceptionV3("random", model_dir)
    photos = pixels("cyan", "yellow")
    for cut in ("activation_1", "mixed7", "mixed10"):
        network = tf.compat.v1.GraphDef.FromString(exact.frozen)
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 299, 299, 3))
            rewritten = bfloat16.to_bfloat16(layers.below(network, cut))
            tf.import_graph_def(rewritten, {"Mul:0": x}, name="")
            with tf.compat.v1.Session(graph=graph) as session:
                rows = session.run(f"{layers.CUT_NODE}:0", {x: photos / 127.5 - 1})
        expected = exact.at(cut)(photos).astype(np.float32)
        assert np.linalg.norm(rows - expected) < 0.03 * np.linalg.norm(expected)


def test_the_whole_is_not_changed_by_taking_a_part(extractor: InceptionV3) -> None:
    before = extractor(pixels("cyan"))
    extractor.at("mixed9")(pixels("cyan"))
    assert_close(extractor(pixels("cyan")), before)
