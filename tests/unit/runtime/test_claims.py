"""What is remembered of lives, and which claimant must go: by words alone, without any network."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvnode.core.topology import NodeId
from kvnode.runtime import claims
from kvnode.runtime.claims import NOBODY, Life
from kvproto import kv_pb2, peer_pb2
from tests.unit.runtime.builders import Site, run

HERE = f"{'a' * 32} box:/data/n2"
THERE = f"{'b' * 32} box:/copy"
KNOWN = Life(5, 22, 1_795_000_000_000, HERE)


def hello(**said: Any) -> peer_pb2.Hello:
    fields: dict[str, Any] = {"incarnation": 33, "start_number": 5, "place": THERE}
    return peer_pb2.Hello(node="n2", **(fields | said))


@pytest.mark.parametrize("start", [1, 5])
def test_a_claim_from_elsewhere_without_a_higher_start_must_go(start: int) -> None:
    why = claims.judge("n2", KNOWN, hello(start_number=start))
    assert "n2 is held by a life at box:/data/n2" in why
    assert "start 5, incarnation 0000000000000016, since 2026-11-18 11:06:40 UTC" in why
    assert f"at box:/copy, is only start {start}" in why
    assert "--restored" in why
    assert "\n" not in why


@pytest.mark.parametrize(
    "said",
    [
        {"start_number": 6},
        {"place": f"{'a' * 32} renamed:/data/n2"},
        {"place": ""},
        {"incarnation": 22},
        {"restored": True},
    ],
    ids=["moved", "restored in its place", "says no place", "itself", "vouched for"],
)
def test_every_other_claim_may_stay(said: dict[str, Any]) -> None:
    assert claims.judge("n2", KNOWN, hello(**said)) == ""


@pytest.mark.parametrize(
    ("said", "is_beside", "is_asked"),
    [
        ({"incarnation": 22}, True, False),
        ({"start_number": 6, "place": HERE}, False, False),
        ({"start_number": 6, "place": HERE}, True, True),
        ({"start_number": 6}, False, True),
        ({}, False, True),
    ],
    ids=["itself", "a restart", "a restart beside", "a move", "a copy"],
)
def test_it_is_asked_who_answers_of_whoever_may_be_a_copy(
    said: dict[str, Any], is_beside: bool, is_asked: bool
) -> None:
    claim = hello(**said)
    why = claims.question("n2", KNOWN, claim, is_beside=is_beside)
    assert (why is not None) == is_asked
    assert not is_asked or why == claims.judge("n2", KNOWN, claim)


def test_of_a_stranger_every_claim_may_stay() -> None:
    assert claims.judge("n2", NOBODY, hello(start_number=1)) == ""


def test_a_life_is_remembered_as_it_said() -> None:
    for life in (KNOWN, KNOWN._replace(place=""), KNOWN._replace(place="ü" * 100)):
        assert claims.unpack(life.pack()) == life


def test_what_an_older_version_remembered_has_no_place() -> None:
    assert claims.unpack(struct.pack("<QQ", 5, 22)) == Life(5, 22, 0, "")


def test_a_place_is_a_machine_and_a_real_path(tmp_path: Path) -> None:
    machine, other = tmp_path / "id", tmp_path / "other-id"
    machine.write_text("one\n")
    other.write_text("two\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")

    def place(name: str, *ids: Path) -> str:
        return claims.place_of(tmp_path / name, machine_ids=ids)

    assert place("data", machine) == place("data", machine)
    assert place("data", machine).endswith(f":{tmp_path / 'data'}")
    assert not claims.is_elsewhere(place("data", machine), place("link", machine))
    assert claims.is_elsewhere(place("data", machine), place("data2", machine))
    assert claims.is_elsewhere(place("data", machine), place("data", other))
    assert place("data", tmp_path / "missing", machine) == place("data", machine)


def test_a_place_is_never_longer_than_its_bound(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 4)
    assert len(claims.place_of(deep)) == 512
    assert len(claims.claim_of(hello(place="x" * 9_999)).place) == 512


class _Status(grpc.GenericRpcHandler):
    """Answers GetStatus with what a test chose."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def service(self, handler_call_details: Any) -> Any:
        async def give(_: bytes, __: Any) -> bytes:
            return self.answer

        is_asked = handler_call_details.method == "/kvnode.v1.Cluster/GetStatus"
        return grpc.unary_unary_rpc_method_handler(give) if is_asked else None


@pytest.mark.parametrize("is_sound", [True, False], ids=["status", "garbage"])
def test_who_answers_is_asked_over_a_new_connection(is_sound: bool) -> None:
    sound = kv_pb2.Status(node="n2", incarnation=22).SerializeToString()
    status = _Status(sound if is_sound else b"\xff")

    async def test() -> None:
        async with Site() as site:
            site.server.add_generic_rpc_handlers((status,))
            address = f"127.0.0.1:{site.port}"
            assert await claims.who_answers(address, NodeId("n2")) == (22 if is_sound else 0)
            assert await claims.who_answers(address, NodeId("n3")) == 0
        assert await claims.who_answers(address, NodeId("n2")) == 0

    run(test)
