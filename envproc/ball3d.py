"""The built-in 3DBall: 12 agents to an area, each a plate that keeps a ball on top, by the rules of the Unity example.

What the example's script and ML-Agents decide is followed to the letter: decisions, rewards, limits, resets, who ends
when. What PhysX decides is a model of its own, in `simulate`: a rigid ball on a rigid plate.

One step() is one decision of every agent and five Academy steps, in each of which, agent by agent,

    the step is counted -> the plate turns -> the ball fell? -1, the end : 0.1 -> step 5000? truncated -> 0.02 s pass

Units are metres, seconds, kilograms (the ball: 1), radians. World axes, y up; d is ball minus plate.
"""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import numpy.typing as npt

from core.types import Action, ActionSpec, BoolArray, EnvSpec, FieldSpec, FloatArray, IntArray
from envproc.env import CannotSet, Ended, Picture, Step

Array = npt.NDArray[np.float64]
End = tuple[IntArray, FloatArray, FloatArray, BoolArray]  # agent, what it saw, reward, fallen: a row each

AGENTS_PER_AREA = 12
DECISION_PERIOD = 5  # Academy steps that repeat one action
MAX_STEP = 5000  # Academy steps, not decisions
REWARD, FALLEN_REWARD = 0.1, -1.0  # set at each Academy step, not added
DT = 0.02
GRAVITY = 9.81
TOP = 2.5  # the plate is a cube of side 5: its top lies this far above its centre, its edges this far out
RADIUS = 0.5
FRICTION = 0.6
ANGULAR_DRAG = 0.01
MAX_SPIN = 7.0
INERTIA = 0.4 * RADIUS**2  # of a solid sphere
STICK = 1 / (1 + RADIUS**2 / INERTIA)  # impulse that stops a slip of 1 m/s at the rim: 2/7, as the ball also spins up

_NO_TURN = np.array([[1.0], [0.0]])  # cos, sin
# components of w, y, z, x that a turn about own Z, and one about own X, takes as real and as imaginary parts
_COMPLEX_PAIRS = ((slice(0, 2), slice(2, 4)), (slice(0, 4, 2), slice(3, None, -2)))

# What act() and simulate() compute with, as arrays: numpy takes 0.2 us longer, half a call, for a number of Python's
_ZERO, _TINY, _TILTED, _LOW, _FAR = (np.array(each) for each in (0.0, 1e-12, 0.25, -2.0, 3.0))
_DT, _TOP, _RESTING, _RADIUS = (np.array(each) for each in (DT, TOP, TOP + RADIUS, RADIUS))
_STICK, _FRICTION, _MAX_SPIN = (np.array(each) for each in (STICK, FRICTION, MAX_SPIN))
_SPUN_UP, _SPIN_KEPT = np.array(RADIUS / INERTIA), np.array(1.0 - ANGULAR_DRAG * DT)  # by a push at the rim; in DT


def _frame(w: float, y: float, z: float, x: float) -> Array:
    """(2, 3, 3) of the rotation q: the plate's own axes, one a row, and the matrix of the cross product `n x`."""
    own_x = (w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y))
    n = (2 * (x * y - w * z), w * w + y * y - x * x - z * z, 2 * (y * z + w * x))
    own_z = (2 * (x * z + w * y), 2 * (y * z - w * x), w * w + z * z - x * x - y * y)
    return np.array([[own_x, n, own_z], [(0.0, -n[2], n[1]), (n[2], 0.0, -n[0]), (-n[1], n[0], 0.0)]])


def _as_matrix() -> Array:
    """(18, 16) that takes the products of q's components to `_frame`: it is quadratic in q, so one matmul does all."""
    unit = np.eye(4)
    columns = [(_frame(*(a + b)) - _frame(*a) - _frame(*b)).ravel() / 2 for a in unit for b in unit]
    return np.stack(columns, axis=1)


