from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Flag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLAG_NONE: _ClassVar[Flag]
    GET_EXPLAIN: _ClassVar[Flag]
    PUT_DELETE: _ClassVar[Flag]
    PUT_EXPLICIT: _ClassVar[Flag]

class Confidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGREED: _ClassVar[Confidence]
    VOTED: _ClassVar[Confidence]
    PROVISIONAL: _ClassVar[Confidence]
    NEWEST: _ClassVar[Confidence]
    SIBLINGS: _ClassVar[Confidence]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_UNSPECIFIED: _ClassVar[ErrorCode]
    INVALID_REQUEST: _ClassVar[ErrorCode]
    UNKNOWN_KEYSPACE: _ClassVar[ErrorCode]
    UNAVAILABLE: _ClassVar[ErrorCode]
    UNCERTAIN: _ClassVar[ErrorCode]
    TIMEOUT: _ClassVar[ErrorCode]
    OVERLOADED: _ClassVar[ErrorCode]
    STORAGE_FULL: _ClassVar[ErrorCode]
    CORRUPT_DATA: _ClassVar[ErrorCode]
    UNAUTHENTICATED: _ClassVar[ErrorCode]
    PERMISSION_DENIED: _ClassVar[ErrorCode]
    STALE_EPOCH: _ClassVar[ErrorCode]
    INTERNAL: _ClassVar[ErrorCode]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_NONE: _ClassVar[Outcome]
    NOT_APPLIED: _ClassVar[Outcome]
    UNCERTAIN_OUTCOME: _ClassVar[Outcome]
FLAG_NONE: Flag
GET_EXPLAIN: Flag
PUT_DELETE: Flag
PUT_EXPLICIT: Flag
AGREED: Confidence
VOTED: Confidence
PROVISIONAL: Confidence
NEWEST: Confidence
SIBLINGS: Confidence
ERROR_UNSPECIFIED: ErrorCode
INVALID_REQUEST: ErrorCode
UNKNOWN_KEYSPACE: ErrorCode
UNAVAILABLE: ErrorCode
UNCERTAIN: ErrorCode
TIMEOUT: ErrorCode
OVERLOADED: ErrorCode
STORAGE_FULL: ErrorCode
CORRUPT_DATA: ErrorCode
UNAUTHENTICATED: ErrorCode
PERMISSION_DENIED: ErrorCode
STALE_EPOCH: ErrorCode
INTERNAL: ErrorCode
OUTCOME_NONE: Outcome
NOT_APPLIED: Outcome
UNCERTAIN_OUTCOME: Outcome

