"""retrain.checks.safe_lite: what LiteRT would die of is refused, honest models are not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottlenecks.errors import GraphError, UnsafeGraphError
from retrain.checks import safe_lite
from retrain.checks.safe_lite import SAFE_OPERATIONS, check_safe
from tests.conftest import ROOT, Trained
from tests.lite import altered, model_of, schema, write_all


@pytest.fixture(scope="module")
def files(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(trained, tmp_path_factory.mktemp("lite"))


def test_honest_models_of_all_quantisations_are_taken(files: dict[str, Path]) -> None:
    for path in files.values():
        check_safe(path.read_bytes())
        check_safe(model_of(path))
        check_safe(altered(path, lambda model: None))


def test_operations_have_the_codes_that_litert_gives_them() -> None:
    codes, kinds = schema().BuiltinOperator, schema().BuiltinOptions
    for code, (name, kind, _, _) in SAFE_OPERATIONS.items():
        assert getattr(codes, name) == code
        assert kind in vars(kinds).values()


def operation(model: Any, name: str) -> Any:
    """The first operation ``name``."""
    code = getattr(schema().BuiltinOperator, name)
    codes = [one.builtinCode for one in model.operatorCodes]
    return next(one for one in model.subgraphs[0].operators if codes[one.opcodeIndex] == code)


def pooling(model: Any) -> Any:
    return operation(model, "AVERAGE_POOL_2D")


def constant(model: Any) -> tuple[Any, Any]:
    """A tensor of float32 that has a value, and its buffer."""
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == 0 and data is not None and len(data):
            return tensor, model.buffers[tensor.buffer]
    raise AssertionError("it has none")


def custom(model: Any) -> None:
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema().BuiltinOperator.CUSTOM, 32
    code.customCode = "FlexReadFile"


def another(model: Any) -> None:
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.WHILE


def two_graphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def variable(model: Any) -> None:
    model.subgraphs[0].tensors[0].isVariable = True


def texts(model: Any) -> None:
    model.subgraphs[0].tensors[0].type = schema().TensorType.STRING


def huge(model: Any) -> None:
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    tensor.shape = np.array([1, 2**15, 2**15, 3], np.int32)


def elsewhere(model: Any) -> None:
    model.buffers[1].offset, model.buffers[1].size = 2**40, 10


def margins(model: Any) -> None:
    tensor = model.subgraphs[0].tensors[operation(model, "PAD").inputs[1]]
    data = np.full(len(model.buffers[tensor.buffer].data) // 4, 10**6, "<i4")
    model.buffers[tensor.buffer].data = data.view(np.uint8)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (custom, "has the operation FlexReadFile, which no image"),
        (another, "has the operation 119, which no image"),
        (two_graphs, "parts that call each other"),
        (texts, "a type that no classifier needs"),
        (huge, "a tensor of .1, 32768, 32768, 3. numbers"),
        (margins, "margins of 1000000 to 1000000 pixels"),
    ],
)
def test_what_no_image_classifier_needs(
    files: dict[str, Path], change: Callable[[Any], None], why: str
) -> None:
    with pytest.raises(UnsafeGraphError, match=why):
        check_safe(altered(files["none"], change))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (variable, "a variable that no image classifier needs"),
        (elsewhere, "something that no image classifier needs|offset that no"),
        (
            lambda m: setattr(operation(m, "AVERAGE_POOL_2D").builtinOptions, "strideW", 0),
            "stride_w 0",
        ),
        (
            lambda m: setattr(operation(m, "AVERAGE_POOL_2D").builtinOptions, "padding", 7),
            "padding 7",
        ),
        (lambda m: setattr(operation(m, "SOFTMAX"), "inputs", [10**6]), "do not follow"),
        (lambda m: setattr(operation(m, "SOFTMAX"), "inputs", [-1]), "do not follow"),
        (
            lambda m: setattr(operation(m, "SOFTMAX"), "outputs", m.subgraphs[0].inputs),
            "do not follow",
        ),
        (lambda m: setattr(operation(m, "SOFTMAX"), "inputs", []), "0 inputs and 1 outputs"),
        (lambda m: setattr(operation(m, "SOFTMAX"), "opcodeIndex", 99), "has no name"),
        (lambda m: m.subgraphs[0].operators.reverse(), "do not follow"),
        (lambda m: m.subgraphs[0].operators.pop(), "nothing computes what comes out"),
        (lambda m: setattr(constant(m)[1], "data", np.zeros(4, np.uint8)), "has 4 bytes, of"),
        (lambda m: setattr(constant(m)[0], "buffer", 10**6), "is nowhere"),
        (lambda m: setattr(constant(m)[0], "shapeSignature", [1] * 7), "shapes of its tensor"),
        (lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 10**6), "leads nowhere"),
        (lambda m: setattr(m.signatureDefs[0].inputs[0], "name", None), "leads nowhere"),
        (lambda m: setattr(m.signatureDefs[0].outputs[0], "name", None), "leads nowhere"),
        (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 1), "leads nowhere"),
        (lambda m: setattr(m.metadata[0], "name", None), "leads nowhere"),
        (lambda m: setattr(m.metadata[0], "buffer", 10**6), "leads nowhere"),
    ],
)
def test_what_is_broken(files: dict[str, Path], change: Callable[[Any], object], why: str) -> None:
    with pytest.raises(GraphError, match=why):
        check_safe(altered(files["none"], change))


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e30, float("nan")])
def test_scales_that_lead_litert_out_of_its_tables(files: dict[str, Path], scale: float) -> None:
    def change(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[operation(model, "QUANTIZE").outputs[0]]
        tensor.quantization.scale = np.array([scale], np.float32)

    with pytest.raises(GraphError, match="are no scales"):
        check_safe(altered(files["int8"], change))


def test_16_bits_that_are_said_to_be_more(files: dict[str, Path]) -> None:
    def change(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[operation(model, "DEQUANTIZE").outputs[0]]
        tensor.shape = np.array([2**20, *tensor.shape[1:]], np.int32)

    with pytest.raises(GraphError, match="another shape than what goes in"):
        check_safe(altered(files["float16"], change))


def test_more_operations_than_are_loaded(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_lite, "MAX_OPERATIONS", 2)
    with pytest.raises(UnsafeGraphError, match="operations; at most 2 are loaded"):
        check_safe(files["none"].read_bytes())


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 100, b"\xff" * 100, bytes(range(256)) * 9])
def test_what_is_no_flatbuffer(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"is broken|has .* that no image classifier needs|parts"):
        check_safe(data)


def test_more_parts_than_can_be_read() -> None:
    """A vector of 300,000 operation codes, which are all the same one."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.StartObject(1)
    inner = builder.EndObject()
    builder.StartVector(4, 300_000, 4)
    for _ in range(300_000):
        builder.PrependUOffsetTRelative(inner)
    codes = builder.EndVector()
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(1, codes, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    with pytest.raises(GraphError, match="more parts than an image classifier has"):
        check_safe(bytes(builder.Output()))


MUTATING = """
import sys
import numpy as np
from bottlenecks.errors import GraphError
from retrain.engines.lite import LiteModel
from retrain.checks.safe_lite import check_safe
from retrain.engines.settings import GraphSettings

data = open(sys.argv[1], "rb").read()
random = np.random.default_rng(0)
refused = 0
for _ in range(100):
    mutated = bytearray(data[: random.integers(8, len(data))] if random.random() < 0.2 else data)
    for place in random.integers(0, len(mutated), random.integers(1, 20)):
        mutated[place] = random.choice([0, 1, 127, 255, mutated[place] ^ (1 << random.integers(8))])
    try:
        check_safe(bytes(mutated))
        run = LiteModel("mutated", bytes(mutated), {}).start(GraphSettings())
        run(np.zeros((run.feeding.batch or 1, *run.feeding.size, 3), np.float32))
    except GraphError:
        refused += 1
print("refused", refused)
"""


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_no_damage_kills_the_process(files: dict[str, Path], tmp_path: Path, quantize: str) -> None:
    (tmp_path / "model").write_bytes(model_of(files[quantize]))
    result = subprocess.run(
        [sys.executable, "-c", MUTATING, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr)
    assert int(result.stdout.split()[-1]) > 30


def test_a_shape_of_a_million_sizes_is_one_short_line_at_once(files: dict[str, Path]) -> None:
    def endless(model: Any) -> None:
        model.subgraphs[0].tensors[0].shape = [2**30] * 10**6

    with pytest.raises(GraphError, match="of a shape that no value has") as caught:
        check_safe(altered(files["none"], endless))
    assert len(str(caught.value)) < 200
