"""What tells one recipe of fine-tuning from another is in its entry of the table alone."""

from typing import Any

import numpy as np
import pytest

from retrain.config import Config
from retrain.training.fine_tuning import Recipe
from retrain.training.recipes import LAYER_RECIPES, LayerRecipe
from retrain.training.settings import RECIPES
from tests.retrain.training.test_fine_tuning import after_steps, recipe


def descent(keras: Any, rate: float, weight_decay: float, steps: int, epochs: int) -> Any:
    return keras.SGD(rate)


def of_flags(name: str, **settings: Any) -> Recipe:
    config = Config(image_dir="D", fine_tune_from="mixed7", recipe=name, **settings)
    return Recipe.of(config, config, 0.0)


def test_the_flag_takes_every_entry() -> None:
    assert set(LAYER_RECIPES) <= set(RECIPES)


@pytest.mark.parametrize(
    ("flag", "layers"), [("adam", "adam"), ("classic", "adam"), ("inception", "inception")]
)
def test_the_rate_is_that_of_the_entry_unless_it_is_given(flag: str, layers: str) -> None:
    own = of_flags(flag)
    assert own.name == layers
    assert own.learning_rate == LAYER_RECIPES[layers].rate
    assert of_flags(flag, fine_tune_learning_rate=0.5).learning_rate == 0.5


def test_another_entry_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain gradient descent at rate 1 moves by the gradient, or by the norm that it is cut to."""

    def moved(most_norm: float | None) -> float:
        entry = LayerRecipe(0.1, descent, True, False, most_norm)
        monkeypatch.setitem(LAYER_RECIPES, "descent", entry)
        after = after_steps(1, recipe(name="descent", learning_rate=1.0)).arrays
        pairs = zip(after_steps(0).arrays, after, strict=True)
        return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs)))

    of_average = 0.9  # of the first step
    assert moved(None) > 0.1
    assert moved(1e-3) == pytest.approx(of_average * 1e-3, rel=1e-2)
