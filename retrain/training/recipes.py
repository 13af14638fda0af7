"""How layers are trained by each recipe: all that it has of its own is in one entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

USUAL = "adam"
WARM_UP = 0.1  # share of the steps in which their size grows


@dataclass(frozen=True)
class LayerRecipe:
    """How layers of the network, and the head with them, move against their gradients.

    ``rate`` is the size of the largest steps, unless the flags say another. ``optimizer`` makes
    Keras' of ``keras.optimizers``, the rate, the weight decay, the steps in all and the epochs that
    they are. Gradients whose global norm is above ``most_norm``, if there is one, are scaled down
    to it.

    The numbers are held ``in_own_units`` or as they are, and where they begin untrained each layer
    ``normalises_untrained`` or not: see `retrain.training.upper.Variables`.
    """

    rate: float
    optimizer: Callable[[Any, float, float, int, int], Any]
    in_own_units: bool
    normalises_untrained: bool
    most_norm: float | None = None


def _adamw(keras: Any, rate: float, weight_decay: float, steps: int, epochs: int) -> Any:
    """AdamW whose step size grows to ``rate`` and falls to 0 along half a cosine."""
    warm_up = max(1, round(WARM_UP * steps))
    sizes = keras.schedules.CosineDecay(
        rate / (warm_up + 1),
        max(1, steps - warm_up),
        warmup_target=rate,
        warmup_steps=warm_up,
    )
    return keras.AdamW(sizes, weight_decay=weight_decay)


def _rmsprop(keras: Any, rate: float, weight_decay: float, steps: int, epochs: int) -> Any:
    """RMSProp whose step size falls by 6 % every two epochs; without weight decay."""
    sizes = keras.schedules.ExponentialDecay(rate, 2 * steps // epochs, 0.94, staircase=True)
    return keras.RMSprop(sizes, rho=0.9, epsilon=1.0)


# By the names that --recipe takes.
LAYER_RECIPES: Mapping[str, LayerRecipe] = {
    USUAL: LayerRecipe(0.02, _adamw, in_own_units=True, normalises_untrained=False),
    # Szegedy et al. 2015, "Rethinking the Inception Architecture", section 8.
    "inception": LayerRecipe(
        0.045, _rmsprop, in_own_units=False, normalises_untrained=True, most_norm=2.0
    ),
}
