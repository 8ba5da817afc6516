"""The rules of 3DBall and the physics of its ball for one agent, one number at a time: what Ball3D is held against.

And `balance`, which keeps the balls on their plates: it drives the tests that need long episodes.
"""

from __future__ import annotations

import math

import numpy as np

from core.types import FloatArray
from envproc.env import Step

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
"""w, x, y, z"""


class OneBall:
    """Agent number `agent` of a Ball3D that was reset with `seed`."""

    def __init__(self, seed: int, agent: int) -> None:
        self.random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(agent,)))
        self.spin: Vector = (0.0, 0.0, 0.0)
        self.reward = 0.0
        self.restart()

    def restart(self) -> None:
        self.step_count = 0
        about_x, about_z, x, z = (2 * u - 1 for u in self.random.random(4))
        self.q = multiply(axis_angle("x", 10 * about_x), axis_angle("z", 10 * about_z))
        self.d: Vector = (1.5 * x, 4.0, 1.5 * z)
        self.v: Vector = (0.0, 0.0, 0.0)

    def obs(self) -> list[float]:
        return [self.q[3], self.q[1], *self.d, *self.v]

    def decide(self, action: tuple[float, float], reset: bool) -> list[tuple[list[float], float, bool]]:
        """One decision period; returns its ends as (obs, reward, terminated)."""
        ends: list[tuple[list[float], float, bool]] = []
        self.reward = 0.0
        for academy_step in range(5):
            self.step_count += 1
            if reset and academy_step == 0:
                ends.append((self.obs(), self.reward, False))
                self.restart()
                action = (0.0, 0.0)
            a_z, a_x = (2 * min(max(a, -1.0), 1.0) for a in action)
            if (self.q[3] < 0.25 and a_z > 0) or (self.q[3] > -0.25 and a_z < 0):
                self.q = multiply(self.q, axis_angle("z", a_z))
            if (self.q[1] < 0.25 and a_x > 0) or (self.q[1] > -0.25 and a_x < 0):
                self.q = multiply(self.q, axis_angle("x", a_x))
            fell = self.d[1] < -2 or abs(self.d[0]) > 3 or abs(self.d[2]) > 3
            self.reward = -1.0 if fell else 0.1
            if fell or self.step_count >= 5000:
                ends.append((self.obs(), self.reward, fell))
                self.restart()
                self.reward, action = 0.0, (0.0, 0.0)
            self.simulate()
        return ends

    def simulate(self) -> None:
        dt = 0.02
        v = (self.v[0], self.v[1] - 9.81 * dt, self.v[2])
        d, spin = self.d, self.spin
        own_x, n, own_z = (turned(self.q, axis) for axis in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
        if dot(n, d) > 2.5 and abs(dot(own_x, d)) <= 2.5 and abs(dot(own_z, d)) <= 2.5:
            gap = dot(n, d) - 3.0
            normal_impulse = max(0.0, -dot(v, n) - max(gap, 0.0) / dt)
            to_contact = scaled(n, -0.5)
            at_contact = added(v, cross(spin, to_contact))
            slip = added(at_contact, scaled(n, -dot(at_contact, n)))
            speed = math.sqrt(dot(slip, slip))
            size = min(speed * 2 / 7, 0.6 * normal_impulse)
            impulse = scaled(slip, -size / speed) if speed > 0 else (0.0, 0.0, 0.0)
            v = added(v, added(scaled(n, normal_impulse), impulse))
            spin = added(spin, scaled(cross(to_contact, impulse), 1 / (0.4 * 0.5**2)))
            d = added(d, scaled(n, max(-gap, 0.0)))
        spin = scaled(spin, 1 - 0.01 * dt)
        self.spin = scaled(spin, min(1.0, 7 / max(math.sqrt(dot(spin, spin)), 1e-9)))
        self.v, self.d = v, added(d, scaled(v, dt))


def axis_angle(axis: str, degrees: float) -> Quaternion:
    half = math.radians(degrees) / 2
    x, z = (math.sin(half), 0.0) if axis == "x" else (0.0, math.sin(half))
    return math.cos(half), x, 0.0, z


def multiply(p: Quaternion, q: Quaternion) -> Quaternion:
    u, v = p[1:], q[1:]
    x, y, z = added(added(scaled(v, p[0]), scaled(u, q[0])), cross(u, v))
    return p[0] * q[0] - dot(u, v), x, y, z


def turned(q: Quaternion, v: Vector) -> Vector:
    _, x, y, z = multiply(multiply(q, (0.0, *v)), (q[0], -q[1], -q[2], -q[3]))
    return x, y, z


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def added(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def scaled(a: Vector, by: float) -> Vector:
    return a[0] * by, a[1] * by, a[2] * by


def balance(step: Step) -> FloatArray:
    """(n, 2): a proportional-derivative controller. Tilting about +Z rolls the ball to -x, about +X to +z."""
    q_z, q_x, x, _, z, v_x, _, v_z = step.obs["vector"].T
    tilt_z, tilt_x = 0.1 * x + 0.2 * v_x, -0.1 * z - 0.2 * v_z
    wish: FloatArray = np.clip(8 * np.stack([tilt_z - q_z, tilt_x - q_x], axis=1), -1, 1)
    return wish
