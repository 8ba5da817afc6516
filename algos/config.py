"""What the configurations of the algorithms share, each option with its meaning: also the command line's help."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from core.net import NetSpec
from core.prioritized import Prioritization
from core.types import ACTION_MASK, EnvSpec, changeable, require


@dataclass(frozen=True)
class Networks:
    """What every algorithm is told about its networks."""

    hidden: tuple[int, ...] = (256, 256)
    """width of each hidden layer"""
    activation: Literal["relu", "tanh"] = "relu"
    """after each hidden layer"""
    normalize: bool = True
    """normalise vector observations by their running mean and standard deviation"""
    layer_norm: bool = False
    """normalise each hidden layer before its activation"""
    conv: Literal["simple", "nature", "impala"] = "nature"
    """encoder of images: simple has two layers, nature three (Mnih et al. 2015), impala is a ResNet (Espeholt et al.
    2018)"""
    gamma: float = 0.99
    """discount of the next decision's value"""
    max_grad_norm: float = changeable(0.0)
    """gradients are scaled down to this norm; 0: never"""
    lr_end: float = changeable(1.0)
    """what becomes of the learning rates in lr_steps, as a fraction of what they were"""
    lr_steps: int = changeable(0)
    """agent steps in which they go there, evenly; 0: they stay"""

    def __post_init__(self) -> None:
        require("--algo.hidden", self.hidden, all(width >= 1 for width in self.hidden), "widths of at least 1")
        require("--algo.gamma", self.gamma, 0 <= self.gamma <= 1, "from 0 to 1")
        require("--algo.max-grad-norm", self.max_grad_norm, self.max_grad_norm >= 0, "at least 0")
        require("--algo.lr-end", self.lr_end, 0 <= self.lr_end <= 1, "from 0 to 1")
        require("--algo.lr-steps", self.lr_steps, self.lr_steps >= 0, "at least 0")

    def net(self, spec: EnvSpec, outputs: int, **more: Any) -> NetSpec:
        """A network over all that is observed; `more` are further fields of NetSpec."""
        inputs = {name: field.shape for name, field in spec.obs.items() if name != ACTION_MASK}
        return NetSpec(
            inputs,
            self.hidden,
            outputs,
            activation=self.activation,
            normalize=self.normalize,
            layer_norm=self.layer_norm,
            conv=self.conv,
            **more,
        )


