"""retrain.export.saved_model: one file that plain TensorFlow loads, for pixels and for files."""

import json
import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottlenecks.errors import OutputError
from bottlenecks.network.tensorflow import import_tensorflow
from bottlenecks.photos.decode import decode
from label_image.classifier import Classifier
from retrain.export import saved_model
from retrain.export.about import About
from retrain.export.classifier import TrainedClassifier
from retrain.export.settings import ExportSettings
from retrain.training.head import Head
from tests.conftest import COLOURS, Trained, assert_one_error_line, photo
from tests.conftest import Call as Call
from tests.standin import StandIn

ABOUT = About("2020-12-31T23:59:59Z", {"weights": "none"}, "ab", {"training": 3}, None, None, {})


@pytest.fixture(scope="module")
def classifier(trained: Trained) -> TrainedClassifier:
    head = trained.result.head
    return TrainedClassifier(StandIn().frozen, head, tuple(COLOURS), ABOUT, "final_result")


@pytest.fixture(scope="module")
def folder(classifier: TrainedClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "deep" / "saved"
    saved_model.write(classifier, ExportSettings(saved_model_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def signatures(folder: Path) -> Any:
    return import_tensorflow().saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def classify(signatures: Any) -> Callable[[list[bytes]], tuple[np.ndarray, np.ndarray]]:
    """Ranked labels and scores of image files."""

    def of(files: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = signatures["classify_bytes"](images=import_tensorflow().constant(files, "string"))
        return found["labels"].numpy(), found["scores"].numpy()

    return of


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def halves(size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A photo whose corners differ, so that a wrong turn shows."""
    image = photo(COLOURS["cyan"], 5, size)
    image.paste(photo(COLOURS["magenta"], 6, (size[0] // 2, size[1] // 3)), (0, 0))
    return image


def transparent() -> Image.Image:
    image = halves().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def with_exif(orientation: int, endian: str) -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112] = "a maker", orientation
    return encoded(halves(), "JPEG", exif=exif, icc_profile=b"x" * 70_000, comment="a comment")


ORIENTATION, BYTE, SHORT, LONG = 0x0112, 1, 3, 4
OTHERS = tuple((tag, SHORT, 1) for tag in range(ORIENTATION - 12, ORIENTATION))
COMMENT = b"\xff\xfe\x00\x06text"


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">HH", marker, 2 + len(data)) + data


def with_entries(
    *entries: tuple[int, int, int], before: bytes = b"", endian: str = "<", missing: int = 0
) -> bytes:
    """A JPEG with an Exif of (tag, type, value), and other bytes ``before`` it."""
    formats = {BYTE: "B3x", SHORT: "H2x", LONG: "I"}
    directory = struct.pack(f"{endian}H", len(entries) + missing)
    for tag, kind, value in entries:
        directory += struct.pack(f"{endian}HHI{formats[kind]}", tag, kind, 1, value)
    start = {"<": b"II*\0\x08\0\0\0", ">": b"MM\0*\0\0\0\x08"}[endian]
    exif = segment(0xFFE1, b"Exif\0\0" + start + directory + bytes(4))
    plain = encoded(halves(), "JPEG")
    return plain[:2] + before + exif + plain[2:]


EXIF = {
    "13th entry": with_entries(*OTHERS, (ORIENTATION, SHORT, 6)),
    "13th entry, big-endian": with_entries(*OTHERS, (ORIENTATION, SHORT, 8), endian=">"),
    "long": with_entries((ORIENTATION, LONG, 6)),
    "long, big-endian": with_entries((ORIENTATION, LONG, 6), endian=">"),
    "long of more than two bytes": with_entries((ORIENTATION, LONG, 0x10006)),
    "byte": with_entries((ORIENTATION, BYTE, 6)),
    "byte and short": with_entries((ORIENTATION, BYTE, 3), (ORIENTATION, SHORT, 6)),
    "two": with_entries((ORIENTATION, SHORT, 6), (ORIENTATION, SHORT, 1)),
    "two, the other way round": with_entries((ORIENTATION, SHORT, 1), (ORIENTATION, SHORT, 6)),
    "none": with_entries(*OTHERS),
    "no more than its name": encoded(halves(), "JPEG", exif=b"Exif\0\0"),
    "fewer entries than it says": with_entries((ORIENTATION, SHORT, 6), missing=60_000),
    "fill bytes": with_entries((ORIENTATION, SHORT, 6), before=b"\xff\xff\xff"),
    "stray bytes": with_entries((ORIENTATION, SHORT, 6), before=COMMENT + b"abc\xff\0"),
    "behind 99 segments": with_entries((ORIENTATION, SHORT, 6), before=99 * COMMENT),
    "behind XMP and ICC": with_entries(
        (ORIENTATION, SHORT, 6),
        before=segment(0xFFE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
        + segment(0xFFE2, b"ICC_PROFILE\0\1\1" + b"x" * 60_000),
    ),
}
GREY = np.asarray(halves().convert("L")).astype(np.uint16) * 257
FILES = {
    **{f"exif {o} {e}": with_exif(o, e) for o in range(1, 9) for e in "<>"},
    "jpeg": encoded(halves(), "JPEG"),
    "jpeg grey": encoded(halves().convert("L"), "JPEG"),
    "jpeg cmyk": encoded(halves().convert("CMYK"), "JPEG"),
    "jpeg progressive": encoded(halves(), "JPEG", progressive=True),
    "jpeg large": encoded(halves((2500, 1400)), "JPEG"),
    "jpeg tall": encoded(halves((310, 1900)), "JPEG"),
    **{
        f"jpeg {side}": encoded(halves(side), "JPEG")
        for side in [(500, 560), (900, 1600), (90, 80)]
    },
    "exif broken": encoded(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    **{f"exif {name}": data for name, data in EXIF.items()},
    "png": encoded(halves(), "PNG"),
    "png grey": encoded(halves().convert("L"), "PNG"),
    "png one bit": encoded(halves().convert("1"), "PNG"),
    "png palette": encoded(halves().quantize(4), "PNG", bits=2),
    "png palette with a transparent colour": encoded(
        halves().quantize(4), "PNG", bits=2, transparency=1
    ),
    "png transparent": encoded(transparent(), "PNG"),
    "png grey transparent": encoded(transparent().convert("LA"), "PNG"),
    "png 16 bits": encoded(Image.fromarray(GREY), "PNG"),
    "gif": encoded(halves(), "GIF"),
    "gif of frames": encoded(
        halves(), "GIF", save_all=True, append_images=[photo(COLOURS["yellow"], 8, (320, 240))]
    ),
    "bmp": encoded(halves(), "BMP"),
    "bmp grey": encoded(halves().convert("L"), "BMP"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_image_files_give_what_label_image_gives(
    trained: Trained, classify: Callable[..., Any]
) -> None:
    labels, scores = classify(list(FILES.values()))
    own = Classifier(trained.graph, trained.labels).classify(list(FILES.values()))
    for name, names, row, result in zip(FILES, labels, scores, own, strict=True):
        assert [guess.label for guess in result.ranking] == [x.decode() for x in names], name
        np.testing.assert_allclose(row, [g.score for g in result.ranking], atol=1e-3, err_msg=name)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_pixels_of_image_files_are_those_of_label_image() -> None:
    from retrain.export.decoding import pixels_of

    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        files = tf.compat.v1.placeholder(tf.string, (None,))
        pixels = pixels_of(files)
    found = tf.compat.v1.Session(graph=graph).run(pixels, {files: list(FILES.values())})
    for name, own, data in zip(FILES, found, FILES.values(), strict=True):
        different = np.abs(own - decode(data))
        assert different.max() <= 2 and different.mean() < 0.02, name


def test_a_photo_of_each_label_is_ranked_first_and_scores_fall(
    classify: Callable[..., Any],
) -> None:
    labels, scores = classify([encoded(photo(c, 99), "JPEG") for c in COLOURS.values()])
    assert [names[0].decode() for names in labels] == list(COLOURS)
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_no_image_gives_no_row(classify: Callable[..., Any]) -> None:
    labels, scores = classify([])
    assert labels.shape == scores.shape == (0, 3)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"hello", b"BM", b"GIF89a", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n"),
        *(FILES["jpeg"][:2000], FILES["png"][:2000], FILES["bmp"][:2000]),
        encoded(halves(), "TIFF"),
        encoded(halves(), "WEBP", save_all=True, append_images=[photo((9, 9, 9), 1, (320, 240))]),
    ],
)
def test_a_file_that_cannot_be_decoded_fails_its_request_alone(
    classify: Callable[..., Any], data: bytes
) -> None:
    with pytest.raises((import_tensorflow().errors.OpError, UnicodeDecodeError)):
        classify([FILES["jpeg"], data])
    labels, _ = classify([FILES["jpeg"]])
    assert labels.shape == (1, 3)


def test_pixels_give_what_the_head_gives(trained: Trained, signatures: Any) -> None:
    images = trained.dataset.testing.images
    pixels = np.stack([decode(Path(image.path).read_bytes()) for image in images])
    tf = import_tensorflow()
    found = signatures["serving_default"](image=tf.constant(pixels / 255.0, tf.float32))
    expected = trained.result.head.predict(trained.dataset.testing.x)
    np.testing.assert_allclose(found["prediction"].numpy(), expected, atol=1e-5)


def test_clients_of_tensorflow_1_load_it(folder: Path) -> None:
    v1 = import_tensorflow().compat.v1
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        meta = v1.saved_model.load(session, ["serve"], str(folder))
        signature = meta.signature_def["classify_bytes"]
        fetched = {name: info.name for name, info in signature.outputs.items()}
        feeds = {signature.inputs["images"].name: [FILES["jpeg"]]}
        found = session.run(fetched, feeds)
        carried, about = session.run(["retrain/labels:0", "retrain/about:0"])
    assert found["labels"].shape == found["scores"].shape == (1, 3)
    assert [label.decode() for label in carried] == list(COLOURS)
    assert json.loads(about) == json.loads(ABOUT.json)


def test_it_is_one_file_and_the_same_for_the_same_classifier(
    classifier: TrainedClassifier, folder: Path
) -> None:
    assert os.listdir(folder) == ["saved_model.pb"]
    data = (folder / "saved_model.pb").read_bytes()
    again = TrainedClassifier(
        classifier.network, classifier.head, classifier.labels, ABOUT, "final_result"
    )
    assert saved_model.saved_model_bytes(again) == data


def test_labels_that_are_called_as_functions_are_keep_their_names(tmp_path: Path) -> None:
    names = ("case_cond_true_45", "while_body_68", "żółta róża")
    head = Head(np.zeros((2048, 3), np.float32), np.array([3, 2, 1], np.float32))
    made = TrainedClassifier(StandIn().frozen, head, names, ABOUT, "scores/of.flowers")
    saved_model.write(made, ExportSettings(saved_model_dir=str(tmp_path / "saved")))
    loaded = import_tensorflow().saved_model.load(str(tmp_path / "saved"))
    found = loaded.signatures["classify_bytes"](images=import_tensorflow().constant([FILES["png"]]))
    assert [name.decode() for name in found["labels"].numpy()[0]] == list(names)


# where it is written


def settings(folder: Path) -> ExportSettings:
    return ExportSettings(saved_model_dir=str(folder))


def test_one_that_is_there_is_replaced_and_a_failure_leaves_it(
    classifier: TrainedClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_model.check(settings(tmp_path / "saved"))
    saved_model.write(classifier, settings(tmp_path / "saved"))
    before = (tmp_path / "saved" / "saved_model.pb").read_bytes()
    saved_model.check(settings(tmp_path / "saved"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        saved_model.write(classifier, settings(tmp_path / "saved"))
    assert (tmp_path / "saved" / "saved_model.pb").read_bytes() == before
    assert os.listdir(tmp_path / "saved") == ["saved_model.pb"]
    saved_model.write(classifier, settings(tmp_path / "saved"))


def test_a_folder_that_a_killed_run_left_is_written_to(tmp_path: Path) -> None:
    (tmp_path / f".saved_model.pb.{'0' * 32}.partial").write_bytes(b"half")
    saved_model.check(settings(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"--saved_model_dir .* not empty \(it has thesis\.txt\)"):
        saved_model.check(settings(tmp_path))


def test_a_run_writes_it_and_label_image_gives_the_same_by_either(
    call: Call, small_dataset: Path, tmp_path: Path
) -> None:
    from label_image import cli as label_image
    from retrain import cli as retrain

    flags = ["--image_dir", small_dataset, "--how_many_training_steps", "50"]
    made = call(retrain.main, *flags, "--saved_model_dir", "saved", extractor=StandIn())
    assert made.returncode == 0, made.stderr
    assert "\nWriting SavedModel to saved.\n" in made.stdout
    shown = [
        call(label_image.main, *graph, small_dataset / "cyan").stdout
        for graph in ((), ("--graph", "saved"), ("--graph", "saved/saved_model.pb"))
    ]
    assert "cyan (score = " in shown[0]
    assert shown[0] == shown[1] == shown[2]


def test_a_run_refuses_another_s_saved_model_before_it_computes(
    call: Call, small_dataset: Path, tmp_path: Path
) -> None:
    from retrain import cli as retrain

    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    before = sorted(tmp_path.rglob("*"))
    flags = ["--image_dir", small_dataset, "--saved_model_dir", "saved"]
    result = call(retrain.main, *flags, extractor=StandIn())
    assert_one_error_line(result, "--saved_model_dir", "saved_model.pb", "choose another place")
    assert sorted(tmp_path.rglob("*")) == before
