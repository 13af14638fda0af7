"""A fine-tuning that can be killed: its numbers and how far it was, in one file."""

import contextlib
import hashlib
import io
import json
import logging
import os
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np

from bottlenecks import atomic
from bottlenecks.errors import CacheError, shown
from bottlenecks.store import lock
from bottlenecks.store.layout import (
    CHECKPOINT_SECONDS,
    CHECKPOINT_SUFFIX,
    checkpoints,
    open_own,
)
from retrain.evaluate import Score
from retrain.training.devices import is_chief, is_the_same
from retrain.training.fine_tuning import FineTuning
from retrain.training.fitting import Candidate, Evaluation, Loop
from retrain.training.upper import UpperLayers, Variables

SECONDS = 60.0  # between two checkpoints; one of mixed7 (250 MB) takes a second
_MAGIC = b"retrain-checkpoint-1\n"
_DIGEST_BYTES = 64
_MOST_BYTES = 2**31  # one of the whole network has 450 MB
_STATE, _LOSSES, _BEST = "state", "losses", "best"

log = logging.getLogger(__name__)


class Checkpoint:
    """Where a `Loop` of `FineTuning` is, kept in ``folder`` (that of a cache) for one ``identity``.

    Nothing is lost but time where it cannot be written, or is damaged.
    """

    def __init__(
        self, folder: Path, identity: str, tuning: FineTuning, variables: Variables
    ) -> None:
        self.path = folder / f"{identity}{CHECKPOINT_SUFFIX}"
        self._identity, self._tuning, self._variables = identity, tuning, variables
        self._saved = time.monotonic()

    def save_sometimes(self, loop: Loop) -> None:
        """Save, if the last time is `SECONDS` ago and there are steps to come."""
        is_time = time.monotonic() - self._saved >= SECONDS
        if not is_time or loop.step == loop.steps or not self._is_chief:
            return
        try:
            with lock.exclusive(self.path.parent, wait=False) as held:
                if held:  # else another run writes there, and removes what is partial
                    self._save(loop)
        except (OSError, CacheError) as error:
            log.warning("cannot write the checkpoint %s: %s", shown(self.path), error)
        self._saved = time.monotonic()

    @property
    def _is_chief(self) -> bool:
        return is_chief(self._variables.strategy)

    def _save(self, loop: Loop) -> None:
        arrays = self._tuning.arrays()
        state: dict[str, Any] = {
            "identity": self._identity,
            "step": loop.step,
            "evaluations": [asdict(evaluation) for evaluation in loop.evaluations],
        }
        if loop.best is not None:
            state["best_step"] = loop.best.step
            arrays[_LOSSES] = loop.best.losses
            assert isinstance(loop.best.model, UpperLayers)
            own = loop.best.model.arrays
            arrays |= {f"{_BEST}{i:04}": array for i, array in enumerate(own)}
        write(self.path, arrays, state)

    def resume(self, loop: Loop) -> int:
        """Put ``loop`` where an earlier run was; returns the step, 0 where there was none."""
        found = read(self.path)
        is_ours = found is not None and found[1].get("identity") == self._identity
        fits = found is not None and is_ours and self._fits(*found, loop)
        if is_ours and not fits:
            log.warning("the checkpoint %s does not fit; beginning again", shown(self.path))
        step = int(found[1]["step"]) if found is not None and fits else 0
        if not self._all_are_at(step) or found is None or not step:
            return 0
        arrays, state = found
        if "best_step" in state:
            model = self._variables.model_of([arrays[name] for name in _best_names(arrays)])
            loop.best = Candidate(int(state["best_step"]), model, arrays[_LOSSES])
        loop.evaluations = [_evaluation(values) for values in state["evaluations"]]
        loop.step = step
        self._tuning.restore(step, arrays)
        return step

    def _fits(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], loop: Loop) -> bool:
        """Whether a file with the right digest has what `_save` writes, as far as it is read."""
        own = self._tuning.arrays()
        try:
            step, best_step = state["step"], state.get("best_step", 1)
            evaluations = [_evaluation(values) for values in state["evaluations"]]
            return (
                type(step) is type(best_step) is int
                and 0 < best_step <= step < loop.steps
                and all(_are_numbers(evaluation) for evaluation in evaluations)
                and all(_are_alike(arrays[name], own[name]) for name in own)
                and ("best_step" not in state or self._can_be_best(arrays, loop))
            )
        except (KeyError, TypeError, ValueError):
            return False

    def _can_be_best(self, arrays: Mapping[str, np.ndarray], loop: Loop) -> bool:
        best = [arrays[name] for name in _best_names(arrays)]
        trained = [variable.numpy() for variable in self._variables.trained]
        is_model = len(best) == len(trained) and all(map(_are_alike, best, trained))
        return is_model and _are_alike(arrays[_LOSSES], loop.judges.weights.astype(np.float64))

    def _all_are_at(self, step: int) -> bool:
        """Whether all workers found the same; if not, all begin again."""
        is_same = is_the_same(self._variables.strategy, step)
        if not is_same:
            log.warning(
                "the workers do not find the same checkpoint; beginning again. To resume, let "
                "--bottleneck_dir be a folder that all of them share"
            )
        return is_same

    def remove(self) -> None:
        """Remove it: the training is done. And what runs of long ago have not gone on with."""
        if not self._is_chief:
            return
        with contextlib.suppress(OSError):
            for path in checkpoints(self.path.parent, CHECKPOINT_SECONDS):
                path.unlink()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _best_names(names: Iterable[str]) -> list[str]:
    """Those of the arrays of the best model, in order."""
    return sorted(name for name in names if name.startswith(_BEST))


