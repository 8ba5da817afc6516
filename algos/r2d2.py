"""Recurrent replay: Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning".

Double DQN with an LSTM before a dueling head, from sequences of one agent that begin with the recurrent state which the
agent had there: the first `burn_in` decisions only bring that state up to date, the `unroll` after them are learned.

Deviations from the paper: an episode's first sequence needs no burn-in and is learned whole; several branches of
choices, and masked ones, as in algos/dqn.py; the LSTM sees neither the last choice nor the last reward; n-step
returns are shorter at a sequence's end; linearly falling epsilon by default, the paper's ladder is an option; uniform
replay by default, and new sequences come in with the highest priority; sizes and rates for small vector observations.
docs/algos/r2d2.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algos.config import Greedy, only_discrete
from algos.discrete import Branches, pick
from algos.nets import prepare
from algos.online_target import OnlineTarget
from core.acting import PolicySpec
from core.types import Batch, EnvSpec, Learned, Recording, changeable, require

_RESCALING = 1e-3
"""epsilon of the rescaling h, which keeps its inverse from growing without bound"""


@dataclass(frozen=True)
class Config(Greedy):
    """R2D2. Fractions and rates are per update; steps are agent steps; a sequence stands for `stride` decisions."""

    hidden: tuple[int, ...] = (64,)
    """width of each hidden layer; the last one lies behind the LSTM, or, without dueling, none does"""
    lstm: int = 64
    """units of the LSTM"""
    burn_in: int = 10
    """decisions at a sequence's start from which nothing is learned but the recurrent state"""
    unroll: int = 20
    """decisions after them that are learned"""
    stride: int = 10
    """decisions from the start of an agent's sequence to that of its next one"""
    batch_size: int = 32
    """sequences in one update"""
    replay_ratio: float = changeable(80.0)
    """how often a decision is sampled on average; 0: collect only"""
    lr: float = changeable(5e-4)
    """Adam's learning rate"""
    tau: float = changeable(0.02)
    """fraction by which the target network follows when it does; 1: it becomes what the network is"""
    target_every: int = changeable(1)
    """updates from one such step of the target network to the next"""
    n_step: int = 5
    """rewards counted before the target network's estimate takes over"""
    dueling: bool = True
    """the last hidden layer exists twice, for a state's value and for advantages (Wang et al. 2016)"""
    rescale: bool = True
    """learn values through h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x (Pohlen et al. 2018)"""
    eta: float = changeable(0.9)
    """prioritised: how much a sequence's largest TD error counts, the rest of 1 is its mean's"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("--algo.lstm", self.lstm, self.lstm >= 1, "at least 1")
        require("--algo.burn-in", self.burn_in, self.burn_in >= 0, "at least 0")
        require("--algo.unroll", self.unroll, self.unroll >= 1, "at least 1")
        wish = f"from 1 to --algo.unroll {self.unroll}, or else some decisions are never learned"
        require("--algo.stride", self.stride, 1 <= self.stride <= self.unroll, wish)
        wish = f"at most --algo.unroll {self.unroll}: returns end with their sequence"
        require("--algo.n-step", self.n_step, self.n_step <= self.unroll, wish)
        require("--algo.eta", self.eta, 0 <= self.eta <= 1, "from 0 to 1")
        wish = "False: what a sequence is worth, its worker does not know"
        require("--algo.worker-priorities", self.worker_priorities, not self.worker_priorities, wish)


class R2D2:
    """A network that remembers and says what each choice is worth, and a slower copy of it that says what to learn."""

    def __init__(self, spec: EnvSpec, config: Config, device: str = "cpu") -> None:
        only_discrete("R2D2", spec)
        self.config = config
        sizes, length = spec.action.branches, config.burn_in + config.unroll
        self.recording = Recording(config.gamma, length=length, stride=config.stride, state_dim=2 * config.lstm)
        net = config.net(
            spec,
            sum(sizes),
            lstm=config.lstm,
            dueling=sizes if config.dueling else (),
            noisy=config.noisy,
            extras={"epsilon": 1},
        )
        self.policy_spec = PolicySpec(net, "greedy", ladder=config.ladder)
        self._branches = Branches(sizes, device)
        self._networks = OnlineTarget(net, config, device)
        self.online, self.target = self._networks.online, self._networks.target
        self.normalizer = self._networks.normalizer
        self.optimizers, self.graphs = (self._networks.optimizer,), self._networks.graphs
        self._is_unrolled = torch.arange(length, device=device) >= config.burn_in

    def update(self, batch: Batch) -> Learned:
        """One update of the network, and now and then of its target (section 2.3 of the paper)."""
        assert batch.valid is not None
        self._show(batch.obs, batch.valid)
        return self._networks.update(self._learn, self.config, batch)

    def _learn(self, config: Config, batch: Batch) -> Learned:
        assert batch.valid is not None and batch.state is not None
        obs = prepare(batch.obs, self.policy_spec.net, self.normalizer)

        # at an episode's start the state is zero, whatever the weights: nothing there has to be brought up to date
        is_first = (batch.state == 0).all(dim=1, keepdim=True)
        counts = batch.valid * (self._is_unrolled | is_first)  # (n, T)
        number = counts.sum()

        # what the choices were thought to be worth, and turned out to be: (n, T, branches), rescaled
        self.online.renoise()
        online = self._spread(self._unroll(obs, batch.state, is_first))
        q = pick(online[:, :-1].flatten(0, 1), batch.choice.flatten(0, 1)).view(batch.choice.shape)
        with torch.no_grad():
            self.target.renoise()
            target = self._spread(self.target.unroll(obs, batch.state)[0])
            returns = self._rescaled(self._returns(batch, online if config.double else target, target))
        td_error = returns - q
        loss = (batch.weight.unsqueeze(1) * counts * td_error.square().mean(2)).sum() / number
        self._networks.optimizer.descend(loss, config, config.lr, batch.agent_steps)

        # priority: eta max |delta| + (1 - eta) mean |delta|, over a sequence
        error = counts * td_error.detach().abs().mean(2)
        priority = config.eta * error.amax(1) + (1 - config.eta) * error.sum(1) / counts.sum(1)
        worth = (counts * self._restored(q.detach()).mean(2)).sum() / number
        return Learned({"loss": loss.detach(), "q": worth}, priority)

    def _show(self, obs: dict[str, Tensor], valid: Tensor) -> None:
        """Count in what was seen before each decision; what follows an episode's end is no observation."""
        is_seen, net = valid.bool(), self.policy_spec.net
        if net.normalize:  # to ask what is valid is to wait for the device
            self.normalizer.show({name: obs[name][:, :-1][is_seen] for name in net.vector}, net)

    def _unroll(self, obs: dict[str, Tensor], state: Tensor, is_first: Tensor) -> Tensor:
        """(n, T + 1, outputs) of the online network; no gradient goes back into a burn-in."""
        split = self.config.burn_in
        if not split:
            return self.online.unroll(obs, state)[0]
        before, state = self.online.unroll({name: field[:, :split] for name, field in obs.items()}, state)
        state = torch.where(is_first, state, state.detach())
        after, _ = self.online.unroll({name: field[:, split:] for name, field in obs.items()}, state)
        return torch.cat([before, after], dim=1)

    def _spread(self, output: Tensor) -> Tensor:
        """(n, T + 1, outputs) -> (n, T + 1, branches, largest)"""
        values = self._branches.spread(output.flatten(0, 1))
        return values.view(*output.shape[:2], *values.shape[1:])

    def _returns(self, batch: Batch, judge: Tensor, target: Tensor) -> Tensor:
        """(n, T, branches) n-step returns, fewer steps at the end of the sequence or of its episode.

        With V(s) = h^-1(Q'(s, argmax Q(s, .))), each pass counts one more reward: G <- r + gamma G', where a sequence
        or an episode ends G = V.
        """
        assert batch.valid is not None
        obs = {name: field.flatten(0, 1) for name, field in batch.obs.items()}
        best = self._branches.best(judge.flatten(0, 1), obs)
        value = self._restored(pick(target.flatten(0, 1), best)).view(target.shape[:3])
        is_valid, reward, discount = (each.unsqueeze(2) for each in (batch.valid > 0, batch.reward, batch.discount))
        returns = value.clone()
        for _ in range(self.config.n_step):
            returns[:, :-1] = torch.where(is_valid, reward + discount * returns[:, 1:], value[:, :-1])
        return returns[:, :-1]

    def _rescaled(self, x: Tensor) -> Tensor:
        """h(x), section 2.3."""
        return x.sign() * ((x.abs() + 1).sqrt() - 1) + _RESCALING * x if self.config.rescale else x

    def _restored(self, x: Tensor) -> Tensor:
        """h^-1(x) (Pohlen et al. 2018, appendix A), in a form that takes no difference of near equals."""
        if not self.config.rescale:
            return x
        size = x.abs() + (1 + _RESCALING)
        return x.sign() * ((2 * size / ((1 + 4 * _RESCALING * size).sqrt() + 1)).square() - 1)

    def policy_parameters(self) -> Tensor:
        return self._networks.policy_parameters()

    def state_dict(self) -> dict[str, Any]:
        return self._networks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._networks.load_state_dict(state)
