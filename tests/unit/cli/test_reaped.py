"""why-not-reaped: what each owner of a deleted key says, put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.conftest import OnTerminal, Run
from tests.unit.cli.fakes import FakeNode
from tests.unit.cli.test_show import topology

Said = kv_pb2.WhyNotReapedResponse


@contextmanager
def owners(*said: Said, dead: int = 0) -> Iterator[str]:
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(FakeNode(more={"WhyNotReaped": lambda _, one=one: one}))  # type: ignore[misc]
            for one in said
        ]
        gone = [f"127.0.0.1:{free_base(1)}" for _ in range(dead)]
        for node in nodes:
            node.topology = topology(*(each.address for each in nodes), *gone)
        yield nodes[0].address


WAITS = Said(
    owner=True,
    state="waits",
    waits_for=[
        kv_pb2.ReapObstacle(node="n3", why="unproven"),
        kv_pb2.ReapObstacle(node="n2", why="its floor is below", lacks=["0a:7 (at 5)"]),
    ],
)


def test_each_owner_is_shown_with_what_it_waits_for(run: Run) -> None:
    with owners(WAITS, Said(owner=True, state="none"), Said(owner=False)) as seed:
        code, out, err = run("why-not-reaped", "k", "--seeds", seed)
    assert (code, err) == (0, "")
    assert [row.split("\t") for row in out.splitlines()] == [
        ["owner", "state", "waits for", "why", "lacks"],
        ["n1", "waits", "n3", "unproven", "-"],
        ["n1", "waits", "n2", "its floor is below", "0a:7 (at 5)"],
        ["n2", "keeps nothing of it", "-", "-", "-"],
    ]


def test_the_verdict_is_told_on_a_terminal(run: Run, on_terminal: OnTerminal) -> None:
    cases = [
        ("none", "it was reaped, or the key was never written"),
        ("value", "nothing to reap: the key has a value"),
        ("ready", "never by a timer"),
    ]
    shown = on_terminal()
    for state, verdict in cases:
        with owners(Said(owner=True, state=state)) as seed:
            run("why-not-reaped", "k", "--seeds", seed)
            assert verdict in shown()


def test_an_owner_that_is_silent_is_named(run: Run) -> None:
    with owners(WAITS, dead=1) as seed:
        code, out, err = run("why-not-reaped", "k", "--seeds", seed)
    assert code == 1
    assert "unproven" in out
    assert err == "kvnode: no answer from n2\n"
