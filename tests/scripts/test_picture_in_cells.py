"""Pictures in character cells: which pixels of the picture a cell's halves show, and what a terminal is sent."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from envproc.env import Picture
from scripts.cells import draw, in_cells

RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


def picture(*rows: list[tuple[int, int, int]]) -> Picture:
    return np.array(rows, np.uint8)


def test_a_cell_shows_two_pixels_one_above_the_other() -> None:
    cells = in_cells(picture([RED, BLUE], [WHITE, BLACK]), columns=2, rows=1)
    assert cells.tolist() == [[[[*RED], [*WHITE]], [[*BLUE], [*BLACK]]]]


def test_where_there_is_less_room_each_half_is_the_mean_of_its_area() -> None:
    grey = picture(*([(10 * row + column,) * 3 for column in range(4)] for row in range(4)))
    cells = in_cells(grey, columns=2, rows=5)
    assert cells[..., 0].tolist() == [[[6, 26], [8, 28]]]  # of 5.5, 25.5, 7.5 and 27.5: halves become even


def test_a_pixel_on_a_border_counts_for_both_sides_by_its_share() -> None:
    row = picture([(0,) * 3, (90,) * 3, (30,) * 3])
    cells = in_cells(np.concatenate([row, row, row]), columns=2, rows=9)
    assert cells[:, :, 0, 0].tolist() == [[30, 50]]


@pytest.mark.parametrize(
    ("columns", "rows", "expected"), [(80, 24, (24, 64)), (40, 24, (15, 40)), (200, 1, (1, 3)), (1, 1, (1, 1))]
)
def test_it_is_as_large_as_fits_and_keeps_its_shape(columns: int, rows: int, expected: tuple[int, int]) -> None:
    assert in_cells(np.zeros((48, 64, 3), np.uint8), columns, rows).shape == (*expected, 2, 3)


def test_a_small_picture_grows() -> None:
    cells = in_cells(picture([RED, BLUE], [RED, BLUE]), columns=8, rows=4)
    assert cells.shape == (4, 8, 2, 3)
    assert (cells[:, :4] == RED).all() and (cells[:, 4:] == BLUE).all()


def test_a_terminal_is_sent_half_blocks_in_the_colours_of_both_halves() -> None:
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, color_system="truecolor", width=9)
    console.print(draw(in_cells(picture([RED, RED, BLUE], [WHITE, WHITE, BLACK]), columns=3, rows=1)), end="")
    assert sent.getvalue() == ("\x1b[38;2;255;0;0;48;2;255;255;255m▀▀\x1b[0m\x1b[38;2;0;0;255;48;2;0;0;0m▀\x1b[0m\n")
