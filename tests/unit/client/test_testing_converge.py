"""The laws of kvclient.testing.converge."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kvclient import errors
from kvclient.convergence import Convergence
from kvclient.results import Explain, Record, ReplicaReport
from kvclient.testing import converge
from kvclient.testing.converge import agree, wait_converged

IDS = ("n1", "n2", "n3")
KEYS = [("default", "a"), ("default", "b")]


def report(*versions: str, answer: str = "record", is_primary: bool = True) -> ReplicaReport:
    return ReplicaReport("n1", answer, 1.0, versions, "", True, is_primary, "ok")


@pytest.mark.parametrize(
    ("replicas", "is_so"),
    [
        ([report("a:1"), report("a:1"), report("a:1")], True),
        ([report("a:1", "b:1"), report("b:1", "a:1")], True),
        ([report(answer="absent"), report(answer="absent")], True),
        ([report("a:1"), report("a:2")], False),
        ([report("a:1"), report(answer="absent")], False),
        ([report("a:1"), report("a:1", answer="unreached")], False),
        ([report("a:1"), report(answer="pending")], False),
        ([report("a:1"), report("a:2", is_primary=False)], True),
        ([], False),
    ],
)
def test_owners_agree_if_all_have_answered_the_same(
    replicas: list[ReplicaReport], is_so: bool
) -> None:
    assert agree(replicas) == is_so


class Client:
    """Answers each read of a key with the next of its answers, the last one for good."""

    topology = SimpleNamespace(keyspaces={"default": SimpleNamespace(n=3)}, members=IDS)

    def __init__(self, *, silent: tuple[str, ...] = IDS, **answers: list[object]) -> None:
        self.silent = silent
        self.answers = answers
        self.asked: list[str] = []
        self.waited: list[float] = []

    async def convergence(self) -> Convergence:
        return Convergence(silent=self.silent)

    async def wait_converged(self, timeout: float) -> None:  # noqa: ASYNC109 (likewise)
        self.waited.append(timeout)

    def keyspace(self, name: str) -> Client:
        return self

    async def get_record(self, key: str, *, r: int, explain: bool, timeout: float) -> Record:  # noqa: ASYNC109 (the client's interface)
        assert (r, explain) == (3, True)
        self.asked.append(key)
        left = self.answers[key]
        answer: Any = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, errors.KVError):
            raise answer
        return Record(b"", b"", 0, explain=Explain("", answer, ()))


SAME = (report("a:1"), report("a:1"))
OTHER = (report("a:1"), report("a:2"))


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "_PAUSE_S", 0.0)


def test_only_keys_that_differed_are_read_again() -> None:
    client = Client(a=[SAME], b=[OTHER, errors.Unavailable("no"), SAME])
    took_s = asyncio.run(wait_converged(client, KEYS, 10.0))  # type: ignore[arg-type]
    assert took_s is not None
    assert client.asked == ["a", "b", "b", "b"]


def test_what_never_agrees_has_not_converged() -> None:
    client = Client(a=[SAME], b=[OTHER])
    assert asyncio.run(wait_converged(client, KEYS, 0.05)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("silent", [(), ("n2",)])
def test_nodes_that_can_tell_are_asked_instead(silent: tuple[str, ...]) -> None:
    client = Client(silent=silent, a=[OTHER], b=[OTHER])
    assert asyncio.run(wait_converged(client, KEYS, 7.0)) is not None  # type: ignore[arg-type]
    assert (client.waited, client.asked) == ([7.0], [])
