"""What a terminal shows and what a pipe gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.cli import terminal
from tests.unit.cli.conftest import OnTerminal


@given(st.binary())
def test_no_control_byte_reaches_a_terminal(data: bytes) -> None:
    assert terminal.printable(data).isprintable()


def test_text_is_shown_as_it_is_and_the_rest_escaped() -> None:
    assert terminal.printable("grün ∎".encode()) == "grün ∎"
    assert terminal.printable(b"\x1b[31mred\x07\xff\x00") == "\\x1b[31mred\\x07\\xff\\x00"
    assert terminal.printable("\u202eabc".encode()) == "\\u202eabc"
    assert terminal.printable(b"a\tb\n", keep="\n\t") == "a\tb\n"


def test_a_value_goes_raw_into_a_pipe(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    terminal.show_value(b"\x1b[0m\xff\n")
    assert capfdbinary.readouterr().out == b"\x1b[0m\xff\n"


def test_a_value_is_escaped_on_a_terminal(on_terminal: OnTerminal) -> None:
    shown = on_terminal()
    terminal.show_value(b"two\nlines\x1b]0;evil\x07")
    assert shown() == "two\nlines\\x1b]0;evil\\x07\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (153_400_000, "153.4 MB"),
     (999_960, "1.0 MB"), (2_500_000_000, "2.5 GB"), (7e15, "7000.0 TB")],
)  # fmt: skip
def test_sizes_are_decimal(number: float, text: str) -> None:
    assert terminal.size(number) == text


def test_durations_and_counts_read_well() -> None:
    assert [terminal.seconds(s) for s in (0.418, 12.34, 125)] == ["0.42 s", "12.3 s", "2 min 5 s"]
    assert [terminal.count(n, "file") for n in (0, 1, 10_132)] == [
        "0 files", "1 file", "10,132 files",
    ]  # fmt: skip
    assert terminal.instant(1_700_000_000_123 << 16 | 5) == "2023-11-14 22:13:20.123Z"


def test_a_table_in_a_pipe_is_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("key", "size"), [["a\tb\nc", "1"], ["d", "22"]], right="size")
    assert capsys.readouterr().out == "key\tsize\na\\tb\\nc\t1\nd\t22\n"


def test_a_table_on_a_terminal_has_columns_and_colours(
    on_terminal: OnTerminal,
) -> None:
    output = on_terminal()
    terminal.table(("node", "state"), [["n1", "up"], ["n2", "[red]down"]], right="state")
    shown = output()
    assert "\x1b[32m" in shown
    assert "[red]down" in shown  # no markup of ours in what others say
