"""The settings of the training."""

from dataclasses import dataclass
from typing import ClassVar

from bottlenecks.errors import UsageError
from bottlenecks.settings import Settings, flag, require

LEARNING_RATES = {"adam": 0.001, "classic": 0.01}  # of each recipe
CLASS_BALANCES = ("none", "weights", "sampling")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How the softmax layer is trained."""

    title: ClassVar[str] = "stage two: training on the bottlenecks"

    how_many_training_steps: int = flag(4000, "training steps", metavar="N", first=True)
    recipe: str = flag(
        "adam",
        "adam, or classic: plain gradient descent as in retrain.py",
        choices=tuple(LEARNING_RATES),
        metavar="|".join(LEARNING_RATES),
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