class Balls:
    """`num` plates, each with its ball: what the example's script and PhysX do to them in one Academy step.

    Who decides when, and when an episode ends, is for its two faces to say: Ball3D below, and the Academy of the
    stand-in Unity player (envproc/unity/player/ball.py).
    """

    def __init__(self, num: int) -> None:
        # One column an agent, so that a rule is one call for all; the rows an agent sees lie side by side.
        self.state = np.zeros((13, num))
        self.plate = self.state[:4]  # quaternion in the order w, y, z, x
        self.seen = self.state[2:10]
        self.ball = self.state[4:7]
        self.velocity = self.state[7:10]
        self.spin = self.state[10:]
        self.gravity = GRAVITY
        # the turns about own Z and own X by half the angle, each as cos and sin, and which way they go
        self._turns, self._signs = np.zeros((2, 2, num)), np.zeros((2, num))
        self._ball_and_spin = self.state[4:].reshape(3, 1, 3, num)[::2]
        self._form = _as_matrix()

    def seed(self, seed: int) -> None:
        """An agent's luck is its own: the same whatever happens to the others, and however many there are."""
        streams = (np.random.SeedSequence(seed, spawn_key=(agent,)) for agent in range(self.state.shape[1]))
        self._random = [np.random.default_rng(stream) for stream in streams]

    def begin(self, agents: IntArray) -> None:
        """Plate tilted about own X, then own Z, by up to 10 degrees; ball at rest up to 1.5 m off the middle, 4 above.

        Its spin is not cleared: the example's script forgets it too. The old action is forgotten: zero until the next.
        """
        for agent in agents.tolist():
            about_x, about_z, right, ahead = (2.0 * luck - 1.0 for luck in self._random[agent].random(4).tolist())
            a, b = about_x * radians(5.0), about_z * radians(5.0)  # half of the angles
            plate = (cos(a) * cos(b), -sin(a) * sin(b), cos(a) * sin(b), sin(a) * cos(b))
            self.state[:10, agent] = (*plate, 1.5 * right, 4.0, 1.5 * ahead, 0.0, 0.0, 0.0)
        self._turns[:, :, agents] = _NO_TURN

    def see(self, agents: IntArray) -> FloatArray:
        """(m, 8) what these agents observe."""
        return self.seen.T[agents].astype(np.float32)

    def aim(self, wish: FloatArray) -> None:
        """(n, 2) actions, for all Academy steps until the next: about the plate's own Z, then its own X."""
        # half of at most 2 degrees, in double precision: a cosine rounded to single shrinks q turn by turn
        half = wish.T.astype(np.float64).clip(-1.0, 1.0) * radians(1.0)
        np.cos(half, out=self._turns[:, 0])
        np.sin(half, out=self._turns[:, 1])
        np.sign(half, out=self._signs)

    def act(self) -> BoolArray:
        """Turn the plates; (n,) whose ball fell, which is worth FALLEN_REWARD instead of REWARD."""
        self._turn()
        far = np.abs(self.ball) > _FAR
        fallen: BoolArray = (self.ball[1] < _LOW) | far[0] | far[2]
        return fallen

    def _turn(self) -> None:
        """Turn the plates about own Z, then own X, unless that component stands beyond 0.25 and would grow further."""
        # Turning about an own axis multiplies two pairs of q's components, as complex numbers, by cos + i sin.
        plate = self.plate
        for (real, imaginary), turn, sign in zip(_COMPLEX_PAIRS, self._turns, self._signs, strict=True):
            free = plate[imaginary][0] * sign < _TILTED
            by_cos, by_sin = np.where(free, turn, _NO_TURN)[:, None] * plate
            np.subtract(by_cos[real], by_sin[imaginary], out=plate[real])
            np.add(by_cos[imaginary], by_sin[real], out=plate[imaginary])

    def simulate(self) -> None:
        """0.02 s of a rigid ball, in free fall or on the plate, which does not feel it and turns between the steps."""
        plate, ball, velocity, spin = self.plate, self.ball, self.velocity, self.spin
        velocity[1] -= self.gravity * DT

        # where the ball is on its plate: the plate has an edge and the ball can fall over it
        products = (plate[:, None] * plate).reshape(16, -1)
        axes, cross_n = frame = (self._form @ products).reshape(2, 3, 3, -1)
        n = axes[1]
        place, rim = _dot(frame, self._ball_and_spin)  # n x spin is the rim's way, for a radius of 1
        height, within = place[1], np.abs(place) <= _TOP
        over = (height > _TOP) & within[0] & within[2]
        gap = height - _RESTING

        # normal impulse: no more approach than closes the gap in this step, and no bounce
        rise = _dot(velocity, n)
        push = np.maximum(-rise - np.maximum(gap, _ZERO) / _DT, _ZERO) * over

        # friction at the rim, Coulomb: stops the slip if it can, and turns the ball
        slip = velocity - n * rise + _RADIUS * rim
        speed = np.sqrt(_dot(slip, slip))
        rub = slip * -np.minimum(_STICK, _FRICTION * push / np.maximum(speed, _TINY))
        velocity += n * push + rub
        spin -= _dot(cross_n, rub) * _SPUN_UP
        spin *= _SPIN_KEPT
        spin *= _MAX_SPIN / np.maximum(np.sqrt(_dot(spin, spin)), _MAX_SPIN)

        # out of a plate that turned into it, then along
        ball -= n * (np.minimum(gap, _ZERO) * over)
        ball += velocity * _DT


