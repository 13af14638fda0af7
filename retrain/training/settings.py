"""The settings of the training."""

from dataclasses import dataclass, fields
from typing import ClassVar

from bottlenecks.errors import UsageError
from bottlenecks.network.cuts import CUTS, cut_for
from bottlenecks.settings import Settings, flag, require
from retrain.training.recipes import LAYER_RECIPES, USUAL

LEARNING_RATES = {USUAL: 0.001, "classic": 0.01}  # of each recipe that the head has
RECIPES = tuple(dict.fromkeys((*LEARNING_RATES, *LAYER_RECIPES)))
STRATEGIES = ("auto", "none", "mirrored", "multi_worker")
CLASS_BALANCES = ("none", "weights", "sampling")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How the softmax layer is trained."""

    title: ClassVar[str] = "stage two: training on the bottlenecks"

    how_many_training_steps: int = flag(4000, "training steps", metavar="N", first=True)
    recipe: str = flag(
        USUAL,
        "adam, classic: plain gradient descent as in retrain.py, or for --fine_tune_from "
        "inception: RMSProp as that network was trained, from --weights random too",
        choices=RECIPES,
        metavar="|".join(RECIPES),
    )
    learning_rate: float | None = flag(
        None, "size of the first steps (default: 0.001, for classic 0.01)", metavar="RATE"
    )
    patience: int = flag(
        0,
        "stop when this many steps have not lowered the validation loss; 0 for never",
        metavar="N",
    )
    tune: bool = flag(
        False,
        "search the strength of the regularisation thoroughly, by cross-validation (small folders: "
        "always, but on fewer images)",
    )
    class_balance: str = flag(
        "none",
        "make up for labels with few images: weigh images, or sample labels evenly",
        choices=CLASS_BALANCES,
        metavar="|".join(CLASS_BALANCES),
    )
    calibrate: bool = flag(
        False, "scale the scores so that 0.9 is right nine times in ten (on the validation set)"
    )
    train_batch_size: int = flag(100, "images in a training step", metavar="N")
    eval_step_interval: int = flag(10, "steps between two evaluations", metavar="N")
    validation_batch_size: int = flag(
        100, "images in an evaluation while training; -1 for all", metavar="N"
    )
    seed: int = flag(0, "same seed, same images, same flags: the same graph", metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("how_many_training_steps", "eval_step_interval", "train_batch_size"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        size = self.validation_batch_size
        require(size >= 1 or size == -1, "validation_batch_size", "at least 1, or -1 for all", size)
        rate = self.learning_rate
        require(rate is None or 0 < rate < float("inf"), "learning_rate", "above 0", rate)
        require(self.patience >= 0, "patience", "at least 0", self.patience)
        require(0 <= self.seed < 2**32, "seed", "from 0 to 4294967295", self.seed)
        if self.recipe == "classic":
            for name in ("tune", "patience"):
                if getattr(self, name):
                    raise UsageError(f"--{name} does nothing with --recipe classic; leave one out")
            balance = self.class_balance
            expected = "sampling or none with --recipe classic"
            require(balance != "weights", "class_balance", expected, balance)

    @property
    def head_recipe(self) -> str:
        """How the softmax layer is trained: a key of `LEARNING_RATES`."""
        return self.recipe if self.recipe in LEARNING_RATES else USUAL

    @property
    def layer_recipe(self) -> str:
        """How layers below it are: a key of `LAYER_RECIPES`."""
        return self.recipe if self.recipe in LAYER_RECIPES else USUAL


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings(Settings):
    """Which layers of the network are trained together with the softmax layer, and how."""

    title: ClassVar[str] = "fine-tuning: training layers of the network too"

    fine_tune_from: str | None = flag(
        None,
        "after the training on bottlenecks, train all layers behind this one together with the "
        "softmax layer; mixed7 is a good start, input is the whole network",
        metavar="LAYER",
        first=True,
    )
    fine_tune_epochs: int = flag(8, "how often each image is trained on", metavar="N")
    fine_tune_learning_rate: float | None = flag(
        None,
        "size of the largest steps, as a share of a layer's weights (default: 0.02, for --recipe "
        "inception 0.045, of the weights themselves)",
        metavar="RATE",
    )
    fine_tune_batch_size: int = flag(32, "images in a step", metavar="N")
    fine_tune_weight_decay: float = flag(
        0.01, "share of the weights that a step of size 1 takes off", metavar="SHARE"
    )
    fine_tune_label_smoothing: float = flag(
        0.1, "share of each label that is spread over all", metavar="SHARE"
    )

    strategy: str = flag(
        "auto",
        "the devices: all GPUs of this machine (mirrored), or those of the machines in TF_CONFIG "
        "(multi_worker); auto takes what there is",
        choices=STRATEGIES,
        metavar="|".join(STRATEGIES),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fine_tune_from is not None:
            behind = cut_for(self.fine_tune_from) != CUTS[-1]
            require(
                behind,
                "fine_tune_from",
                "a layer before mixed10, which ends the network",
                "mixed10",
            )
        for name in ("fine_tune_epochs", "fine_tune_batch_size"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        rate, decay = self.fine_tune_learning_rate, self.fine_tune_weight_decay
        is_rate = rate is None or 0 < rate < float("inf")
        require(is_rate, "fine_tune_learning_rate", "above 0", rate)
        require(0 <= decay < float("inf"), "fine_tune_weight_decay", "at least 0", decay)
        share = self.fine_tune_label_smoothing
        require(0 <= share < 1, "fine_tune_label_smoothing", "at least 0 and below 1", share)
        for field in fields(FineTuneSettings):
            is_set = getattr(self, field.name) != field.default
            if self.fine_tune_from is None and is_set:
                raise UsageError(
                    f"--{field.name} does nothing without --fine_tune_from; add it (mixed7, for "
                    "example), or leave this out"
                )

    @property
    def cut(self) -> str | None:
        """Where the network is cut for it: one of `bottlenecks.network.cuts.CUTS`."""
        return None if self.fine_tune_from is None else cut_for(self.fine_tune_from)
