"""Strings that a TensorFlow graph carries, read without TensorFlow, whose import takes seconds."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from bottlenecks.errors import GraphError, UnsafeGraphError

# What is wanted of tensorflow/core/framework's graph.proto, node_def.proto, attr_value.proto and
# tensor.proto: each field's number and type, which are messages of this table or else bytes. What
# is not in the table is passed over. A map is a list of keys and values, as in every .proto.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "GraphDef": {"node": (1, "NodeDef")},
    "NodeDef": {"name": (1, ""), "op": (2, ""), "attr": (5, "Attribute")},
    "Attribute": {"key": (1, ""), "value": (2, "AttrValue")},
    "AttrValue": {"tensor": (8, "TensorProto")},
    "TensorProto": {"string_val": (8, "")},
}
_REPEATED = ("node", "attr", "string_val")


def graph_texts(data: bytes, names: Collection[str], most: int) -> dict[str, Sequence[bytes]]:
    """The values of those constants among ``names`` that a serialised GraphDef has.

    Raises `GraphError` where ``data`` is none, or one without nodes, and `UnsafeGraphError` for
    more than ``most`` nodes. The message goes on from the graph's name, as of `check_safe`.
    """
    try:
        nodes = _graph_def().FromString(data).node
    except DecodeError as error:
        raise GraphError("is no graph") from error
    if not nodes:
        raise GraphError("is empty")
    if len(nodes) > most:
        raise UnsafeGraphError(f"has {len(nodes)} nodes; at most {most} are loaded")
    wanted = {name.encode() for name in names}
    return {
        node.name.decode(): attribute.value.tensor.string_val
        for node in nodes
        if node.op == b"Const" and node.name in wanted
        for attribute in node.attr
        if attribute.key == b"value"
    }


@functools.cache
def _graph_def() -> Any:
    """The class of a GraphDef with the fields of `_MESSAGES`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="graph_texts.proto", package="graph_texts")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, of) in fields.items():
            described.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if name in _REPEATED else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if of else kinds.TYPE_BYTES,
                type_name=f".{file.package}.{of}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{file.package}.{next(iter(_MESSAGES))}")
    )
