"""retrain.quantised: a file of rounded numbers says what it has lost."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

import retrain
from retrain import cli
from retrain.learning import Learned
from retrain.listener import Listener
from retrain.quantised import compare
from retrain.report.results import Loss
from retrain.trainer import train
from retrain.training.head import Head
from tests.conftest import Call, Trained
from tests.lite import schema, write
from tests.tiny import Tiny


class Keeper(Listener):
    losses: tuple[Loss | None, ...] = ()

    def quantised(self, loss: Loss | None) -> None:
        self.losses = (*self.losses, loss)


def learned(trained: Trained, head: Head | None = None) -> Learned:
    model = trained.result.head if head is None else head
    return Learned(model, b"", trained.result.fitted, None, 1.0)


@pytest.fixture
def config(trained: Trained, tmp_path: Path) -> retrain.Config:
    schema()
    path = write(trained, tmp_path / "a.tflite", "int8")
    return dataclasses.replace(trained.config, output_tflite=str(path), quantize="int8")


def test_the_accuracies_are_of_the_same_test_images(
    config: retrain.Config, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    assert compare(config, trained.dataset, learned(trained)) == Loss("testing", 9, 1.0, 1.0)
    assert not caplog.records


def test_a_loss_of_more_than_half_a_point_is_warned_of(
    config: retrain.Config, trained: Trained, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    head = trained.result.head
    wrong = Head(np.roll(head.weights, 1, axis=1), np.roll(head.bias, 1))
    write(trained, tmp_path / "a.tflite", "int8", head=wrong)
    with caplog.at_level(logging.WARNING):
        loss = compare(config, trained.dataset, learned(trained))
    assert loss is not None and (loss.before, loss.after, loss.points) == (1.0, 0.0, 100.0)
    (record,) = caplog.records
    assert "--quantize int8 loses 100.0 points of accuracy" in record.getMessage()
    assert "9 testing images, of which one is 11.1 points" in record.getMessage()


def test_without_test_images_it_is_the_validation_set(
    config: retrain.Config, trained: Trained
) -> None:
    dataset = dataclasses.replace(
        trained.dataset,
        set_of=np.where(trained.dataset.set_of == "testing", "left out", trained.dataset.set_of),
    )
    loss = compare(config, dataset, learned(trained))
    assert loss is not None and (loss.set, loss.n) == ("validation", len(dataset.validation))


def test_images_that_are_gone_are_not_compared(config: retrain.Config, trained: Trained) -> None:
    gone = [dataclasses.replace(x, path="/nowhere") for x in trained.dataset.everything.images]
    everything = dataclasses.replace(trained.dataset.everything, images=gone)
    dataset = dataclasses.replace(trained.dataset, everything=everything)
    assert compare(config, dataset, learned(trained)) is None


def test_a_fine_tuned_network_is_written_and_compared(dataset: Path, tmp_path: Path) -> None:
    schema()
    config = retrain.Config(
        image_dir=str(dataset),
        bottleneck_dir=str(tmp_path / "cache"),
        model_dir=str(tmp_path / "models"),
        output_graph=str(tmp_path / "graph.pb"),
        output_labels=str(tmp_path / "labels.txt"),
        output_tflite=str(tmp_path / "a.tflite"),
        quantize="dynamic",
        how_many_training_steps=20,
        validation_percentage=0,  # so that it is taken
        fine_tune_from="mixed7",
        fine_tune_epochs=1,
    )
    keeper = Keeper()
    result = train(config, extractor=Tiny(), listener=keeper)
    assert result.fine_tuned is not None and result.fine_tuned.is_taken
    (loss,) = keeper.losses
    assert loss is not None and result.test is not None
    assert loss.before == result.test.accuracy
    assert abs(loss.points) < 15


def test_a_run_says_where_the_file_is_and_what_it_lost(
    call: Call, dataset: Path, tmp_path: Path
) -> None:
    schema()
    flags = ("--image_dir", dataset, "--how_many_training_steps", "50")
    lite = ("--output_tflite", "new/a.tflite", "--quantize", "float16")
    result = call(cli.main, *flags, *lite, extractor=Tiny())
    assert result.returncode == 0, result.stderr
    assert "\nWriting LiteRT to new/a.tflite.\n" in result.stdout
    assert "\nfloat16 accuracy 100.0% -> 100.0% on the same 9 testing images\n" in result.stdout