class GetRequest(_message.Message):
    __slots__ = ("keyspace", "key", "r", "context", "explain")
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    keyspace: str
    key: bytes
    r: int
    context: bytes
    explain: bool
    def __init__(self, keyspace: _Optional[str] = ..., key: _Optional[bytes] = ..., r: _Optional[int] = ..., context: _Optional[bytes] = ..., explain: _Optional[bool] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("found", "value", "context", "timestamp", "confidence", "detail")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    found: bool
    value: bytes
    context: bytes
    timestamp: int
    confidence: Confidence
    detail: Detail
    def __init__(self, found: _Optional[bool] = ..., value: _Optional[bytes] = ..., context: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., confidence: _Optional[_Union[Confidence, str]] = ..., detail: _Optional[_Union[Detail, _Mapping]] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("keyspace", "key", "value", "w", "context", "ttl_ms", "write_id", "timestamp")
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    WRITE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    keyspace: str
    key: bytes
    value: bytes
    w: int
    context: bytes
    ttl_ms: int
    write_id: bytes
    timestamp: int
    def __init__(self, keyspace: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., w: _Optional[int] = ..., context: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ..., write_id: _Optional[bytes] = ..., timestamp: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("keyspace", "key", "w", "context", "write_id", "timestamp")
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    WRITE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    keyspace: str
    key: bytes
    w: int
    context: bytes
    write_id: bytes
    timestamp: int
    def __init__(self, keyspace: _Optional[str] = ..., key: _Optional[bytes] = ..., w: _Optional[int] = ..., context: _Optional[bytes] = ..., write_id: _Optional[bytes] = ..., timestamp: _Optional[int] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("context", "timestamp", "acked_by")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    ACKED_BY_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    timestamp: int
    acked_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, context: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., acked_by: _Optional[_Iterable[str]] = ...) -> None: ...

class PipelineRequest(_message.Message):
    __slots__ = ("format", "epoch", "keyspaces", "gets", "puts", "trace", "identity")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEYSPACES_FIELD_NUMBER: _ClassVar[int]
    GETS_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    format: int
    epoch: int
    keyspaces: _containers.RepeatedScalarFieldContainer[str]
    gets: Gets
    puts: Puts
    trace: bytes
    identity: bytes
    def __init__(self, format: _Optional[int] = ..., epoch: _Optional[int] = ..., keyspaces: _Optional[_Iterable[str]] = ..., gets: _Optional[_Union[Gets, _Mapping]] = ..., puts: _Optional[_Union[Puts, _Mapping]] = ..., trace: _Optional[bytes] = ..., identity: _Optional[bytes] = ...) -> None: ...

class Gets(_message.Message):
    __slots__ = ("id", "key", "keyspace", "context", "watermark", "r", "timeout_ms", "flags")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    keyspace: _containers.RepeatedScalarFieldContainer[int]
    context: _containers.RepeatedScalarFieldContainer[bytes]
    watermark: _containers.RepeatedScalarFieldContainer[bytes]
    r: _containers.RepeatedScalarFieldContainer[int]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    flags: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., keyspace: _Optional[_Iterable[int]] = ..., context: _Optional[_Iterable[bytes]] = ..., watermark: _Optional[_Iterable[bytes]] = ..., r: _Optional[_Iterable[int]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[int]] = ...) -> None: ...

class Puts(_message.Message):
    __slots__ = ("id", "key", "keyspace", "value", "context", "write_id", "timestamp", "expires_ms", "w", "timeout_ms", "flags")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    WRITE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    keyspace: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    context: _containers.RepeatedScalarFieldContainer[bytes]
    write_id: _containers.RepeatedScalarFieldContainer[bytes]
    timestamp: _containers.RepeatedScalarFieldContainer[int]
    expires_ms: _containers.RepeatedScalarFieldContainer[int]
    w: _containers.RepeatedScalarFieldContainer[int]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    flags: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., keyspace: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ..., context: _Optional[_Iterable[bytes]] = ..., write_id: _Optional[_Iterable[bytes]] = ..., timestamp: _Optional[_Iterable[int]] = ..., expires_ms: _Optional[_Iterable[int]] = ..., w: _Optional[_Iterable[int]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[int]] = ...) -> None: ...

class PipelineResponse(_message.Message):
    __slots__ = ("format", "epoch", "hlc", "gets", "puts", "failures", "topology", "draining")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HLC_FIELD_NUMBER: _ClassVar[int]
    GETS_FIELD_NUMBER: _ClassVar[int]
    PUTS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    format: int
    epoch: int
    hlc: int
    gets: GetResults
    puts: PutResults
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    topology: Topology
    draining: bool
    def __init__(self, format: _Optional[int] = ..., epoch: _Optional[int] = ..., hlc: _Optional[int] = ..., gets: _Optional[_Union[GetResults, _Mapping]] = ..., puts: _Optional[_Union[PutResults, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., topology: _Optional[_Union[Topology, _Mapping]] = ..., draining: _Optional[bool] = ...) -> None: ...

class GetResults(_message.Message):
    __slots__ = ("id", "value", "found", "context", "timestamp", "confidence", "details")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    found: _containers.RepeatedScalarFieldContainer[int]
    context: _containers.RepeatedScalarFieldContainer[bytes]
    timestamp: _containers.RepeatedScalarFieldContainer[int]
    confidence: _containers.RepeatedScalarFieldContainer[int]
    details: _containers.RepeatedCompositeFieldContainer[Detail]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ..., found: _Optional[_Iterable[int]] = ..., context: _Optional[_Iterable[bytes]] = ..., timestamp: _Optional[_Iterable[int]] = ..., confidence: _Optional[_Iterable[int]] = ..., details: _Optional[_Iterable[_Union[Detail, _Mapping]]] = ...) -> None: ...

class PutResults(_message.Message):
    __slots__ = ("id", "context", "acked", "newer")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    NEWER_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    context: _containers.RepeatedScalarFieldContainer[bytes]
    acked: _containers.RepeatedScalarFieldContainer[bytes]
    newer: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., context: _Optional[_Iterable[bytes]] = ..., acked: _Optional[_Iterable[bytes]] = ..., newer: _Optional[_Iterable[int]] = ...) -> None: ...

class Detail(_message.Message):
    __slots__ = ("id", "siblings", "votes", "explain", "repair_failed")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FAILED_FIELD_NUMBER: _ClassVar[int]
    id: int
    siblings: _containers.RepeatedCompositeFieldContainer[Sibling]
    votes: _containers.RepeatedCompositeFieldContainer[Vote]
    explain: Explain
    repair_failed: bool
    def __init__(self, id: _Optional[int] = ..., siblings: _Optional[_Iterable[_Union[Sibling, _Mapping]]] = ..., votes: _Optional[_Iterable[_Union[Vote, _Mapping]]] = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., repair_failed: _Optional[bool] = ...) -> None: ...

class Sibling(_message.Message):
    __slots__ = ("actor", "counter", "timestamp", "value", "tombstone", "expires_ms", "won", "write_id")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    WON_FIELD_NUMBER: _ClassVar[int]
    WRITE_ID_FIELD_NUMBER: _ClassVar[int]
    actor: int
    counter: int
    timestamp: int
    value: bytes
    tombstone: bool
    expires_ms: int
    won: bool
    write_id: bytes
    def __init__(self, actor: _Optional[int] = ..., counter: _Optional[int] = ..., timestamp: _Optional[int] = ..., value: _Optional[bytes] = ..., tombstone: _Optional[bool] = ..., expires_ms: _Optional[int] = ..., won: _Optional[bool] = ..., write_id: _Optional[bytes] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("node", "sibling")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SIBLING_FIELD_NUMBER: _ClassVar[int]
    node: str
    sibling: int
    def __init__(self, node: _Optional[str] = ..., sibling: _Optional[int] = ...) -> None: ...

class Explain(_message.Message):
    __slots__ = ("rule", "replicas", "repaired")
    RULE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    rule: str
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaReport]
    repaired: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rule: _Optional[str] = ..., replicas: _Optional[_Iterable[_Union[ReplicaReport, _Mapping]]] = ..., repaired: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplicaReport(_message.Message):
    __slots__ = ("node", "answer", "latency_ms", "versions", "vote", "proven", "primary", "checksum")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    PROVEN_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    node: str
    answer: str
    latency_ms: float
    versions: _containers.RepeatedScalarFieldContainer[str]
    vote: str
    proven: bool
    primary: bool
    checksum: str
    def __init__(self, node: _Optional[str] = ..., answer: _Optional[str] = ..., latency_ms: _Optional[float] = ..., versions: _Optional[_Iterable[str]] = ..., vote: _Optional[str] = ..., proven: _Optional[bool] = ..., primary: _Optional[bool] = ..., checksum: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("id", "code", "outcome", "message", "retry_after_ms", "replies")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    id: int
    code: ErrorCode
    outcome: Outcome
    message: str
    retry_after_ms: int
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    def __init__(self, id: _Optional[int] = ..., code: _Optional[_Union[ErrorCode, str]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("node", "answer", "after_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    answer: str
    after_ms: float
    def __init__(self, node: _Optional[str] = ..., answer: _Optional[str] = ..., after_ms: _Optional[float] = ...) -> None: ...

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Topology(_message.Message):
    __slots__ = ("cluster_id", "name", "epoch", "partitions", "members", "keyspaces", "walk_length", "walk", "next_number")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    KEYSPACES_FIELD_NUMBER: _ClassVar[int]
    WALK_LENGTH_FIELD_NUMBER: _ClassVar[int]
    WALK_FIELD_NUMBER: _ClassVar[int]
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    name: str
    epoch: int
    partitions: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    keyspaces: _containers.RepeatedCompositeFieldContainer[Keyspace]
    walk_length: int
    walk: _containers.RepeatedScalarFieldContainer[int]
    next_number: int
    def __init__(self, cluster_id: _Optional[bytes] = ..., name: _Optional[str] = ..., epoch: _Optional[int] = ..., partitions: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., keyspaces: _Optional[_Iterable[_Union[Keyspace, _Mapping]]] = ..., walk_length: _Optional[int] = ..., walk: _Optional[_Iterable[int]] = ..., next_number: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("id", "number", "address", "rack", "weight", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RACK_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    number: int
    address: str
    rack: str
    weight: float
    state: str
    def __init__(self, id: _Optional[str] = ..., number: _Optional[int] = ..., address: _Optional[str] = ..., rack: _Optional[str] = ..., weight: _Optional[float] = ..., state: _Optional[str] = ...) -> None: ...

class Keyspace(_message.Message):
    __slots__ = ("name", "n", "r", "w", "sloppy", "resolve", "ttl_ms", "durability")
    NAME_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    SLOPPY_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    n: int
    r: int
    w: int
    sloppy: bool
    resolve: str
    ttl_ms: int
    durability: str
    def __init__(self, name: _Optional[str] = ..., n: _Optional[int] = ..., r: _Optional[int] = ..., w: _Optional[int] = ..., sloppy: _Optional[bool] = ..., resolve: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., durability: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("node", "cluster", "epoch", "state", "incarnation", "pid", "version", "records", "bytes", "open_conflicts", "peers", "hlc", "address", "wall_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    HLC_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    cluster: str
    epoch: int
    state: str
    incarnation: int
    pid: int
    version: str
    records: int
    bytes: int
    open_conflicts: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    hlc: int
    address: str
    wall_ms: int
    def __init__(self, node: _Optional[str] = ..., cluster: _Optional[str] = ..., epoch: _Optional[int] = ..., state: _Optional[str] = ..., incarnation: _Optional[int] = ..., pid: _Optional[int] = ..., version: _Optional[str] = ..., records: _Optional[int] = ..., bytes: _Optional[int] = ..., open_conflicts: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ..., hlc: _Optional[int] = ..., address: _Optional[str] = ..., wall_ms: _Optional[int] = ...) -> None: ...

class PeerStatus(_message.Message):
    __slots__ = ("node", "state")
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    node: str
    state: str
    def __init__(self, node: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class ListConflictsRequest(_message.Message):
    __slots__ = ("keyspace", "limit", "after")
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    keyspace: str
    limit: int
    after: bytes
    def __init__(self, keyspace: _Optional[str] = ..., limit: _Optional[int] = ..., after: _Optional[bytes] = ...) -> None: ...

class ListConflictsResponse(_message.Message):
    __slots__ = ("conflicts", "next")
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    next: bytes
    def __init__(self, conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ..., next: _Optional[bytes] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("keyspace", "key", "siblings", "votes")
    KEYSPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    keyspace: str
    key: bytes
    siblings: _containers.RepeatedCompositeFieldContainer[Sibling]
    votes: _containers.RepeatedCompositeFieldContainer[Vote]
    def __init__(self, keyspace: _Optional[str] = ..., key: _Optional[bytes] = ..., siblings: _Optional[_Iterable[_Union[Sibling, _Mapping]]] = ..., votes: _Optional[_Iterable[_Union[Vote, _Mapping]]] = ...) -> None: ...
