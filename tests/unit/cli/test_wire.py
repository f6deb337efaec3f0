"""Dead and silent nodes do not hold up a question to all."""

from __future__ import annotations

import socket
import time

from kvnode.cli import wire
from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.fakes import FakeNode


def test_those_that_live_answer_and_the_others_cost_one_time_out() -> None:
    status = kv_pb2.Status(node="n1", pid=7)
    with FakeNode(status) as node, socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = f"127.0.0.1:{deaf.getsockname()[1]}"
        dead = f"127.0.0.1:{free_base(1)}"
        began = time.monotonic()
        answers = wire.statuses([node.address, silent, dead])
        assert time.monotonic() - began < wire.ANSWER_S + 1.0
        assert answers[node.address] == status
        assert answers[dead] == wire.REFUSED
        assert answers[silent] in {wire.SILENT, wire.REFUSED}


def test_the_newest_topology_wins() -> None:
    with (
        FakeNode(topology=kv_pb2.Topology(epoch=3)) as old,
        FakeNode(topology=kv_pb2.Topology(epoch=9)) as new,
    ):
        found = wire.topology([old.address, new.address])
        assert found is not None
        assert found.epoch == 9
    assert wire.topology([f"127.0.0.1:{free_base(1)}"]) is None


def test_an_error_is_told_by_name() -> None:
    with FakeNode() as node:
        request = kv_pb2.GetStatusRequest()
        answers = wire.ask_all([node.address], "NoSuch", request, kv_pb2.Status.FromString)
    assert str(answers[node.address]).startswith("UNIMPLEMENTED")
