"""Deep Q-network and what was added to it, each by a switch of its own.

The network: Mnih et al. 2015, "Human-level control through deep reinforcement learning". Additions: `double` (van
Hasselt et al. 2016), `dueling` (Wang et al. 2016), `prioritized` (Schaul et al. 2016), `n_step` (Sutton 1988), `noisy`
(Fortunato et al. 2018), `atoms` (C51: Bellemare et al. 2017), `munchausen` (Vieillard et al. 2020). Whole sets of them:
Rainbow (Hessel et al. 2018) and Ape-X (Horgan et al. 2018).

Several branches: each is a value of its own, with a target of its own, over the same hidden layers; the loss is the
mean over them (Tavakoli et al. 2018 have one target for all, the mean of the branches' next values). Choices that an
action mask excludes are neither made nor valued.

Deviations from the papers: Adam; soft or hard targets; double by default; a row's priority is the mean of its
branches'; C51's loss is the divergence, whose gradient is the paper's, and its returns go from -100 to 100;
Munchausen's bonus with n steps is that of the first decision alone, and its loss Huber's; dueling gradients are not
scaled down; Ape-X's oldest rows go, whatever their priority; sizes and rates for small vector observations.
docs/algos/dqn.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from algos.config import Greedy, only_discrete
from algos.discrete import Branches, pick
from algos.nets import prepare
from algos.online_target import OnlineTarget
from algos.said import say
from core.acting import PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require


@dataclass(frozen=True)
class Config(Greedy):
    """DQN. Fractions and rates are per update; steps are agent steps."""

    atoms: int = 1
    """returns that the network gives a probability each (C51 has 51); 1: it says their mean alone"""
    v_min: float = -100.0
    """atoms: the smallest return; rewards may have to be scaled"""
    v_max: float = 100.0
    """atoms: the largest return; with rewards within 1 it is below 1 / (1 - gamma)"""
    munchausen: bool = False
    """add the choice's log-probability under a softmax of the values to the reward (Vieillard et al. 2020)"""
    temperature: float = changeable(0.03)
    """munchausen: of that softmax"""
    bonus: float = changeable(0.9)
    """munchausen: how much of temperature times log-probability is added (the paper's alpha)"""
    bonus_min: float = changeable(-1.0)
    """munchausen: temperature times log-probability counts as at least this (the paper's l0)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.atoms", self.atoms, self.atoms >= 1, "at least 1")
        for name, value in (("v-min", self.v_min), ("v-max", self.v_max)):
            require(f"--algo.{name}", value, isfinite(value), "finite")
        require("--algo.v-min", self.v_min, self.v_min < self.v_max, f"below --algo.v-max {self.v_max}")
        require("--algo.temperature", self.temperature, self.temperature > 0, "above 0")
        require("--algo.bonus", self.bonus, 0 <= self.bonus <= 1, "from 0 to 1")
        require("--algo.bonus-min", self.bonus_min, self.bonus_min <= 0, "at most 0")
        require("--algo.atoms", self.atoms, self.atoms == 1 or not self.munchausen, "1 with --algo.munchausen")
        # a divergence is the priority there, which a worker does not know
        alone = self.atoms == 1 or not self.worker_priorities
        require("--algo.atoms", self.atoms, alone, "1 with --algo.worker-priorities")


@dataclass(frozen=True)
class Rainbow(Config):
    """All of it but Munchausen (Hessel et al. 2018)."""

    prioritized: bool = True
    alpha: float = 0.5
    dueling: bool = True
    noisy: bool = True
    atoms: int = 51


@dataclass(frozen=True)
class ApeX(Config):
    """Double, dueling, prioritised by the workers, each agent with an epsilon of its own (Horgan et al. 2018)."""

    prioritized: bool = True
    worker_priorities: bool = True
    dueling: bool = True
    epsilon_start: float = changeable(0.4)
    epsilon_steps: int = changeable(0)
    ladder: float = 7.0


class DQN:
    """A network that says what each choice is worth, and a slower copy of it that says what to learn."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_discrete("DQN", spec)
        self.config = config
        sizes, atoms = spec.action.branches, config.atoms
        self.recording = Recording(config.gamma, config.n_step, priority=config.worker_priorities)
        net = config.net(
            spec,
            sum(sizes) * atoms,
            dueling=sizes if config.dueling else (),
            noisy=config.noisy,
            extras={"epsilon": 1},
        )
        support = torch.linspace(config.v_min, config.v_max, atoms)
        self._support = support.to(device)
        known = tuple(support.tolist()) if atoms > 1 else ()
        self.policy_spec = PolicySpec(net, "greedy", support=known, ladder=config.ladder)
        self._branches = Branches(sizes, device)
        self._networks = OnlineTarget(net, config, device)
        self.online, self.target = self._networks.online, self._networks.target
        self.normalizer = self._networks.normalizer
        self.optimizers, self.graphs = (self._networks.optimizer,), self._networks.graphs

    def update(self, batch: Batch) -> Learned:
        """One update of the network, and now and then of its target (algorithm 1 of Mnih et al. 2015)."""
        return self._networks.update(self._learn, self.config, batch)

    @torch.inference_mode()
    def _learn(self, config: Config, batch: Batch) -> Learned:
        self.normalizer.show(batch.obs, self.policy_spec.net)
        obs, next_obs = (prepare(each, self.policy_spec.net, self.normalizer) for each in (batch.obs, batch.next_obs))

        # what the batch's choices turned out to be worth
        self.target.renoise()
        if config.munchausen:
            target = self._munchausen(batch, obs, next_obs)
        elif config.atoms > 1:
            target = self._categorical(batch, next_obs)
        else:
            target = self._expected(batch, next_obs)

        # towards that: a value by its squared error, clipped (Huber), a distribution by its divergence
        self.online.renoise()
        said = say(self.online, obs)
        chosen = pick(self._values(said.value), batch.choice)
        if config.atoms > 1:
            log_likely = chosen.log_softmax(2)
            likely = log_likely.exp()
            td_error = (torch.xlogy(target, target) - target * log_likely).sum(2).mean(1)  # KL(target || chosen)
            loss = (batch.weight * td_error).mean()
            by_chosen = likely - target
            value = (likely @ self._support).mean()
        else:
            td_error = (target - chosen).abs().mean(1)
            loss = (batch.weight * functional.huber_loss(chosen, target, reduction="none").mean(1)).mean()
            by_chosen = (chosen - target).clamp_(-1, 1)
            value = chosen.mean()
        share = (batch.weight / batch.choice.numel()).view(-1, *[1] * (chosen.dim() - 1))
        said.learn(self._branches.put(by_chosen * share, batch.choice).flatten(1))
        self._networks.optimizer.step(loss, config, config.lr, batch.agent_steps)
        return Learned({"loss": loss, "q": value}, td_error)

    def _values(self, output: Tensor) -> Tensor:
        """(n, branches, largest) values; with atoms (n, branches, largest, atoms) logits of their probabilities."""
        if self.config.atoms > 1:
            output = output.reshape(len(output), -1, self.config.atoms)
        return self._branches.spread(output)

    def _next(self, batch: Batch, next_obs: dict[str, Tensor]) -> Tensor:
        """(n, branches) or (n, branches, atoms) what the target says of the best choices next."""
        said = judge = self._values(self.target(next_obs))
        if self.config.double:
            self.online.renoise()
            judge = self._values(self.online(next_obs))
        values = judge.softmax(3) @ self._support if self.config.atoms > 1 else judge
        return pick(said, self._branches.best(values, batch.next_obs))

    def _expected(self, batch: Batch, next_obs: dict[str, Tensor]) -> Tensor:
        """(n, branches): r + gamma Q'(s', argmax Q(s', .)) (van Hasselt et al. 2016, equation 4)."""
        return batch.reward.unsqueeze(1) + batch.discount.unsqueeze(1) * self._next(batch, next_obs)

    def _categorical(self, batch: Batch, next_obs: dict[str, Tensor]) -> Tensor:
        """(n, branches, atoms): r + gamma z of the next state's atoms z, put on the support (Bellemare et al. 2017).

        Equation 7: each goes to its two neighbours, more to the nearer one.
        """
        config, likely = self.config, self._next(batch, next_obs).softmax(2)
        landed = torch.addcmul(batch.reward.unsqueeze(1), batch.discount.unsqueeze(1), self._support)  # (n, atoms)
        gap = (config.v_max - config.v_min) / (config.atoms - 1)
        place = (landed - config.v_min).div_(gap).clamp_(0, config.atoms - 1).unsqueeze(1)
        below = place.long().clamp_(0, config.atoms - 2)  # also of what is not a number
        above_share, index = place - below, below.expand_as(likely)
        projected = torch.zeros_like(likely).scatter_add_(2, index, likely * (1 - above_share))
        return projected.scatter_add_(2, index + 1, likely * above_share)

    def _munchausen(self, batch: Batch, obs: dict[str, Tensor], next_obs: dict[str, Tensor]) -> Tensor:
        """(n, branches): r + alpha [tau ln pi(a|s)] + gamma sum_a' pi(a'|s') (q'(s', a') - tau ln pi(a'|s')).

        Vieillard et al. 2020, equation 2; pi is the softmax of q' / tau, so that the sum is tau ln sum exp (q' / tau).
        """
        config, branches = self.config, self._branches
        now, later = (
            (self._values(self.target(each)) / config.temperature).masked_fill(~branches.allowed(seen), -torch.inf)
            for each, seen in ((obs, batch.obs), (next_obs, batch.next_obs))
        )
        log_likely = pick(now.log_softmax(2), batch.choice)
        bonus = config.bonus * (config.temperature * log_likely).clamp(config.bonus_min, 0)
        soft = config.temperature * later.logsumexp(2)
        return batch.reward.unsqueeze(1) + bonus + batch.discount.unsqueeze(1) * soft

    def policy_parameters(self) -> Tensor:
        return self._networks.policy_parameters()

    def state_dict(self) -> dict[str, Any]:
        return self._networks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._networks.load_state_dict(state)
