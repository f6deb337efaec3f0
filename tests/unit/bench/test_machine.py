"""Claims about kvnode/bench/machine.py."""

from __future__ import annotations

import json
import sys

from kvnode.bench import machine


def test_a_result_names_machine_versions_and_commit() -> None:
    told = machine.describe("pytest", "no-such-package")
    assert told["python"] == sys.version.split()[0]
    assert told["packages"].keys() == {*machine.PACKAGES, "pytest", "no-such-package"}
    assert told["packages"]["no-such-package"] is None
    assert told["packages"]["pytest"]
    assert told["processors"] >= 1
    assert json.loads(json.dumps(told)) == told
