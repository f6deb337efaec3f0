"""How much of a test runs."""

from __future__ import annotations

import pytest

from tests.support.scale import VARIABLE, scaled


@pytest.mark.parametrize(("setting", "times"), [(None, 2), ("", 2), ("0", 2), ("1", 9)])
def test_full_figures_run_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, times: int
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if setting is not None:
        monkeypatch.setenv(VARIABLE, setting)
    assert scaled(2, soak=9) == times
