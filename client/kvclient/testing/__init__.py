"""A real cluster for the tests of an application, and what can happen to it.

    from kvclient.testing import Cluster

    with Cluster(5) as cluster, cluster.client() as db:
        db.put("k", b"v")
        cluster.kill("n2")
        cluster.partition("halves")
        assert db.get("k") == b"v"
        cluster.heal()

It runs the `kvnode` command as a subprocess and never imports the node. docs/chaos.md tells it all;
the fixture for pytest is in `kvclient.testing.fixture`.
"""

from kvclient.testing.cluster import Cluster
from kvclient.testing.files import KitError
from kvclient.testing.shapes import SHAPES, Flow, flows_cut

__all__ = ["SHAPES", "Cluster", "Flow", "KitError", "flows_cut"]
