"""The protobuf messages, built at run time (what protoc's generated module does as well, so they are as fast).

Equal to this file of theirs:

    message Pair { int64 x = 1; int64 y = 2; }            message Sum { int64 value = 1; }
    message User { int64 id = 1; string name = 2; string email = 3; string city = 4; int32 age = 5; double score = 6;
                   bool active = 7; string joined = 8; repeated string tags = 9; }
    message Page { int32 page = 1; int32 total = 2; repeated User users = 3; }
    service Calls { rpc Add(Pair) returns (Sum); rpc Echo(Page) returns (Page);
                    rpc EchoStruct(google.protobuf.Struct) returns (google.protobuf.Struct); }
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
)

SERVICE = "backwater.benchmark.Calls"
_Field = descriptor_pb2.FieldDescriptorProto
_FIELDS: dict[str, list[tuple[str, int]]] = {
    "Pair": [("x", _Field.TYPE_INT64), ("y", _Field.TYPE_INT64)],
    "Sum": [("value", _Field.TYPE_INT64)],
    "User": [
        ("id", _Field.TYPE_INT64),
        ("name", _Field.TYPE_STRING),
        ("email", _Field.TYPE_STRING),
        ("city", _Field.TYPE_STRING),
        ("age", _Field.TYPE_INT32),
        ("score", _Field.TYPE_DOUBLE),
        ("active", _Field.TYPE_BOOL),
        ("joined", _Field.TYPE_STRING),
        ("tags", _Field.TYPE_STRING),
    ],
    "Page": [("page", _Field.TYPE_INT32), ("total", _Field.TYPE_INT32), ("users", _Field.TYPE_MESSAGE)],
}
_REPEATED = ("tags", "users")


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="backwater_benchmark.proto", package="backwater.benchmark", syntax="proto3"
    )
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields, 1):
            label = _Field.LABEL_REPEATED if name in _REPEATED else _Field.LABEL_OPTIONAL
            added = described.field.add(name=name, number=number, type=kind, label=label)
            if kind == _Field.TYPE_MESSAGE:
                added.type_name = ".backwater.benchmark.User"
    pool = descriptor_pool.Default()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"backwater.benchmark.{name}") for name in _FIELDS}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


_CLASSES = _classes()
Pair: Any = _CLASSES["Pair"]
Sum: Any = _CLASSES["Sum"]
Page: Any = _CLASSES["Page"]
Struct: Any = struct_pb2.Struct

#: method: (request class, reply class)
METHODS: dict[str, tuple[Any, Any]] = {"Add": (Pair, Sum), "Echo": (Page, Page), "EchoStruct": (Struct, Struct)}


def handlers() -> dict[str, Callable[[Any, Any], Any]]:
    """What each method does; the aio server wraps them."""
    return {
        "Add": lambda request, context: Sum(value=request.x + request.y),
        "Echo": lambda request, context: request,
        "EchoStruct": lambda request, context: to_struct(to_dict(request)),
    }


def page(value: dict[str, Any]) -> Any:
    """The dict as a typed message, made once: gRPC's best case, no conversion from or to a dict in a call."""
    return json_format.ParseDict(value, Page())


def to_struct(value: dict[str, Any]) -> Any:
    """A dict as a Struct: what one sends who has no message type for it."""
    struct = Struct()
    struct.update(value)
    return struct


def to_dict(struct: Any) -> dict[str, Any]:
    """And back. Every number comes back as a float."""
    value: dict[str, Any] = json_format.MessageToDict(struct)
    return value
