"""How much of a test runs."""

from __future__ import annotations

import pytest

from tests.support.scale import SHARE, VARIABLE, lasting, scaled


@pytest.mark.parametrize(("setting", "times"), [(None, 2), ("", 2), ("0", 2), ("1", 9)])
def test_full_figures_run_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, times: int
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if setting is not None:
        monkeypatch.setenv(VARIABLE, setting)
    assert scaled(2, soak=9) == times


@pytest.mark.parametrize(
    ("setting", "share", "seconds"),
    [("0", "1", 6), ("0", "0.1", 6), ("1", "1", 600), ("1", "0.3", 180), ("1", "0.001", 6)],
)
def test_a_share_shortens_a_soak_and_never_below_what_ci_does(
    monkeypatch: pytest.MonkeyPatch, setting: str, share: str, seconds: int
) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    monkeypatch.setenv(SHARE, share)
    assert lasting(6, soak_s=600) == seconds
