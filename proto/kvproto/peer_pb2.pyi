from kvproto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WriteKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE: _ClassVar[WriteKind]
    REPAIR: _ClassVar[WriteKind]

class ReplyStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DONE: _ClassVar[ReplyStatus]
    ABSTAINED: _ClassVar[ReplyStatus]
    REFUSED_FULL: _ClassVar[ReplyStatus]
    REFUSED_LOAD: _ClassVar[ReplyStatus]
    REFUSED_LATE: _ClassVar[ReplyStatus]
    REFUSED_SKEW: _ClassVar[ReplyStatus]
    REFUSED_INVALID: _ClassVar[ReplyStatus]
    UNPROVEN: _ClassVar[ReplyStatus]
WRITE: WriteKind
REPAIR: WriteKind
DONE: ReplyStatus
ABSTAINED: ReplyStatus
REFUSED_FULL: ReplyStatus
REFUSED_LOAD: ReplyStatus
REFUSED_LATE: ReplyStatus
REFUSED_SKEW: ReplyStatus
REFUSED_INVALID: ReplyStatus
UNPROVEN: ReplyStatus

class PeerFrame(_message.Message):
    __slots__ = ("format", "cluster", "epoch", "hlc", "trace", "identity", "hello", "heartbeat", "writes", "write_replies", "reads", "read_replies", "forwards", "forward_results", "forward_failures", "topology")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HLC_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    WRITE_REPLIES_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    READ_REPLIES_FIELD_NUMBER: _ClassVar[int]
    FORWARDS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_RESULTS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FAILURES_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster: bytes
    epoch: int
    hlc: int
    trace: bytes
    identity: bytes
    hello: Hello
    heartbeat: Heartbeat
    writes: ReplicaWrites
    write_replies: ReplicaWriteReplies
    reads: ReplicaReads
    read_replies: ReplicaReadReplies
    forwards: Forwards
    forward_results: _kv_pb2.PutResults
    forward_failures: _containers.RepeatedCompositeFieldContainer[_kv_pb2.Failure]
    topology: _kv_pb2.Topology
    def __init__(self, format: _Optional[int] = ..., cluster: _Optional[bytes] = ..., epoch: _Optional[int] = ..., hlc: _Optional[int] = ..., trace: _Optional[bytes] = ..., identity: _Optional[bytes] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., writes: _Optional[_Union[ReplicaWrites, _Mapping]] = ..., write_replies: _Optional[_Union[ReplicaWriteReplies, _Mapping]] = ..., reads: _Optional[_Union[ReplicaReads, _Mapping]] = ..., read_replies: _Optional[_Union[ReplicaReadReplies, _Mapping]] = ..., forwards: _Optional[_Union[Forwards, _Mapping]] = ..., forward_results: _Optional[_Union[_kv_pb2.PutResults, _Mapping]] = ..., forward_failures: _Optional[_Iterable[_Union[_kv_pb2.Failure, _Mapping]]] = ..., topology: _Optional[_Union[_kv_pb2.Topology, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node", "incarnation", "start_number", "known_start", "wall_ms", "refused", "reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    START_NUMBER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_START_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: int
    start_number: int
    known_start: int
    wall_ms: int
    refused: bool
    reason: str
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[int] = ..., start_number: _Optional[int] = ..., known_start: _Optional[int] = ..., wall_ms: _Optional[int] = ..., refused: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("wall_ms", "coordinating", "draining", "reply")
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    COORDINATING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    wall_ms: int
    coordinating: bool
    draining: bool
    reply: bool
    def __init__(self, wall_ms: _Optional[int] = ..., coordinating: _Optional[bool] = ..., draining: _Optional[bool] = ..., reply: _Optional[bool] = ...) -> None: ...

class ReplicaWrites(_message.Message):
    __slots__ = ("id", "key", "record", "timeout_ms", "kind", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    record: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    kind: _containers.RepeatedScalarFieldContainer[int]
    version: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., record: _Optional[_Iterable[bytes]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., kind: _Optional[_Iterable[int]] = ..., version: _Optional[_Iterable[int]] = ...) -> None: ...

class ReplicaWriteReplies(_message.Message):
    __slots__ = ("id", "status", "record")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    status: _containers.RepeatedScalarFieldContainer[int]
    record: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., status: _Optional[_Iterable[int]] = ..., record: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReplicaReads(_message.Message):
    __slots__ = ("id", "key", "timeout_ms", "watermark")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    watermark: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., watermark: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReplicaReadReplies(_message.Message):
    __slots__ = ("id", "status", "record", "covers")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    COVERS_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    status: _containers.RepeatedScalarFieldContainer[int]
    record: _containers.RepeatedScalarFieldContainer[bytes]
    covers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., status: _Optional[_Iterable[int]] = ..., record: _Optional[_Iterable[bytes]] = ..., covers: _Optional[_Iterable[int]] = ...) -> None: ...

class Forwards(_message.Message):
    __slots__ = ("keyspaces", "puts")
    KEYSPACES_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    keyspaces: _containers.RepeatedScalarFieldContainer[str]
    puts: _kv_pb2.Puts
    def __init__(self, keyspaces: _Optional[_Iterable[str]] = ..., puts: _Optional[_Union[_kv_pb2.Puts, _Mapping]] = ...) -> None: ...
