"""Which nodes a command asks, and what it says when nobody is there."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from kvnode.cli import target
from kvnode.cli.arguments import COMMANDS, Arguments, parse
from kvnode.cli.errors import CommandError
from kvnode.cli.local import ClusterError, LocalCluster
from tests.support.nodes import free_base


def arguments(*words: str | Path) -> Arguments:
    return parse("get", COMMANDS["get"], ["k", *map(str, words)])


def test_seeds_win_over_the_folder(cluster: LocalCluster) -> None:
    assert target.addresses_of(arguments("--data", cluster.directory)) == cluster.addresses
    both = arguments("--data", cluster.directory, "--seeds", "a:1")
    assert target.addresses_of(both) == ("a:1",)


def test_no_server_is_told_at_once_with_how_to_start_one(cluster: LocalCluster) -> None:
    began = time.monotonic()
    with pytest.raises(CommandError) as caught:
        target.reachable(arguments("--data", cluster.directory))
    assert time.monotonic() - began < 0.5
    first = cluster.addresses[0]
    assert str(caught.value).startswith(f"no node answers at {first}, ")
    assert str(caught.value).endswith(f"`kvnode up --data {cluster.directory}` starts the cluster")


def test_one_listening_seed_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        live = f"127.0.0.1:{server.getsockname()[1]}"
        dead = f"127.0.0.1:{free_base(1)}"
        assert target.is_anyone_there([dead, "no.such.host.invalid:1", live], timeout_s=5)
        assert not target.is_anyone_there([dead], timeout_s=5)


def test_no_folder_is_told_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="`kvnode up` starts one"):
        target.reachable(arguments("--data", tmp_path))
