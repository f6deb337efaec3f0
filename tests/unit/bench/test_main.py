"""Claims about `python -m bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main


def test_a_profile_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "n1.raw"
    profile.write_text("main;work 3\nmain 1\n")
    assert main(["top", str(profile), "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(profile),
        "   own   total  function",
        " 75.0%   75.0%  work",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workload", "putt"], "one of a, b, c, d, e, f, put, get, not putt"),
        (["--systems", "kvnod"], "one of kvnode, "),
        (["--value-bytes", "1GiB"], "expected a size from 1 to 16MiB"),
        (["--in-flight", "16,0"], "a number from 1 up, not 0"),
        (["--durability", "never"], "never"),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", *words])
    assert said in capsys.readouterr().err