@dataclass(frozen=True)
class OffPolicy(Networks):
    """Replay: what the algorithms that sample the ring at random share."""

    batch_size: int = 256
    """rows in one update"""
    replay_ratio: float = changeable(32.0)
    """how often a decision is sampled on average; 0: collect only"""
    capacity: int = 200_000
    """agent steps that the ring holds, over all workers"""
    warmup: int = 1000
    """agent steps with uniformly random actions before the first update"""
    n_step: int = 1
    """rewards counted before the target network's estimate takes over"""
    prioritized: bool = False
    """sample rows by their TD error (Schaul et al. 2016) instead of uniformly"""
    alpha: float = 0.6
    """prioritised: how much the TD error matters; 0: not at all"""
    beta: float = 0.4
    """prioritised: how much of the bias importance weights take back at first; it grows to 1"""
    beta_steps: int = 100_000
    """prioritised: agent steps until beta is 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.batch-size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("--algo.capacity", self.capacity, self.capacity >= 1, "at least 1")
        require("--algo.warmup", self.warmup, self.warmup >= 0, "at least 0")
        require("--algo.n-step", self.n_step, self.n_step >= 1, "at least 1")
        Prioritization(self.alpha, self.beta, self.beta_steps)  # refuses what cannot be meant

    @property
    def prioritization(self) -> Prioritization | None:
        return Prioritization(self.alpha, self.beta, self.beta_steps) if self.prioritized else None


@dataclass(frozen=True)
class Greedy(OffPolicy):
    """Values of discrete choices, of which the best is taken: what the algorithms that learn them share."""

    hidden: tuple[int, ...] = (128, 128)
    """width of each hidden layer"""
    batch_size: int = 128
    """rows in one update"""
    replay_ratio: float = changeable(64.0)
    """how often a decision is sampled on average; 0: collect only"""
    normalize: bool = False
    """normalise vector observations by their running mean and standard deviation. Off: a policy that gets better sees
    fewer kinds of observations, and those close to a failure would move out of the normaliser's limits"""
    n_step: int = 3
    """rewards counted before the target network's estimate takes over"""
    lr: float = changeable(5e-4)
    """Adam's learning rate"""
    tau: float = changeable(0.01)
    """fraction by which the target network follows when it does; 1: it becomes what the network is"""
    target_every: int = changeable(1)
    """updates from one such step of the target network to the next"""
    double: bool = True
    """the network chooses what the target network values (van Hasselt et al. 2016), or else the target does both"""
    dueling: bool = False
    """the last hidden layer exists twice, for a state's value and for advantages (Wang et al. 2016)"""
    noisy: bool = False
    """explore by noise in the last two layers (Fortunato et al. 2018) instead of epsilon"""
    epsilon_start: float = changeable(1.0)
    """probability of any choice instead of the best, while training, at first"""
    epsilon_end: float = changeable(0.05)
    """what becomes of epsilon in epsilon_steps"""
    epsilon_steps: int = changeable(10_000)
    """agent steps in which epsilon goes there, evenly; 0: it stays at its start"""
    ladder: float = 0.0
    """agent i of N explores with epsilon^(1 + ladder i / (N - 1)) (Horgan et al. 2018 have 7); 0: all alike"""
    worker_priorities: bool = False
    """prioritised: the workers say each new row's TD error (Horgan et al. 2018), which else counts as the highest"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.lr", self.lr, 0 < self.lr < 1, "above 0, below 1")
        require("--algo.tau", self.tau, 0 < self.tau <= 1, "above 0, at most 1")
        require("--algo.target-every", self.target_every, self.target_every >= 1, "at least 1")
        require("--algo.epsilon-start", self.epsilon_start, 0 <= self.epsilon_start <= 1, "from 0 to 1")
        require("--algo.epsilon-end", self.epsilon_end, 0 <= self.epsilon_end <= 1, "from 0 to 1")
        require("--algo.epsilon-steps", self.epsilon_steps, self.epsilon_steps >= 0, "at least 0")
        require("--algo.ladder", self.ladder, 0 <= self.ladder < inf, "at least 0, and finite")
        climbs = self.ladder == 0 or not self.noisy
        require("--algo.ladder", self.ladder, climbs, "0 with --algo.noisy, which needs no epsilon")
        asked = self.prioritized or not self.worker_priorities
        require("--algo.worker-priorities", self.worker_priorities, asked, "False without --algo.prioritized")

    def epsilon(self, agent_steps: int) -> float:
        """Probability of a random choice after so many agent steps."""
        return 0.0 if self.noisy else linear(self.epsilon_start, self.epsilon_end, self.epsilon_steps, agent_steps)


@dataclass(frozen=True)
class OnPolicy(Networks):
    """Reading the ring in order: what the algorithms that use every row share."""

    hidden: tuple[int, ...] = (64, 64)
    """width of each hidden layer"""
    activation: Literal["relu", "tanh"] = "tanh"
    """after each hidden layer"""
    max_grad_norm: float = changeable(0.5)
    """gradients are scaled down to this norm; 0: never"""
    horizon: int = 128
    """decisions of each agent in one rollout, on average"""
    ahead: int = 0
    """rollouts that the workers may be ahead of the learner; 0: they wait while it learns"""
    share: bool = False
    """one network says policy and value, instead of one each"""
    lr: float = changeable(3e-4)
    """Adam's learning rate"""
    entropy: float = changeable(0.0)
    """weight of the policy's entropy, which is to be high"""
    value_weight: float = changeable(0.5)
    """weight of the value's loss beside the policy's"""
    log_std: float = 0.0
    """logarithm of the continuous actions' standard deviations at first, in units of [-1, 1]; they are trained"""
    scale_reward: bool = True
    """divide rewards by the running standard deviation of the discounted return"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.horizon", self.horizon, self.horizon >= 1, "at least 1")
        require("--algo.ahead", self.ahead, self.ahead >= 0, "at least 0")
        require("--algo.lr", self.lr, 0 < self.lr < 1, "above 0, below 1")
        require("--algo.entropy", self.entropy, self.entropy >= 0, "at least 0")
        require("--algo.value-weight", self.value_weight, self.value_weight >= 0, "at least 0")
        require("--algo.log-std", self.log_std, -5 <= self.log_std <= 2, "from -5 to 2")


def linear(start: float, end: float, steps: int, now: int) -> float:
    """What goes evenly from `start` to `end` in `steps`, at step `now`; with 0 steps it stays at `start`."""
    return start + (end - start) * min(now / steps, 1.0) if steps else start


def require_sigma(sigma: float) -> None:
    """Raises ValueError if this cannot be meant as the standard deviation of noise on actions."""
    require("--algo.sigma", sigma, 0 <= sigma <= 10, "from 0 to 10: actions lie in [-1, 1]")


def only_continuous(name: str, spec: EnvSpec) -> None:
    """Raises ValueError if there are other actions than continuous ones."""
    if not spec.action.num_continuous or spec.action.branches:
        raise ValueError(f"{name} takes continuous actions; {_actions(spec)}")


def only_discrete(name: str, spec: EnvSpec) -> None:
    """Raises ValueError if there are other actions than discrete ones."""
    if spec.action.num_continuous or not spec.action.branches:
        raise ValueError(f"{name} takes discrete actions; {_actions(spec)}")


def _actions(spec: EnvSpec) -> str:
    return (
        f"this environment has {spec.action.num_continuous} continuous and {len(spec.action.branches)} discrete "
        f"branch(es) of sizes {list(spec.action.branches)}"
    )
