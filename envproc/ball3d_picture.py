"""A picture of 3DBall: twelve plates with their balls, seen from above and in front, 640 by 480.

Everything is a polygon or a circle, painted from back to front. A plate is drawn as a slab, the upper part of the cube
that it is, so that balls can be seen past it. World axes as in ball3d.py: x to the right, y up, z away from us.
"""

from __future__ import annotations

from functools import cache
from math import atan2, cos, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from envproc.env import Picture

Array = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 640, 480
_FINE = 2  # drawn so many times as large and averaged: pillow draws hard edges
_COLUMNS, _APART = 4, np.array([8.0, 0.0, 9.0])
_TOP, _SIDE, _THICK, _RADIUS, _FLOOR = 2.5, 2.5, 0.7, 0.5, -3.0

_EYE = np.array([0.0, 36.0, -42.0])
_DOWN = atan2(36.0, 42.0)  # where the eye looks, below the horizon
_RIGHT, _UP = np.array([1.0, 0.0, 0.0]), np.array([0.0, cos(_DOWN), sin(_DOWN)])
_AHEAD = np.array([0.0, -sin(_DOWN), cos(_DOWN)])
_ZOOM = 880.0 * _FINE
_LIGHT = np.array([-0.42, 0.82, -0.39])  # from the left, above, a little from our side

_SKY, _GROUND = (226, 232, 240), (176, 188, 203)
_PLATE, _BALL = (58, 110, 165), (245, 130, 32)
_SHADOW_OF_PLATE, _SHADOW_OF_BALL, _MARK = (158, 171, 188), (38, 76, 118), (96, 145, 194)

_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])  # of a face, one after the other, in units of half its sides


def draw(axes: Array, ball: Array) -> Picture:
    """`axes`: (12, 3, 3), each plate's own axes, one a row. `ball`: (12, 3), from its plate's centre."""
    image = _background().copy()
    painter = ImageDraw.Draw(image)
    row, column = np.divmod(np.arange(len(ball)), _COLUMNS)
    rows = -(-len(ball) // _COLUMNS)
    at = np.stack([column - (_COLUMNS - 1) / 2, np.zeros(len(ball)), (rows - 1) / 2 - row], axis=1) * _APART
    for place, own in zip(at, axes, strict=True):
        corners = np.stack([_SIDE * _CORNERS[:, 0], np.full(4, _TOP), _SIDE * _CORNERS[:, 1]], axis=1) @ own + place
        corners[:, 1] = _FLOOR
        painter.polygon(_on_screen(corners), _SHADOW_OF_PLATE)
    for place, own, offset in zip(at, axes, ball, strict=True):  # the back row is the first
        if _is_behind(own, offset, place):
            _paint_ball(painter, place + offset)
            _paint_plate(painter, place, own, offset)
        else:
            _paint_plate(painter, place, own, offset)
            _paint_ball(painter, place + offset)
    return np.asarray(image.reduce(_FINE))


@cache
def _background() -> Image.Image:
    share = np.linspace(0, 1, HEIGHT * _FINE)[:, None, None]
    shades = (1 - share) * np.array(_SKY) + share * np.array(_GROUND)
    return Image.fromarray(np.repeat(shades.round().astype(np.uint8), WIDTH * _FINE, axis=1))


def _faces(own: Array) -> list[tuple[Array, Array]]:
    """The slab's six faces as (middle, outward normal), from the plate's centre: along own x, y, z and against them."""
    half, centre = np.array([_SIDE, _THICK / 2, _SIDE]), own[1] * (_TOP - _THICK / 2)
    return [(centre + sign * half[axis] * own[axis], sign * own[axis]) for sign in (1, -1) for axis in range(3)]


def _is_behind(own: Array, offset: Array, place: Array) -> bool:
    """Whether the plate may hide the ball: the face that the ball is beyond the furthest is turned away from us."""
    middle, normal = max(_faces(own), key=lambda face: float((offset - face[0]) @ face[1]))
    return bool((_EYE - place - middle) @ normal < 0)


def _paint_plate(painter: ImageDraw.ImageDraw, place: Array, own: Array, ball: Array) -> None:
    half = np.array([_SIDE, _THICK / 2, _SIDE])
    for number, (middle, normal) in enumerate(_faces(own)):
        if (_EYE - place - middle) @ normal > 0:
            across = [axis for axis in range(3) if axis != number % 3]
            corners = place + middle + (_CORNERS * half[across]) @ own[across]
            painter.polygon(_on_screen(corners), _lit(_PLATE, normal))
    above = place + own[1] * _TOP
    if (_EYE - above) @ own[1] <= 0:
        return
    frame = above + (_CORNERS * 0.84 * _SIDE) @ own[::2]
    painter.line([*_on_screen(frame), _on_screen(frame)[0]], _MARK, width=2 * _FINE)  # tells how the plate is tilted
    under = np.array([ball @ own[0], ball @ own[2]])
    if ball @ own[1] > _TOP and np.abs(under).max() < _SIDE:
        turn = np.linspace(0, 2 * np.pi, 25)[:-1]
        rim = under + _RADIUS * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        painter.polygon(_on_screen(above + rim.clip(-_SIDE, _SIDE) @ own[::2]), _SHADOW_OF_BALL)


def _paint_ball(painter: ImageDraw.ImageDraw, centre: Array) -> None:
    """Discs that get smaller and brighter towards the light."""
    (x, y), away = _on_screen(centre[None])[0], float((centre - _EYE) @ _AHEAD)
    radius = _ZOOM * _RADIUS / away
    towards = radius * 0.5 * np.array([_LIGHT @ _RIGHT, -(_LIGHT @ _UP)])
    discs = 8
    for disc in range(discs):
        share = disc / discs
        size, (right, down) = radius * (1 - share), share * towards
        colour = _mixed(_mixed(_BALL, (90, 30, 0), 0.4), _mixed(_BALL, (255, 245, 220), 0.6), share)
        box = (x + right - size, y + down - size, x + right + size, y + down + size)
        painter.ellipse(box, colour)


def _on_screen(points: Array) -> list[tuple[float, float]]:
    """(n, 3) in the world -> the n places in the picture."""
    seen = points - _EYE
    scale = _ZOOM / (seen @ _AHEAD)
    x, y = WIDTH * _FINE / 2 + seen @ _RIGHT * scale, HEIGHT * _FINE / 2 - seen @ _UP * scale
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _lit(colour: Colour, normal: Array) -> Colour:
    """As bright as the face is turned to the light; more than usual is towards white."""
    light = float(normal @ _LIGHT)
    return _mixed(colour, (12, 30, 55), 0.75 * min(max(0.75 - light, 0.0), 1.0))


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return r, g, b
