"""repair: begun at every node, watched, cancelled, and what is told at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kvnode.cli import repair
from kvnode.cli.repair import Lines, View
from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.conftest import OnTerminal, Run
from tests.unit.cli.fakes import FakeNode
from tests.unit.cli.test_show import topology


def line(partition: int, peer: str, state: str, differing: int = 0) -> kv_pb2.RepairLine:
    mended = differing if state == "done" else 0
    return kv_pb2.RepairLine(
        partition=partition, peer=peer, state=state, differing=differing, mended=mended
    )


def said(state: str, *lines: kv_pb2.RepairLine) -> kv_pb2.Repair:
    return kv_pb2.Repair(state=state, lines=lines)


class Mender:
    """One node's repair: answers a script, one look after another; the last one again and again."""

    def __init__(self, *looks: kv_pb2.Repair) -> None:
        self.looks = list(looks)
        self.asked: list[str] = []
        self.partitions: list[int] = []

    def more(self) -> dict[str, Callable[[bytes], kv_pb2.Repair]]:
        return {"StartRepair": self._start, "GetRepair": self._get, "CancelRepair": self._cancel}

    def _start(self, data: bytes) -> kv_pb2.Repair:
        self.asked.append("start")
        self.partitions = list(kv_pb2.StartRepairRequest.FromString(data).partitions)
        return self._next()

    def _get(self, _: bytes) -> kv_pb2.Repair:
        self.asked.append("get")
        return self._next()

    def _cancel(self, _: bytes) -> kv_pb2.Repair:
        self.asked.append("cancel")
        return self._next()

    def _next(self) -> kv_pb2.Repair:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


@contextmanager
def cluster(*menders: Mender, dead: int = 0) -> Iterator[str]:
    """Run nodes; yield a seed. The last `dead` members do not listen."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(FakeNode(more=each.more())) for each in menders]
        gone = [f"127.0.0.1:{free_base(1)}" for _ in range(dead)]
        for node in nodes:
            node.topology = topology(*(each.address for each in nodes), *gone)
        yield nodes[0].address


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "POLL_S", 0.001)


def test_it_is_begun_at_every_node_and_watched_to_its_end(run: Run) -> None:
    one = Mender(
        said("running", line(0, "n2", "waiting"), line(1, "n2", "waiting")),
        said("running", line(0, "n2", "running"), line(1, "n2", "done")),
        said("done", line(0, "n2", "done", 12), line(1, "n2", "done")),
    )
    two = Mender(said("done"))
    with cluster(one, two) as seed:
        code, out, err = run("repair", "--seeds", seed)
    assert (code, err) == (0, "")
    assert one.asked == ["start", "get", "get"]
    assert two.asked[0] == "start"
    *table, last = out.splitlines()
    assert [row.split("\t") for row in table] == [
        ["partition", "between", "state", "differing", "mended"],
        ["0", "n1, n2", "done", "12", "12"],
    ]
    assert last.startswith("compared 2 of 2 pairs of copies in 0.")
    assert last.endswith(" s: 12 keys differed, 12 mended")


def test_partitions_are_handed_on_each_once(run: Run) -> None:
    one = Mender(said("done", line(1, "n2", "done")))
    with cluster(one) as seed:
        code, out, _ = run("repair", "--seeds", seed, "--partition", "1", "--partition", "1")
    assert (code, one.partitions) == (0, [1])
    assert out.startswith("compared 1 of 1 pair of copies in ")


def test_a_partition_that_is_none_is_wrong_usage(run: Run) -> None:
    one = Mender(said("done"))
    with cluster(one) as seed:
        code, _, err = run("repair", "--seeds", seed, "--partition", "2")
    assert (code, one.asked) == (2, [])
    assert "--partition: this cluster has 0 to 1" in err


def test_what_waits_for_a_dead_node_is_not_waited_for(run: Run) -> None:
    one = Mender(said("running", line(0, "n2", "waiting"), line(1, "n3", "done")))
    with cluster(one, dead=1) as seed:  # n2 is dead; n3 is somebody else's affair
        code, out, err = run("repair", "--seeds", seed)
    assert code == 1
    assert "compared 1 of 2 pairs of copies" in out
    assert ["0", "n1, n2", "waiting", "0", "0"] in [row.split("\t") for row in out.splitlines()]
    assert err == "kvnode: not reached: n2; it is compared once it is back\n"


def test_a_node_that_has_restarted_is_asked_again(run: Run) -> None:
    one = Mender(
        said("running", line(0, "n2", "waiting")),
        said("none"),
        said("running", line(0, "n2", "waiting")),
        said("done", line(0, "n2", "done")),
    )
    with cluster(one, Mender(said("done"))) as seed:
        assert run("repair", "--seeds", seed)[0] == 0
    assert one.asked == ["start", "get", "start", "get"]


def test_watching_begins_nothing(run: Run) -> None:
    one = Mender(said("running", line(0, "n2", "running")), said("done", line(0, "n2", "done")))
    with cluster(one, Mender(said("none"))) as seed:
        assert run("repair", "--seeds", seed, "--watch")[0] == 0
    assert one.asked == ["get", "get"]


def test_with_nothing_to_watch_it_says_what_begins_one(run: Run) -> None:
    with cluster(Mender(said("none"))) as seed:
        code, _, err = run("repair", "--seeds", seed, "--watch")
    assert code == 1
    assert "no repair is going on: `kvnode repair` begins one" in err


def test_cancelling_tells_how_far_it_was(run: Run) -> None:
    one = Mender(said("cancelled", line(0, "n2", "done"), line(1, "n2", "waiting")))
    with cluster(one) as seed:
        code, out, _ = run("repair", "--seeds", seed, "--cancel")
    assert (code, one.asked) == (0, ["cancel"])
    assert out == "cancelled: 1 of 2 comparisons were done\n"


def test_cancelling_nothing_is_told(run: Run) -> None:
    with cluster(Mender(said("none")), Mender(said("done"))) as seed:
        assert run("repair", "--seeds", seed, "--cancel")[1].startswith("nothing to cancel")


def test_one_that_somebody_cancels_ends_with_how_to_go_on(run: Run) -> None:
    one = Mender(
        said("running", line(0, "n2", "waiting")), said("cancelled", line(0, "n2", "waiting"))
    )
    with cluster(one, Mender(said("done"))) as seed:
        code, _, err = run("repair", "--seeds", seed)
    assert code == 1
    assert "cancelled: `kvnode repair` goes on with it" in err


def test_watching_and_cancelling_at_once_is_wrong_usage(run: Run) -> None:
    assert run("repair", "--watch", "--cancel")[0] == 2


def test_on_a_terminal_a_long_list_is_cut(run: Run, on_terminal: OnTerminal) -> None:
    many = [line(number, "n2", "done", 1) for number in range(50)]
    with cluster(Mender(said("done", *many)), Mender(said("done"))) as seed:
        shown = on_terminal()
        run("repair", "--seeds", seed)
        text = shown()
    assert "and 30 more" in text
    assert "50 keys differed, 50 mended" in text


def test_in_a_pipe_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    view = View.of({"n1": said("running", line(0, "n2", "done", 3), line(1, "n2", "waiting"))})
    Lines(every_s=3600)(view)
    assert capsys.readouterr().err == ""
    Lines(every_s=0)(view)
    assert capsys.readouterr().err == "compared 1 of 2 pairs of copies, 3 keys mended\n"
