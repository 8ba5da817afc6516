"""R2D2 as its paper has it, decision by decision: what algos/r2d2.py is compared with."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.nets import Network
from algos.r2d2 import R2D2
from core.types import ACTION_MASK, Rows
from tests.algos.recurrent_rows import BRANCHES, OBS


class Plain:
    """The network of one algorithm: one observation at a time, in double precision."""

    def __init__(self, network: Network) -> None:
        self.spec = network.spec
        self.arrays = {name: each.detach().double().requires_grad_() for name, each in network.named_parameters()}

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Values of each branch's choices, and the state after."""
        hidden = len(self.spec.hidden)
        in_head = 1 if self.spec.dueling else 0
        for number in range(hidden - in_head):
            x = torch.relu(self._dense(f"body.{number}", x))
        # Gers et al. 2000
        w, p = self.arrays, "lstm.0"
        gates = w[f"{p}.weight_ih_l0"] @ x + w[f"{p}.bias_ih_l0"] + w[f"{p}.weight_hh_l0"] @ h + w[f"{p}.bias_hh_l0"]
        i, f, g, o = gates.view(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if not self.spec.dueling:
            return self._branches(self._dense("head.0", h)), h, c
        # Wang et al. 2016, equation 9
        value = self._dense("value.1", torch.relu(self._dense("value.0", h)))
        advantages = self._branches(self._dense("head.1", torch.relu(self._dense("head.0", h))))
        return [value + each - each.mean() for each in advantages], h, c

    def unroll(self, xs: list[Tensor], state: Tensor, cut: int) -> list[list[Tensor]]:
        """[time][branch] values; no gradient goes back beyond observation `cut`."""
        h, c = state.view(2, -1)
        values = []
        for time, x in enumerate(xs):
            if time == cut:
                h, c = h.detach(), c.detach()
            said, h, c = self.step(x, h, c)
            values.append(said)
        return values

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return self.arrays[f"{name}.weight"] @ x + self.arrays[f"{name}.bias"]

    def _branches(self, x: Tensor) -> list[Tensor]:
        return [x[first:end] for first, end in pairwise(accumulate(BRANCHES, initial=0))]

    def vector(self) -> Tensor:
        return torch.cat([each.detach().reshape(-1) for each in self.arrays.values()])


class Paper:
    """Section 2.3 of Kapturowski et al. 2019 in loops and double precision, and Adam as Kingma and Ba 2015 wrote it."""

    def __init__(self, r2d2: R2D2) -> None:
        self.config = r2d2.config
        self.online, self.target = Plain(r2d2.online), Plain(r2d2.target)
        self.shown: list[Tensor] = []
        self.priorities: list[float] = []
        self.loss = 0.0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._updates = 0

    def update(self, rows: Rows, weight: Tensor) -> None:
        self._updates += 1
        for row in rows:
            self.shown += self._observed(row)[: int(row["valid"].sum())]
        losses, number = [], 0
        self.priorities = []
        for row, importance in zip(rows, weight.double(), strict=True):
            deltas = self._deltas(row)
            losses += [importance * sum(delta**2 for delta in each) / len(each) for each in deltas]
            number += len(deltas)
            # p = eta max_i |delta_i| + (1 - eta) mean of |delta_i|
            sizes = [sum(float(delta.detach().abs()) for delta in each) / len(each) for each in deltas]
            self.priorities.append(self.config.eta * max(sizes) + (1 - self.config.eta) * sum(sizes) / len(sizes))
        loss = torch.stack(losses).sum() / number
        self.loss = float(loss.detach())
        self._adam(loss)
        if self._updates % self.config.target_every == 0:
            tau = self.config.tau
            for name, slow in self.target.arrays.items():
                slow.data = tau * self.online.arrays[name].data + (1 - tau) * slow.data

    def _deltas(self, row: Any) -> list[list[Tensor]]:
        """h(G) - Q(s, a) of each branch, for each decision that is learned."""
        config, end = self.config, int(row["valid"].sum())
        first, state = not row["state"].any(), torch.from_numpy(row["state"].astype(np.float64))
        xs = [self._normalized(x) for x in self._observed(row)]
        q = self.online.unroll(xs, state, cut=-1 if first else config.burn_in)
        slow = self.target.unroll(xs, state, cut=-1)
        reward, discount = row["reward"].astype(np.float64), row["discount"].astype(np.float64)
        result = []
        for t in range(0 if first else config.burn_in, end):
            n, each = min(config.n_step, end - t), []
            for branch, values in enumerate(q[t]):
                g, factor = 0.0, 1.0
                for k in range(n):
                    g, factor = g + factor * reward[t + k], factor * discount[t + k]
                said, judge = slow[t + n][branch], (q if config.double else slow)[t + n][branch]
                allowed = row["obs"][ACTION_MASK][t + n][sum(BRANCHES[:branch]) :]
                best = max((value.item(), choice) for choice, value in enumerate(judge) if allowed[choice])[1]
                g += factor * self._h_inverse(said[best].item())
                each.append(self._h(g) - values[row["choice"][t, branch]])
            result.append(each)
        return result

    def _h(self, x: float) -> float:
        return float(np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x) if self.config.rescale else x

    def _h_inverse(self, x: float) -> float:
        e = 1e-3
        root = np.sqrt(1 + 4 * e * (abs(x) + 1 + e)) - 1
        return float(np.sign(x) * ((root / (2 * e)) ** 2 - 1)) if self.config.rescale else x

    def _observed(self, row: Any) -> list[Tensor]:
        fields = [row["obs"][name].reshape(len(row["obs"]), -1) for name in OBS]
        return list(torch.from_numpy(np.concatenate(fields, axis=1).astype(np.float64)))

    def _normalized(self, x: Tensor) -> Tensor:
        if not self.config.normalize:
            return x
        shown = torch.stack(self.shown)
        deviation = torch.sqrt(((shown - shown.mean(0)) ** 2).mean(0))
        return torch.clamp((x - shown.mean(0)) / deviation, -5, 5)

    def _adam(self, loss: Tensor) -> None:
        arrays = self.online.arrays
        gradients = torch.autograd.grad(loss, list(arrays.values()))
        for (name, parameter), gradient in zip(arrays.items(), gradients, strict=True):
            m, v = self._moments.get(name, (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            self._moments[name] = m, v
            unbiased_m, unbiased_v = m / (1 - 0.9**self._updates), v / (1 - 0.999**self._updates)
            parameter.data = parameter.data - self.config.lr * unbiased_m / (torch.sqrt(unbiased_v) + 1e-8)
