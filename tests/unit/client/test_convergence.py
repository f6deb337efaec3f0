"""What keeps a cluster from rest, as nodes tell it."""

from __future__ import annotations

import pytest

from kvclient.convergence import Difference, outstanding
from kvclient.routing import KeyspaceSettings, Member, Topology
from kvproto import kv_pb2 as pb

WALKS = ((1, 2, 3), (2, 3, 1))
NODES = ("n1", "n2", "n3")


def topology(*ns: int) -> Topology:
    return Topology(
        cluster_id=b"c" * 16,
        name="test",
        epoch=1,
        partitions=len(WALKS),
        members=tuple(Member(f"n{i}", i, f"h:{i}") for i in (1, 2, 3)),
        keyspaces={f"k{n}": KeyspaceSettings(f"k{n}", n, r=1, w=1) for n in ns or (3,)},
        walks=WALKS,
    )


def says(node: str, *roots: tuple[int, int, int], **more: object) -> pb.Convergence:
    """Return what a node says; roots are (partition, n, root)."""
    partition, n, root = zip(*roots, strict=True) if roots else ((), (), ())
    return pb.Convergence(
        node=node, epoch=1, partition=partition, n=n, root=root, **more  # type: ignore[arg-type]
    )  # fmt: skip


def alike(**more: pb.Convergence | None) -> dict[str, pb.Convergence | None]:
    """Return the answers of three nodes that own the same, but for those named."""
    answers: dict[str, pb.Convergence | None] = {}
    answers |= {node: says(node, (0, 3, 10), (1, 3, 11)) for node in NODES}
    return answers | more


def test_equal_owners_without_hints_are_at_rest() -> None:
    found = outstanding(topology(), alike())
    assert found.is_reached
    assert str(found) == "nothing is outstanding"


def test_a_root_that_differs_names_the_partition_and_the_parties() -> None:
    found = outstanding(topology(), alike(n2=says("n2", (0, 3, 10), (1, 3, 99))))
    assert not found.is_reached
    assert found.differing == (Difference(1, 3, (("n2",), ("n3", "n1"))),)
    assert str(found) == "1 partition differs: 1 (n2 | n3, n1)"


def test_only_owners_of_a_keyspaces_n_are_compared() -> None:
    # With n=2 the third node of a walk owns nothing, and tells no root.
    two = {
        "n1": says("n1", (0, 2, 5), (0, 3, 7), (1, 3, 8)),
        "n2": says("n2", (0, 2, 5), (0, 3, 7), (1, 2, 6), (1, 3, 8)),
        "n3": says("n3", (0, 3, 7), (1, 2, 6), (1, 3, 8)),
    }
    assert outstanding(topology(2, 3), two).is_reached


def test_trees_of_another_n_are_compared_for_themselves() -> None:
    answers = {
        "n1": says("n1", (0, 2, 5), (0, 3, 7), (1, 3, 8)),
        "n2": says("n2", (0, 2, 4), (0, 3, 7), (1, 2, 6), (1, 3, 8)),
        "n3": says("n3", (0, 3, 7), (1, 2, 6), (1, 3, 8)),
    }
    found = outstanding(topology(2, 3), answers)
    assert found.differing == (Difference(0, 2, (("n1",), ("n2",))),)


def test_a_node_that_is_silent_is_outstanding_and_the_others_are_compared() -> None:
    found = outstanding(topology(), alike(n1=None))
    assert found.silent == ("n1",)
    assert found.differing == ()
    assert str(found) == "no answer from n1"


def test_an_owner_that_tells_no_root_of_what_it_owns_differs() -> None:
    found = outstanding(topology(), alike(n3=says("n3", (0, 3, 10))))
    assert [each.partition for each in found.differing] == [1]


def test_pending_hints_are_named_by_node_and_owner() -> None:
    kept = [pb.HintLedger(owner="n2", pending=1_200), pb.HintLedger(owner="n3", delivered=9)]
    found = outstanding(topology(), alike(n1=says("n1", (0, 3, 10), (1, 3, 11), hints=kept)))
    assert found.hints == {"n1": {"n2": 1_200}}
    assert found.pending_hints == 1_200
    assert str(found) == "n1 keeps hints: 1,200 for n2"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"unproven": [0, 1]}, "n2 is unproven in 2 partitions"),
        ({"unknown": [1]}, "n2 rebuilds the trees of 1 partition"),
    ],
)
def test_what_cannot_be_relied_on_is_outstanding(more: dict[str, list[int]], text: str) -> None:
    answers = alike(n2=says("n2", (0, 3, 10), (1, 3, 11), **more))
    found = outstanding(topology(), answers)
    assert not found.is_reached
    assert str(found) == text


def test_a_tree_that_is_being_rebuilt_is_not_compared() -> None:
    found = outstanding(topology(), alike(n2=says("n2", (0, 3, 10), unknown=[1])))
    assert found.differing == ()
    assert found.rebuilding == {"n2": (1,)}


def test_nodes_of_several_epochs_are_not_at_rest() -> None:
    other = says("n3", (0, 3, 10), (1, 3, 11))
    other.epoch = 2
    found = outstanding(topology(), alike(n3=other))
    assert found.epochs == {"n1": 1, "n2": 1, "n3": 2}
    assert not found.is_reached


def test_a_long_list_is_cut_and_its_length_told() -> None:
    wide = Topology(
        cluster_id=b"c" * 16, name="wide", epoch=1, partitions=64,
        members=topology().members, keyspaces=topology().keyspaces, walks=((1, 2),) * 64,
    )  # fmt: skip
    one = says("n1", *((p, 3, 1) for p in range(64)))
    two = says("n2", *((p, 3, 2) for p in range(64)))
    found = outstanding(wide, {"n1": one, "n2": two})
    assert len(found.differing) == 64
    assert str(found).startswith("64 partitions differ: 0 (n1 | n2), 1 (n1 | n2), ")
    assert str(found).endswith(" and 60 more")
