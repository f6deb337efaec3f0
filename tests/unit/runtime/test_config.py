"""cluster.toml: what is read from it, every way in which it is refused, and what is written."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.bounds import Limits
from kvnode.core.topology import Durability, Keyspace, Resolve
from kvnode.runtime.config import (
    ClusterConfig,
    ConfigError,
    NodeConfig,
    default_config,
    load,
    parse,
    render,
    render_defaults,
    topology_at_birth,
)
from kvnode.runtime.config_keys import CLUSTER, KEYSPACE, LIMITS, NODE
from kvnode.runtime.settings import NODE_ID, REQUIRED, Setting

ROOT = Path(__file__).resolve().parents[3]

THREE = """\
[[node]]
id = "n1"
address = "127.0.0.1:7001"
[[node]]
id = "n2"
address = "127.0.0.1:7002"
[[node]]
id = "n3"
address = "127.0.0.1:7003"
"""  # nine lines: what a test adds begins in line 10


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text)
    return str(error.value)


# --- what is read ---------------------------------------------------------------------------------


def test_everything_in_a_file_is_read() -> None:
    config = parse("""
[cluster]
name = "shop"
partitions = 64
[[node]]
id = "a"
address = "[::1]:7001"
rack = "east"
weight = 2
data = "/mnt/a"
[[node]]
id = "b"
address = "localhost:7001"
[keyspace.carts]
n = 2
r = 1
w = 2
sloppy = false
resolve = "siblings"
ttl = 60
durability = "periodic"
[limits]
timeout_ms = 100
flush_after_ms = 1.5
""")
    carts = Keyspace(
        name="carts",
        n=2,
        r=1,
        w=2,
        sloppy=False,
        resolve=Resolve.SIBLINGS,
        ttl_s=60,
        durability=Durability.PERIODIC,
    )
    assert config == ClusterConfig(
        name="shop",
        partitions=64,
        nodes=(
            NodeConfig(id="a", address="[::1]:7001", rack="east", weight=2, data="/mnt/a"),
            NodeConfig(id="b", address="localhost:7001"),
        ),
        keyspaces=(Keyspace(name="default", n=2, r=2, w=2), carts),
        limits=Limits(timeout_ms=100, flush_after_ms=1.5),
    )


def test_a_file_with_nodes_alone_gets_the_defaults() -> None:
    config = parse(THREE)
    assert (config.name, config.partitions) == ("kvnode", 256)
    assert config.keyspaces == (Keyspace(name="default", n=3, r=2, w=2),)
    assert config.limits == Limits()
    assert config.warnings == ()


def test_the_default_keyspace_comes_first_wherever_it_stands() -> None:
    config = parse(THREE + "[keyspace.b]\n[keyspace.default]\nr = 3\n[keyspace.a]\n")
    assert [keyspace.name for keyspace in config.keyspaces] == ["default", "b", "a"]
    assert config.keyspaces[0].r == 3


@pytest.mark.parametrize(("nodes", "n", "majority"), [(1, 1, 1), (2, 2, 2), (3, 3, 2), (9, 3, 2)])
def test_a_keyspace_without_n_fits_a_small_cluster(nodes: int, n: int, majority: int) -> None:
    (keyspace,) = default_config(nodes).keyspaces
    assert (keyspace.n, keyspace.r, keyspace.w) == (n, majority, majority)


def test_quorums_that_are_not_given_are_majorities_of_n() -> None:
    config = parse(render(default_config(5)).replace("n = 3\nr = 2\nw = 2", "n = 5"))
    assert (config.keyspaces[0].r, config.keyspaces[0].w) == (3, 3)


def test_small_quorums_are_allowed_with_a_warning() -> None:
    config = parse(THREE + "[keyspace.fast]\nr = 1\nw = 2\n")
    (warning,) = config.warnings
    assert warning == (
        "keyspace fast: r + w is 3, not more than n, 3: "
        "a read may miss the newest acknowledged write"
    )


def test_a_keyspace_may_have_any_printable_name() -> None:
    assert parse(THREE + '[keyspace."körbe und mehr"]\n').keyspaces[1].name == "körbe und mehr"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("added", "text"),
    [
        ("[limits]\ntimeout_ms = = 3\n", "11:14: not valid TOML: invalid value"),
        (
            "[limit]\ntimeout_ms = 3\n",
            '10: top level: unknown key "limit": did you mean "limits"?',
        ),
        (
            "[zzz]\n",
            '10: top level: unknown key "zzz": known are cluster, node, keyspace, limits',
        ),
        (
            "[limits]\ntimeout = 3\n",
            '11: [limits]: unknown key "timeout": did you mean "timeout_ms"?',
        ),
        ("[cluster]\nnmae = 'x'\n", '11: [cluster]: unknown key "nmae": did you mean "name"?'),
        ("wieght = 2\n", '10: node n3: unknown key "wieght": did you mean "weight"?'),
        (
            "[keyspace.a]\nsloopy = true\n",
            '11: keyspace a: unknown key "sloopy": did you mean "sloppy"?',
        ),
        (
            "weight = nan\n",
            "10: node n3: weight must be a number from 0.001 to 1000, not nan",
        ),
        ("weight = inf\n", "10: node n3: weight must be a number from 0.001 to 1000, not inf"),
        ("weight = -1\n", "10: node n3: weight must be a number from 0.001 to 1000, not -1"),
        ('weight = "2"\n', '10: node n3: weight must be a number from 0.001 to 1000, not "2"'),
        ("rack = 3\n", "10: node n3: rack must be printable text of 1 to 64 bytes, not 3"),
        ("data = ''\n", '10: node n3: data must be printable text of 1 to 4096 bytes, not ""'),
        (
            "[cluster]\npartitions = 100\n",
            "11: [cluster]: partitions must be a power of two from 1 to 65536, not 100",
        ),
        (
            "[cluster]\npartitions = -256\n",
            "11: [cluster]: partitions must be a power of two from 1 to 65536, not -256",
        ),
        (
            "[limits]\ntimeout_ms = -5\n",
            "11: [limits]: timeout_ms must be a whole number from 10 to 600000, not -5",
        ),
        (
            "[limits]\ntimeout_ms = 5.0\n",
            "11: [limits]: timeout_ms must be a whole number from 10 to 600000, not 5.0",
        ),
        (
            "[limits]\nflush_after_ms = nan\n",
            "11: [limits]: flush_after_ms must be a number from 0 to 100, not nan",
        ),
        (
            "[keyspace.a]\nr = 'two'\n",
            '11: keyspace a: r must be a whole number from 1 to 32, not "two"',
        ),
        ("[keyspace.a]\nw = 0\n", "11: keyspace a: w must be a whole number from 1 to 32, not 0"),
        (
            "[keyspace.a]\nn = true\n",
            "11: keyspace a: n must be a whole number from 1 to 32, not true",
        ),
        ("[keyspace.a]\nsloppy = 1\n", "11: keyspace a: sloppy must be true or false, not 1"),
        (
            "[keyspace.a]\nttl = 0\n",
            "11: keyspace a: ttl must be a whole number from 1 to 315360000, not 0",
        ),
        (
            "[keyspace.a]\nresolve = 'vote'\n",
            '11: keyspace a: resolve must be one of "majority", "newest", "siblings", not "vote"',
        ),
        (
            "[keyspace.a]\ndurability = 'none'\n",
            '11: keyspace a: durability must be one of "fsync", "periodic", not "none"',
        ),
        ("[keyspace.a]\nw = 4\n", "11: keyspace a: w is 4, more than its n, 3"),
        ("[keyspace.a]\nn = 2\nr = 3\n", "12: keyspace a: r is 3, more than its n, 2"),
        ("[keyspace.a]\nn = 4\n", "11: keyspace a: n is 4, more than the number of nodes, 3"),
        (
            '[keyspace."a\\u001b"]\n',
            '10: a keyspace\'s name must be printable text of 1 to 64 bytes, not "a\\x1b"',
        ),
        ("[keyspace]\nn = 3\n", "10: keyspaces have names: write [keyspace.NAME]"),
        ("[[limits]]\n", " [limits] must be a table, not a list"),
        (
            '[[node]]\nid = "n1"\naddress = "h:1"\n',
            '11: two nodes have the id "n1": it stands here and in line 2',
        ),
        (
            '[[node]]\nid = "n4"\naddress = "127.0.0.1:7002"\n',
            '12: two nodes have the address "127.0.0.1:7002": it stands here and in line 6',
        ),
        (
            '[[node]]\nid = "n4"\naddress = "::1:7001"\n',
            '12: node n4: address "::1:7001": an IPv6 address is written in brackets: "[::1]:7001"',
        ),
        (
            '[[node]]\nid = "n4"\naddress = "here"\n',
            '12: node n4: address "here": write it as "host:port"',
        ),
        (
            '[[node]]\nid = "n4"\naddress = 7001\n',
            '12: node n4: address must be "host:port" with a port from 1 to 64535, not 7001',
        ),
        ('[[node]]\nid = "n4"\n', "10: node n4: address is missing"),
        ('[[node]]\naddress = "h:1"\n', "10: node 4 of the list: id is missing"),
        (
            '[[node]]\nid = "../x"\naddress = "h:1"\n',
            f'11: node 4 of the list: id must be {NODE_ID.words}, not "../x"',
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place_and_what_would_be_right(
    added: str, text: str
) -> None:
    assert refusal(THREE + added) == f"cluster.toml:{text}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "cluster.toml: a cluster has 1 to 1000 nodes, each a [[node]], not 0"),
        (
            '[node]\nid = "a"\n',
            "cluster.toml:1: node is a list: write [[node]], once for each node",
        ),
        (
            "a = " + "[" * 10_000,
            "cluster.toml: cannot be read: too deeply nested",
        ),
        (
            "a = " + "9" * 10_000,
            "cluster.toml: cannot be read: a number is too long",
        ),
        (
            "cluster.partitions = 0x" + "f" * 10_000,
            "cluster.toml: [cluster]: partitions must be a power of two from 1 to 65536, not huge",
        ),
        ("node = [3]\n", "cluster.toml: node 1 of the list must be a table, not 3"),
        ("node = [[]]\n", "cluster.toml: node 1 of the list must be a table, not a list"),
        (
            'node = [{id="a", address="h:1"}, {id="a", address="h:2"}]\n',
            'cluster.toml: two nodes have the id "a": it stands here and at node 1 of the list',
        ),
    ],
)
def test_a_file_of_another_shape_is_refused_too(content: str, text: str) -> None:
    assert refusal(content) == text


def outcome(content: str) -> str:
    try:
        parse(content)
    except ConfigError as error:
        return str(error)
    return "cluster.toml: fine"


@given(st.text(max_size=60))
def test_whatever_the_text_the_answer_is_a_cluster_or_a_refusal(text: str) -> None:
    assert outcome(text).startswith("cluster.toml:")
    assert outcome(THREE + text).startswith("cluster.toml:")


# --- what is written ------------------------------------------------------------------------------


def test_a_default_cluster_has_consecutive_ports_of_this_machine() -> None:
    config = default_config(3, 9001, "mine")
    assert config.name == "mine"
    assert [(node.id, node.address) for node in config.nodes] == [
        ("n1", "127.0.0.1:9001"),
        ("n2", "127.0.0.1:9002"),
        ("n3", "127.0.0.1:9003"),
    ]


@pytest.mark.parametrize(
    ("nodes", "port", "text"),
    [
        (0, 7001, "the number of nodes must be from 1 to 1000, not 0"),
        (1001, 7001, "the number of nodes must be from 1 to 1000, not 1001"),
        (5, 0, "the first port of 5 nodes must be from 1 to 64531, not 0"),
        (5, 64532, "the first port of 5 nodes must be from 1 to 64531, not 64532"),
    ],
)
def test_a_default_cluster_must_have_room_for_its_ports(nodes: int, port: int, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        default_config(nodes, port)


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=10)


@given(names, names, st.floats(0.001, 1000), st.none() | st.integers(1, 10**6))
def test_what_is_written_reads_back_as_the_same(
    name: str, rack: str, weight: float, ttl_s: int | None
) -> None:
    config = dataclasses.replace(
        default_config(3),
        name=name,
        nodes=(
            NodeConfig(id="a", address="h:1", rack=rack, weight=weight, data=f'/x "{rack}"\\y'),
            *default_config(2).nodes,
        ),
        keyspaces=(Keyspace(name="default"), Keyspace(name=f"{name}+", n=3, r=1, ttl_s=ttl_s)),
        limits=Limits(timeout_ms=77, flush_after_ms=0.25),
    )
    assert parse(render(config)) == config


def test_a_written_file_leaves_unchanged_limits_to_the_program() -> None:
    assert "[limits]" not in render(default_config())


def test_the_documented_defaults_are_the_defaults() -> None:
    text = render_defaults()
    assert parse(text) == default_config()
    # And so they are when every comment that shows a default is put into force.
    assert parse(re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)) == default_config()


@pytest.mark.parametrize("each", [*CLUSTER, *NODE, *KEYSPACE, *LIMITS], ids=lambda each: each.key)
def test_every_key_is_documented_with_its_kind_unit_and_default(each: Setting) -> None:
    words = " ".join(line.lstrip("# ") for line in render_defaults().splitlines())
    assert each.doc in words
    assert f"It is {each.kind.words}." in words
    assert re.search(rf"\b{each.key} = ", words) or each.default is None
    assert each.default in (REQUIRED, None) or each.kind.allows(each.default)


def test_every_limit_can_be_set() -> None:
    assert [each.key for each in LIMITS] == [each.name for each in dataclasses.fields(Limits)]


def test_no_line_of_the_documented_defaults_is_too_wide_to_read() -> None:
    assert max(map(len, render_defaults().splitlines())) <= 100


def test_the_file_at_the_top_is_the_default_cluster_of_five() -> None:
    assert load(ROOT / "cluster.toml") == default_config(5)


# --- birth ----------------------------------------------------------------------------------------


def test_nodes_are_numbered_in_the_order_of_the_file_at_birth() -> None:
    config = parse(THREE.replace("n2", "zz") + "rack = 'west'\nweight = 2\n[keyspace.a]\nn = 1\n")
    born = topology_at_birth(config, b"c" * 16)
    assert [(member.number, member.id) for member in born.members] == [
        (1, "n1"),
        (2, "zz"),
        (3, "n3"),
    ]
    assert (born.epoch, born.name, born.partitions) == (1, "kvnode", 256)
    assert (born.members[2].rack, born.members[2].weight) == ("west", 2)
    assert born.members[0].address == "127.0.0.1:7001"
    assert born.keyspaces == config.keyspaces
    assert all(len(row) == 3 for row in born.owner_numbers)
