"""hints and wait-converged: the ledgers of all nodes together, and what is outstanding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

import kvclient
from kvnode.cli.hints import Lines
from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.conftest import OnTerminal, Run
from tests.unit.cli.fakes import FakeNode


class Asked:
    """Says of hints and convergence what a test has put here."""

    def __init__(self, *ledgers: kv_pb2.HintLedger, root: int = 1) -> None:
        self.hints = kv_pb2.Hints(ledgers=ledgers)
        self.convergence = [
            kv_pb2.Convergence(epoch=1, hints=ledgers, partition=[0, 1], n=[2, 2], root=[root] * 2)
        ]
        """One after another; the last one again and again."""

    def more(self) -> dict[str, Callable[[bytes], kv_pb2.Hints | kv_pb2.Convergence]]:
        return {"GetHints": lambda _: self.hints, "GetConvergence": lambda _: self._next()}

    def _next(self) -> kv_pb2.Convergence:
        return self.convergence.pop(0) if len(self.convergence) > 1 else self.convergence[0]


@contextmanager
def nodes(*asked: Asked, dead: int = 0) -> Iterator[str]:
    """Run nodes that own everything; yield the seeds. The last `dead` members do not listen."""
    with ExitStack() as stack:
        running = [stack.enter_context(FakeNode(more=each.more())) for each in asked]
        ports = [free_base(1) for _ in range(dead)]
        addresses = [node.address for node in running] + [f"127.0.0.1:{p}" for p in ports]
        members = [
            kv_pb2.Member(id=f"n{i}", number=i, address=at) for i, at in enumerate(addresses, 1)
        ]
        numbers = [member.number for member in members[:2]]
        for node in running:
            node.topology = kv_pb2.Topology(
                cluster_id=b"c" * 16, name="far", epoch=1, partitions=2, members=members,
                walk_length=len(numbers), walk=numbers * 2,
                keyspaces=[kv_pb2.Keyspace(name="default", n=2, r=1, w=1)],
            )  # fmt: skip
            node.status = kv_pb2.Status(epoch=1, state="up", hlc=1 << 60)
        yield ",".join(node.address for node in running)


def kept(owner: str, pending: int, **more: object) -> kv_pb2.HintLedger:
    return kv_pb2.HintLedger(owner=owner, pending=pending, **more)  # type: ignore[arg-type]


def test_the_ledgers_of_all_nodes_are_listed_and_the_dead_with_them(run: Run) -> None:
    one = Asked(
        kept("n3", 1_200, bytes=2_000_000, oldest_ms=1, delivered=5, refused=7,
             dropped=[kv_pb2.HintsDropped(why="aged", count=3)])
    )  # fmt: skip
    with nodes(one, Asked(), dead=1) as seeds:
        code, out, said = run("hints", "--seeds", seeds)
    assert (code, said) == (0, "")
    header, first, second, third = (line.split("\t") for line in out.splitlines())
    assert header == [
        "node", "for", "pending", "bytes", "oldest", "delivered", "dropped", "refused"
    ]  # fmt: skip
    assert first[:4] == ["n1", "n3", "1,200", "2.0 MB"]
    assert first[4].endswith(" min " + first[4].split()[-2] + " s")
    assert first[5:] == ["5", "3 aged", "7"]
    assert second == ["n2", "nobody", "-", "-", "-", "-", "-", "-"]
    assert third == ["n3", "no answer", "-", "-", "-", "-", "-", "-"]


def test_programs_get_json_with_null_for_what_is_unknown(run: Run) -> None:
    with nodes(Asked(kept("n2", 2, bytes=10)), dead=1) as seeds:
        shown = json.loads(run("hints", "--seeds", seeds, "--json")[1])
    assert shown == {
        "nodes": [
            {"id": "n1", "hints": [
                {"owner": "n2", "pending": 2, "bytes": 10, "oldest_ms": None, "delivered": 0,
                 "dropped": {}, "refused": 0},
            ]},
            {"id": "n2", "hints": None},
        ]
    }  # fmt: skip


def test_on_a_terminal_the_sum_is_told(run: Run, on_terminal: OnTerminal) -> None:
    with nodes(Asked(kept("n2", 2)), Asked(kept("n1", 1)), dead=1) as seeds:
        shown = on_terminal()
        run("hints", "--seeds", seeds)
        assert "3 hints pending; 1 node did not answer" in shown()


def test_without_a_server_both_say_so(run: Run) -> None:
    for command in ("hints", "wait-converged"):
        code, _, said = run(command, "--seeds", f"127.0.0.1:{free_base(1)}")
        assert code == 1
        assert "no node answers" in said


def test_a_cluster_at_rest_is_told_with_the_time_it_took(run: Run) -> None:
    one = Asked(root=1)
    one.convergence = [Asked(root=2).convergence[0], *one.convergence]
    with nodes(one, Asked(root=1)) as seeds:
        code, out, _ = run("wait-converged", "--seeds", seeds)
    assert code == 0
    assert out.startswith("converged in 0.")


def test_what_is_outstanding_at_the_time_out_is_told_in_one_line(run: Run) -> None:
    with nodes(Asked(kept("n2", 200), root=1), Asked(root=2), dead=1) as seeds:
        code, out, said = run("wait-converged", "--seeds", seeds, "--timeout", "0.5")
    assert (code, out) == (1, "")
    assert said.count("\n") == 1
    assert "not converged within 0.5 s" in said
    assert "no answer from n3" in said
    assert "n1 keeps hints: 200 for n2" in said
    assert "2 partitions differ: 0 (n1 | n2), 1 (n1 | n2)" in said


def test_in_a_pipe_waiting_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    found = kvclient.Convergence(silent=("n2",))
    Lines(every_s=3600)(found)
    assert capsys.readouterr().err == ""
    Lines(every_s=0)(found)
    assert capsys.readouterr().err == "waiting: no answer from n2\n"
