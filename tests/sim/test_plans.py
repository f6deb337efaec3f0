"""Laws of plans: they survive their text, and items do not disturb one another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.generate import generate
from tests.sim.plan import Plan


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_survives_its_text(seed: int) -> None:
    plan = generate(seed)

    assert Plan.from_json(plan.to_json()) == plan


def test_the_same_seed_gives_the_same_plan_and_another_one_does_not() -> None:
    assert generate(7) == generate(7)
    assert generate(7).operations != generate(8).operations


def test_a_plan_may_be_asked_for_with_other_nodes_and_another_rate() -> None:
    drawn, asked = generate(7), generate(7, nodes=5, rate=3)

    begun = [item for item in asked.operations if item.at_us < asked.safety_us]
    assert (asked.nodes, len(begun)) == (5, 3 * asked.safety_us // 1_000_000)
    assert (asked.safety_us, asked.clients) == (drawn.safety_us, drawn.clients)


def test_a_plan_may_be_asked_for_with_usual_settings() -> None:
    drawn, asked = generate(7), generate(7, is_usual=True)

    assert drawn.limits
    assert asked == replace(drawn, limits={}, knobs={})


def test_a_plan_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        Plan.from_json('{"format": 99}')


def test_items_are_left_out_by_name() -> None:
    plan = generate(7)

    fewer = plan.without(["o1", "f0"])

    assert set(plan.items()) - set(fewer.items()) == {"o1", "f0"}
    assert plan.only(["o1", "f0"]).items() == ["o1", "f0"]
