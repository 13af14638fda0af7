"""TensorFlow's protocol buffers without TensorFlow, whose import takes seconds.

The ``tensorboard`` package has the same messages under another name, so that both may be in one
process. What is given to TensorFlow itself goes through bytes: ``GraphDef.FromString`` of each.
"""

import functools
import importlib
from typing import Any

import numpy as np

from bottlenecks.errors import GraphError

FLOAT32 = 1  # DT_FLOAT in tensorflow/core/framework/types.proto
_DTYPES = {FLOAT32: np.dtype("<f4"), 3: np.dtype("<i4")}  # and DT_INT32


def message(name: str, module: str = "graph") -> Any:
    """The class of a message: "GraphDef" of ``graph.proto``, or another of another module."""
    return getattr(importlib.import_module(f"tensorboard.compat.proto.{module}_pb2"), name)


@functools.cache
def saved_model() -> Any:
    """The class of a SavedModel, which ``tensorboard`` has the parts of alone."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    part = message("MetaGraphDef", "meta_graph").DESCRIPTOR
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="retrain/saved_model.proto", package="retrain", syntax="proto3"
    )
    file.dependency.append(part.file.name)
    described = file.message_type.add(name="SavedModel")
    version, metas = described.field.add(), described.field.add()
    version.MergeFrom(kinds(name="saved_model_schema_version", number=1, type=kinds.TYPE_INT64))
    metas.MergeFrom(kinds(name="meta_graphs", number=2, type=kinds.TYPE_MESSAGE))
    version.label, metas.label = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    metas.type_name = f".{part.full_name}"
    pool = descriptor_pool.Default()  # where the parts are
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("retrain.SavedModel"))


def constants_of(graph_def: Any) -> dict[str, np.ndarray]:
    """The values of a GraphDef's constants of float32 and int32, by the names of their nodes.

    Raises `GraphError` for one that is not as `bottlenecks.network.inception.freeze` writes it.
    """
    return {
        node.name: _values(node.name, node.attr["value"].tensor)
        for node in graph_def.node
        if node.op == "Const" and node.attr["value"].tensor.dtype in _DTYPES
    }


def _values(name: str, tensor: Any) -> np.ndarray:
    dtype = _DTYPES[tensor.dtype]
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    one = tensor.float_val if dtype.kind == "f" else tensor.int_val
    # An array of equal numbers is written as one of them.
    values = np.frombuffer(tensor.tensor_content, dtype) if not one else np.array(one, dtype)
    try:
        return values.reshape(shape) if values.size != 1 else np.full(shape, values[0], dtype)
    except ValueError as error:
        raise GraphError(f"the constant {name} of the network is broken") from error