class Ball3D:
    """`areas` times 12 agents: obs "vector" (8,) [q.z, q.x, d, v], 2 actions in [-1, 1], 2 degrees an Academy step."""

    def __init__(self, areas: int = 1) -> None:
        if areas < 1:
            raise ValueError(f"{areas} areas of 3DBall; there must be at least 1")
        num = AGENTS_PER_AREA * areas
        self.spec = EnvSpec({"vector": FieldSpec((8,))}, ActionSpec((-1.0, -1.0), (1.0, 1.0)), num)
        self.pictures_per_s = 1 / (DECISION_PERIOD * DT)
        self._agents = np.arange(num)
        self._balls = Balls(num)
        self._steps = np.zeros(num, np.int64)  # Academy steps of the episode
        self._reward = np.zeros(num, np.float32)
        self._asked = self._agents[:0]  # to be reset at the next step

    def reset(self, seed: int) -> Step:
        """Everybody from scratch. An agent's luck is its own: the same whatever happens to the others."""
        self._balls.seed(seed)
        self._balls.spin[:] = 0.0
        self._reward[:] = 0.0
        self._asked = self._agents[:0]
        self._begin(self._agents)
        return self._decide([])

    def reset_agents(self, agents: IntArray) -> None:
        """End these episodes in the next step, as truncated; what they are told to do there is ignored."""
        wrong = np.setdiff1d(agents, self._agents)
        if wrong.size:
            raise ValueError(f"no agents {wrong.tolist()} in 3DBall; there are 0..{self._agents[-1]}")
        self._asked = np.union1d(self._asked, agents)

    def set_parameter(self, name: str, value: float) -> None:
        """`gravity`, in m/s^2, as the example has it."""
        if name != "gravity" or not 0 <= value <= 1000:
            raise CannotSet(f"env.{name} = {value:g}: 3DBall has gravity, from 0 to 1000 m/s^2")
        self._balls.gravity = value

    def close(self) -> None:
        """Nothing to free."""

    def picture(self) -> Picture:
        from envproc.ball3d_picture import draw  # only here: a worker stays small

        first = slice(AGENTS_PER_AREA)
        axes = np.array([_frame(*plate)[0] for plate in self._balls.plate[:, first].T])
        return draw(axes, self._balls.ball[:, first].T)

    def step(self, action: Action) -> Step:
        """Five Academy steps under (n, 2) actions: about the plate's own Z, then its own X. Who ended decides again."""
        wish = action.continuous
        if wish.shape != (self.spec.num_agents, 2) or not np.isfinite(wish).all():
            raise ValueError(f"3DBall takes ({self.spec.num_agents}, 2) finite actions, got {wish.shape}: {wish}")
        self._balls.aim(wish)
        self._reward[:] = 0.0  # delivered with the last Step
        ends: list[End] = []

        for _ in range(DECISION_PERIOD):
            self._steps += 1
            # Who was asked to end does so after the count, as in Unity, where the word arrives with the decisions.
            if self._asked.size:
                ends.append(self._end(self._asked, np.zeros(self._asked.size, np.bool_)))
                self._asked = self._agents[:0]
            fallen = self._balls.act()
            # The script sets the reward instead of adding to it: a decision is worth 0.1, not five times that.
            self._reward[:] = REWARD
            ending = fallen | (self._steps >= MAX_STEP)
            if np.count_nonzero(ending):
                # A ball that falls in the very last step has fallen: that check comes first and restarts the count.
                self._reward[fallen] = FALLEN_REWARD
                ends.append(self._end(ending.nonzero()[0], fallen[ending]))
            self._balls.simulate()
        return self._decide(ends)

    def _decide(self, ends: list[End]) -> Step:
        if not ends:
            ends.append((nobody := self._agents[:0], self._balls.see(nobody), self._reward[:0], np.zeros(0, np.bool_)))
        agent, seen, reward, fallen = (np.concatenate(parts) for parts in zip(*ends, strict=True))
        ended = Ended(agent, {"vector": seen}, reward, fallen)
        return Step(self._agents, {"vector": self._balls.see(self._agents)}, self._reward, ended)

    def _end(self, agents: IntArray, fallen: BoolArray) -> End:
        """End these episodes now, be it in the middle of a period; what is returned is from before the reset."""
        end = (agents, self._balls.see(agents), self._reward[agents], fallen)
        self._begin(agents)
        self._reward[agents] = 0.0  # delivered
        return end

    def _begin(self, agents: IntArray) -> None:
        self._steps[agents] = 0
        self._balls.begin(agents)


def _dot(a: Array, b: Array) -> Array:
    """Sum of a * b over the components, the axis before the agents; of (3, 3, n) and (3, n), matrix times vector."""
    total: Array = np.add.reduce(a * b, axis=-2)
    return total
