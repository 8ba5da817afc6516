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

_NO_TURN = np.array(1.0 + 0.0j)  # cos + i sin
# components of w, y, z, x that a turn about own Z, and one about own X, takes as real and as imaginary parts
_COMPLEX_PAIRS = ((slice(0, 2), slice(2, 4)), (slice(0, 4, 2), slice(3, None, -2)))

# What act() and simulate() compute with, as arrays: numpy takes 0.2 us longer, half a call, for a number of Python's
_ZERO, _TINY, _TILTED, _LOW, _FAR = (np.array(each) for each in (0.0, 1e-12, 0.25, -2.0, 3.0))
_HALF_TURN = np.array(radians(1.0))
_DT, _TOP, _RESTING = (np.array(each) for each in (DT, TOP, TOP + RADIUS))
_STICK, _FRICTION, _MAX_SPIN = (np.array(each) for each in (-STICK, -FRICTION, MAX_SPIN))  # both against the slip
_KEPT_SPIN = np.array(MAX_SPIN / (1.0 - ANGULAR_DRAG * DT))  # of which the drag leaves MAX_SPIN after DT
# the cross product of up and (x, z) is (z, -x): of a spin the rim's velocity, and of a push there, against it, a spin
_RIM, _SPUN_UP = (np.array([[size], [-size]]) for size in (RADIUS, -RADIUS / INERTIA))


def _frame(w: float, y: float, z: float, x: float) -> Array:
    """(3, 3) the plate's own axes after the rotation q, one a row."""
    own_x = (w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y))
    own_y = (2 * (x * y - w * z), w * w + y * y - x * x - z * z, 2 * (y * z + w * x))
    own_z = (2 * (x * z + w * y), 2 * (y * z - w * x), w * w + z * z - x * x - y * y)
    return np.array([own_x, own_y, own_z])


def _as_matrix() -> Array:
    """(9, 16) that takes the products of q's components to `_frame`, y last: quadratic in q, it is one matmul."""
    unit = np.eye(4)
    columns = [(_frame(*(a + b)) - _frame(*a) - _frame(*b))[[0, 2, 1]].ravel() / 2 for a in unit for b in unit]
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
        # the turns about own Z and own X by half the angle, each as cos + i sin, and which way they go
        self._turns, self._signs = np.zeros((2, num), np.complex128), np.zeros((2, num))
        parts = ((self.plate[real], self.plate[imaginary]) for real, imaginary in _COMPLEX_PAIRS)
        self._halves = [(*part, *way) for part, *way in zip(parts, self._turns, self._signs, strict=True)]
        self._pairs = np.zeros((2, num), np.complex128)
        self._form = _as_matrix()
        self._motion = self.state[4:].reshape(3, 3, num)  # ball, velocity, spin
        self._falling = self.velocity[1]
        # what the plate changes of these in one step, along its own x, z and up: ball and velocity up, velocity and
        # spin along x and z, and no more
        self._change = np.zeros((3, 3, num))
        self._lift, self._push = self._up = np.zeros((2, num))
        self._rub, self._twist = self._change[1, :2], self._change[2, :2]

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
            self._turns[:, agent] = _NO_TURN

    def see(self, agents: IntArray | slice) -> FloatArray:
        """(m, 8) what these agents observe."""
        return self.seen.T[agents].astype(np.float32, order="C")

    def aim(self, wish: FloatArray) -> None:
        """(n, 2) actions, for all Academy steps until the next: about the plate's own Z, then its own X."""
        # half of at most 2 degrees, in double precision: a cosine rounded to single shrinks q turn by turn
        half = wish.T.astype(np.float64, order="C")
        half *= _HALF_TURN
        np.minimum(np.maximum(half, -_HALF_TURN, out=half), _HALF_TURN, out=half)
        np.cos(half, out=self._turns.real)
        np.sin(half, out=self._turns.imag)
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
        pairs = self._pairs
        for real, imaginary, turn, sign in self._halves:
            free = imaginary[0] * sign < _TILTED
            pairs.real, pairs.imag = real, imaginary
            pairs *= np.where(free, turn, _NO_TURN)
            real[:], imaginary[:] = pairs.real, pairs.imag

    def simulate(self) -> None:
        """0.02 s of a rigid ball, in free fall or on the plate, which does not feel it and turns between the steps."""
        self._falling -= self.gravity * DT

        # along the plate's own axes x, z and up: where the ball is, its velocity, its spin
        products = (self.plate[:, None] * self.plate).reshape(16, -1)
        axes = (self._form @ products).reshape(3, 3, -1)
        place, velocity, spin = np.einsum("ijn,kjn->kin", axes, self._motion)
        # the plate has an edge and the ball can fall over it
        height, within = place[2], np.abs(place[:2]) <= _TOP
        over = (height > _TOP) & within[0] & within[1]

        # out of a plate that turned into it
        np.subtract(_RESTING, height, out=self._lift)
        # normal impulse: no more approach than closes the gap in this step, and no bounce
        np.subtract(np.minimum(self._lift, _ZERO) / _DT, velocity[2], out=self._push)
        np.maximum(self._up, _ZERO, out=self._up)
        self._up *= over
        # friction at the rim, Coulomb: stops the slip if it can, and turns the ball
        slip = velocity[:2] + spin[1::-1] * _RIM
        speed = np.maximum(np.hypot(slip[0], slip[1]), _TINY)
        np.multiply(slip, np.maximum(_STICK, _FRICTION * self._push / speed), out=self._rub)
        np.multiply(self._rub[::-1], _SPUN_UP, out=self._twist)

        self._change[:2, 2] = self._up
        self._motion += np.einsum("ijn,kin->kjn", axes, self._change)
        self.spin *= _MAX_SPIN / np.maximum(np.sqrt(np.add.reduce(self.spin * self.spin)), _KEPT_SPIN)
        self.ball += self.velocity * _DT


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
        self._nobody: End = self._agents[:0], np.zeros((0, 8), np.float32), self._reward[:0], np.zeros(0, np.bool_)

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
        axes = np.array([_frame(*plate) for plate in self._balls.plate[:, first].T])
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
        agent, seen, reward, fallen = (np.concatenate(parts) for parts in zip(self._nobody, *ends, strict=True))
        ended = Ended(agent, {"vector": seen}, reward, fallen)
        return Step(self._agents, {"vector": self._balls.see(slice(None))}, self._reward, ended)

    def _end(self, agents: IntArray, fallen: BoolArray) -> End:
        """End these episodes now, be it in the middle of a period; what is returned is from before the reset."""
        end = (agents, self._balls.see(agents), self._reward[agents], fallen)
        self._begin(agents)
        self._reward[agents] = 0.0  # delivered
        return end

    def _begin(self, agents: IntArray) -> None:
        self._steps[agents] = 0
        self._balls.begin(agents)