def _are_alike(array: np.ndarray, own: np.ndarray) -> bool:
    """Whether it can take the place of one of our own."""
    return array.shape == own.shape and array.dtype == own.dtype and bool(np.isfinite(array).all())


def _are_numbers(evaluation: Evaluation) -> bool:
    scores = (evaluation.train, evaluation.validation, evaluation.validation_batch)
    numbers = [x for score in scores if score is not None for x in astuple(score)]
    return all(isinstance(x, int | float) for x in (evaluation.step, *numbers))


def _evaluation(values: Mapping[str, Any]) -> Evaluation:
    names = ("train", "validation", "validation_batch")
    scores = {name: values[name] and Score(**values[name]) for name in names}
    return Evaluation(step=values["step"], **scores)


def write(path: Path, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Replace ``path`` by arrays, and what ``json.dumps`` takes. Raises ``OSError``."""
    body = io.BytesIO()
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    np.savez(body, allow_pickle=False, **{_STATE: text}, **arrays)
    digest = hashlib.sha256(body.getbuffer()).hexdigest().encode()
    with atomic.replacing(path, follow=False) as partial, open(partial, "xb") as file:
        file.write(_MAGIC + digest + b"\n")
        file.write(body.getbuffer())


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """What `write` wrote; None where there is no such file, or not a whole one of this program."""
    try:
        with open_own(path) as file:
            head = file.read(len(_MAGIC) + _DIGEST_BYTES + 1)
            if not head.startswith(_MAGIC) or os.fstat(file.fileno()).st_size > _MOST_BYTES:
                return None
            body = file.read()
    except OSError:
        return None
    try:
        if hashlib.sha256(body).hexdigest().encode() == head[len(_MAGIC) : -1]:
            return _unpacked(body)
    except Exception as error:  # NumPy raises many kinds for what it has not written
        log.debug("%s: %s", shown(path), error)
    log.warning("the checkpoint %s is damaged; beginning again", shown(path))
    return None


def _unpacked(body: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state in the body of a file; raises for what `write` does not write."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")  # a small one might unpack to anything
    with np.load(io.BytesIO(body), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    state = json.loads(arrays.pop(_STATE).tobytes())
    if not isinstance(state, dict):
        raise ValueError("its state is no object")
    return arrays, state
