"""DDPG (Lillicrap et al. 2016), TD3 (Fujimoto et al. 2018) and SAC (Haarnoja et al. 2018) as one would write them down
for a single run: separate modules and parameters, autograd, torch.optim.Adam as it comes, five numpy arrays to replay
from."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from scripts.profile.cases import Case

GAMMA, TAU, LR = 0.99, 0.005, 1e-3
SIGMA, CLIP, DELAY = 0.2, 0.5, 2  # TD3's smoothing of the target's actions, and how often its actor learns


class Buffer:
    """A full one, of random transitions."""

    def __init__(self, case: Case) -> None:
        random = self._random = np.random.default_rng(0)
        self._batch, self._device = case.batch, case.device
        self.obs, self.next_obs = (random.standard_normal((case.capacity, case.obs), np.float32) for _ in range(2))
        self.action = random.uniform(-1, 1, (case.capacity, case.continuous)).astype(np.float32)
        self.reward = random.standard_normal((case.capacity, 1), np.float32)
        self.done = (random.random((case.capacity, 1)) < 0.01).astype(np.float32)

    def sample(self) -> list[Tensor]:
        drawn = self._random.integers(0, len(self.obs), self._batch)
        fields = self.obs, self.action, self.reward, self.done, self.next_obs
        return [torch.from_numpy(field[drawn]).to(self._device) for field in fields]


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """With rectified units between its layers."""
    sizes = [inputs, *hidden]
    layers = [each for size in zip(sizes, hidden, strict=False) for each in (nn.Linear(*size), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


class _Networks:
    """Actor and critics, with their targets."""

    def __init__(self, case: Case, num_critics: int, stochastic: bool = False) -> None:
        actor = network(case.obs, case.hidden, 2 * case.continuous if stochastic else case.continuous)
        self.actor = (actor if stochastic else nn.Sequential(actor, nn.Tanh())).to(case.device)
        self.critics = nn.ModuleList(
            network(case.obs + case.continuous, case.hidden, 1) for _ in range(num_critics)
        ).to(case.device)
        self.target_actor, self.target_critics = deepcopy(self.actor), deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), LR)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), LR)

    def learn_critics(self, batch: list[Tensor], next_action: Tensor, bonus: Tensor | float = 0.0) -> None:
        """`bonus`: what is added to the next action's value."""
        obs, action, reward, done, next_obs = batch
        with torch.no_grad():
            after = torch.cat([next_obs, next_action], 1)
            next_q = torch.stack([critic(after) for critic in self.target_critics]).amin(0) + bonus
            target = reward + GAMMA * (1 - done) * next_q
        now = torch.cat([obs, action], 1)
        loss = sum((functional.mse_loss(critic(now), target) for critic in self.critics), torch.zeros(()))
        self.critic_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()

    def learn_actor(self, obs: Tensor) -> None:
        loss = -self.critics[0](torch.cat([obs, self.actor(obs)], 1)).mean()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()

    def follow(self) -> None:
        pairs = (self.actor, self.target_actor), (self.critics, self.target_critics)
        with torch.no_grad():
            for online, target in pairs:
                for one, other in zip(online.parameters(), target.parameters(), strict=True):
                    other.mul_(1 - TAU).add_(one, alpha=TAU)


def ddpg(case: Case) -> Callable[[], int]:
    """What does one update and returns 1."""
    buffer, networks = Buffer(case), _Networks(case, 1)

    def update() -> int:
        batch = buffer.sample()
        with torch.no_grad():
            next_action = networks.target_actor(batch[4])
        networks.learn_critics(batch, next_action)
        networks.learn_actor(batch[0])
        networks.follow()
        return 1

    return update


def td3(case: Case) -> Callable[[], int]:
    """What does one update and returns 1."""
    buffer, networks, done = Buffer(case), _Networks(case, 2), 0

    def update() -> int:
        nonlocal done
        batch = buffer.sample()
        with torch.no_grad():
            next_action = networks.target_actor(batch[4])
            noise = (torch.randn_like(next_action) * SIGMA).clamp(-CLIP, CLIP)
            next_action = (next_action + noise).clamp(-1, 1)
        networks.learn_critics(batch, next_action)
        done += 1
        if done % DELAY == 0:
            networks.learn_actor(batch[0])
            networks.follow()
        return 1

    return update


def sac(case: Case) -> Callable[[], int]:
    """What does one update and returns 1."""
    buffer, networks = Buffer(case), _Networks(case, 2, stochastic=True)
    log_alpha = torch.zeros(1, requires_grad=True, device=case.device)
    alpha_optimizer = torch.optim.Adam([log_alpha], LR)

    def draw(obs: Tensor) -> tuple[Tensor, Tensor]:
        """(n, continuous) actions, and (n, 1) their log-probabilities."""
        mean, log_std = networks.actor(obs).chunk(2, 1)
        normal = Normal(mean, log_std.clamp(-20, 2).exp(), validate_args=False)
        before = normal.rsample()
        action = before.tanh()
        log_prob = normal.log_prob(before) - torch.log(1 - action.square() + 1e-6)  # type: ignore[no-untyped-call]
        return action, log_prob.sum(1, keepdim=True)

    def update() -> int:
        batch = buffer.sample()
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = draw(batch[4])
        networks.learn_critics(batch, next_action, -alpha * next_log_prob)
        action, log_prob = draw(batch[0])
        now = torch.cat([batch[0], action], 1)
        lower = torch.stack([critic(now) for critic in networks.critics]).amin(0)
        networks.actor_optimizer.zero_grad()
        (alpha * log_prob - lower).mean().backward()  # type: ignore[no-untyped-call]
        networks.actor_optimizer.step()
        alpha_optimizer.zero_grad()
        (-log_alpha * (log_prob.detach() - case.continuous).mean()).backward()  # type: ignore[no-untyped-call]
        alpha_optimizer.step()
        networks.follow()
        return 1

    return update


UPDATES = {"ddpg": ddpg, "td3": td3, "sac": sac}
