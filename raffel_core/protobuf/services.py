"""STOPGAP by the architect so that others can try the connection: to be replaced whole by the real one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2 as D
from google.protobuf import descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from msgspec import inspect as mi

from raffel_core.errors import Problem, RaffelError
from raffel_core.protobuf.method import Method
from raffel_core.route import Route

F = D.FieldDescriptorProto
SC = {mi.IntType: 3, mi.FloatType: 1, mi.StrType: 9, mi.BoolType: 8, mi.BytesType: 12, mi.DecimalType: 9, mi.UUIDType: 9, mi.DateType: 9, mi.TimeType: 9}
WK = {mi.DateTimeType: "Timestamp", mi.TimeDeltaType: "Duration"}


def pascal(s: str) -> str:
    return "".join(p[:1].upper() + p[1:] for p in s.replace("-", "_").split("_"))


class Services:
    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.by_route: dict[str, Method] = {}
        self.fds: dict[str, Any] = {}

    @property
    def files(self) -> list[Any]:
        return list(self.fds.values())


def services_of(routes: Iterable[Route], *, package: str = "", numbering: Any = None, before: Any = None) -> tuple[Services, list[Problem]]:
    s = Services()
    plan = []
    for r in routes:
        over = r.meta.grpc if isinstance(r.meta.grpc, dict) else {}
        if r.meta.grpc is False:
            continue
        lits = [x.text for x in r.segments if x.kind == "literal"] or [r.segments[0].text]
        me = over.get("method", pascal(lits[-1]))
        sv = over.get("service", pascal(lits[-2]) if len(lits) > 1 else "Root")
        pk = over.get("package", ".".join(x for x in [package, *lits[:-2]] if x))
        fd = s.fds.get(pk)
        if fd is None:
            fd = s.fds[pk] = D.FileDescriptorProto(name=(pk or "root").replace(".", "/") + ".proto", package=pk, syntax="proto3", dependency=["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/protobuf/duration.proto"])
        dot = f".{pk}." if pk else "."
        seen: dict[Any, str] = {}

        def typ(f: Any, t: Any, fd: Any = fd, dot: str = dot, seen: Any = seen, pre: str = sv + me) -> None:
            if isinstance(t, mi.Metadata):
                t = t.type
            if type(t) in SC:
                f.type = SC[type(t)]
            elif type(t) in WK:
                f.type, f.type_name = 11, f".google.protobuf.{WK[type(t)]}"
            elif isinstance(t, mi.ListType) and not isinstance(t.item_type, (mi.ListType, mi.UnionType, mi.DictType)) and f.label != 3:
                f.label = 3
                typ(f, t.item_type)
            elif isinstance(t, (mi.StructType, mi.DataclassType)):
                f.type, f.type_name = 11, dot + msg(t)
            else:
                f.type, f.type_name = 11, ".google.protobuf.Value"

        def fields(m: Any, fs: Any) -> None:
            opt = []
            for x in fs:
                f = m.field.add(name=x.name, number=len(m.field) + 1, label=1)
                t, none = x.type, False
                if isinstance(t, mi.UnionType):
                    rest = [y for y in t.types if not isinstance(y, mi.NoneType)]
                    none = len(rest) < len(t.types)
                    t = rest[0] if len(rest) == 1 else mi.AnyType()
                typ(f, t)
                if (none or not x.required) and f.label == 1 and f.type != 11:
                    opt.append(f)
            for f in opt:
                f.proto3_optional = True
                f.oneof_index = len(m.oneof_decl)
                m.oneof_decl.add(name="_" + f.name)

        def msg(t: Any, seen: Any = seen, fd: Any = fd, pre: str = sv + me) -> str:
            if t.cls not in seen:
                n = pre + t.cls.__name__
                seen[t.cls] = n
                m = fd.message_type.add(name=n)
                fields(m, t.fields)
            return seen[t.cls]

        def top(schema: Any, suffix: str, params: Any, r: Route = r, fd: Any = fd, dot: str = dot, pre: str = sv + me) -> tuple[str, bool]:
            if schema.any or isinstance(schema.declared, dict) or type(schema).__name__ == "ModelSchema":
                t: Any = mi.AnyType()
            else:
                t = mi.type_info(schema.declared)
            if not params and isinstance(t, mi.AnyType):
                return ".google.protobuf.Value", False
            if not params and isinstance(t, (mi.StructType, mi.DataclassType)):
                return dot + msg(t), False
            m = fd.message_type.add(name=pre + suffix)
            wrapped = not isinstance(t, (mi.StructType, mi.DataclassType))
            fs = [mi.Field("value", "value", t)] if wrapped else list(t.fields)
            have = {x.name for x in fs}
            fields(m, fs)
            for p in params:
                if p == "raffel_event_id":
                    f = m.field.add(name=p, number=18999, label=1, type=9, proto3_optional=True, oneof_index=len(m.oneof_decl))
                    m.oneof_decl.add(name="_" + p)
                elif p not in have:
                    m.field.add(name=p, number=len(m.field) + 1, label=1, type=9)
            return dot + pre + suffix, wrapped

        params = [x.text for x in r.segments if x.kind != "literal"]
        i, iw = top(r.input, "Request", params)
        o, ow = top(r.output, "Response", ["raffel_event_id"] if r.meta.resumable and r.kind.writes else [])
        sd = next((x for x in fd.service if x.name == sv), None) or fd.service.add(name=sv)
        sd.method.add(name=me, input_type=i, output_type=o, client_streaming=r.kind.reads, server_streaming=r.kind.writes)
        plan.append((r, f"/{pk + '.' if pk else ''}{sv}/{me}", i[1:], iw, o[1:], ow, params))
    pool = descriptor_pool.DescriptorPool()
    for w in (struct_pb2, timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(w.DESCRIPTOR.serialized_pb)
    for fd in s.files:
        pool.AddSerializedFile(fd.SerializeToString())
    for r, path, i, iw, o, ow, params in plan:
        s.methods[path] = s.by_route[r.name] = method(r, path, GetMessageClass(pool.FindMessageTypeByName(i)), iw, GetMessageClass(pool.FindMessageTypeByName(o)), ow, params)
    return s, []


def ints(m: Any) -> Any:
    if m.DESCRIPTOR.full_name.startswith("google.protobuf"):
        x = MessageToDict(m)
        return nums(x) if m.DESCRIPTOR.name == "Value" else x
    d = {}
    for f in m.DESCRIPTOR.fields:
        if f.has_presence and not m.HasField(f.name):
            continue
        v = getattr(m, f.name)
        if f.message_type:
            v = [ints(x) for x in v] if f.is_repeated else ints(v)
        elif f.is_repeated:
            v = list(v)
        d[f.name] = v
    return d


def nums(x: Any) -> Any:
    if isinstance(x, float) and x.is_integer() and abs(x) <= 2**53:
        return int(x)
    if isinstance(x, dict):
        return {k: nums(v) for k, v in x.items()}
    return [nums(v) for v in x] if isinstance(x, list) else x


def method(r: Route, path: str, I: Any, iw: bool, O: Any, ow: bool, names: list[str]) -> Method:
    def tree(data: bytes) -> Any:
        try:
            return ints(I.FromString(data))
        except DecodeError:
            raise RaffelError("PARSE_ERROR", f"not a {I.DESCRIPTOR.name}") from None

    def decode(data: bytes) -> Any:
        if not data and r.input.any:
            return {}
        t = tree(data)
        p = {}
        if names:
            p = {n: str(t.pop(n)) for n in names if n in t}
        if iw:
            t = t.get("value")
        return r.input.convert(t, p)

    def params(data: bytes) -> Mapping[str, str]:
        try:
            t = tree(data)
        except RaffelError:
            return {}
        return {n: str(t[n]) for n in names if t.get(n)}

    def encode(item: Any) -> bytes:
        t = msgspec.to_builtins(item, str_keys=True)
        if O.DESCRIPTOR.full_name != "google.protobuf.Value" and ow:
            t = {"value": t}
        try:
            return ParseDict(t, O()).SerializeToString()
        except ParseError as e:
            raise RaffelError("OUTPUT_VALIDATION_ERROR", str(e)) from None

    def tag(id: str) -> bytes:
        b = id.encode()
        return b"\xba\xa3\x09" + bytes((len(b) & 127 | 128, len(b) >> 7) if len(b) > 127 else (len(b),)) + b

    return Method(path, r, decode=decode, encode=encode, params=params if names else None, request=I.DESCRIPTOR.full_name.encode(), response=O.DESCRIPTOR.full_name.encode(), tag_event_id=tag if "raffel_event_id" in O.DESCRIPTOR.fields_by_name else None)
