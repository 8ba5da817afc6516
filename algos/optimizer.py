"""Optimizer: one gradient step on one flat vector of parameters, as the configuration says.

A step whose loss, or whose gradient's square, is not finite is skipped: parameters and Adam's moments stay as they are.
Where several learners learn together, each step is down the mean of their gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from algos.config import Networks, linear
from core.group import joined
from core.types import Skipped


class Optimizer:
    """Adam (Kingma and Ba 2015), with clipped gradients and a learning rate that falls, where that is asked for."""

    def __init__(self, flat: nn.Parameter, eps: float = 1e-8) -> None:
        """`flat`: what algos.nets.flatten made of the networks that are trained."""
        assert flat.grad is not None
        self._eps = eps
        self._parameters, self._grad = flat.data, flat.grad
        self._mean, self._square = torch.zeros_like(flat.data), torch.zeros_like(flat.data)  # of the gradients
        self._steps = torch.zeros((), device=flat.device)  # in float32: beyond 2^24 it stands still
        self._is_cpu = flat.is_cpu
        # as Skipped has them; elsewhere than on the CPU they stay where they are counted
        self._total: int | Tensor = 0 if flat.is_cpu else torch.zeros((), device=flat.device)
        self._in_a_row: int | Tensor = 0 if flat.is_cpu else torch.zeros((), device=flat.device)

    def descend(
        self, loss: Tensor, config: Networks, lr: float, agent_steps: int, weight: float | Tensor = 1.0
    ) -> None:
        """Find the gradient of `loss`, and take a step down it."""
        self.backward(loss)
        self.step(loss.detach(), config, lr, agent_steps, weight)

    def backward(self, loss: Tensor) -> None:
        """Set the gradient to that of `loss`."""
        self._grad.zero_()
        torch.autograd.backward(loss)

    def step(self, loss: Tensor, config: Networks, lr: float, agent_steps: int, weight: float | Tensor = 1.0) -> None:
        """One step down the gradient that was set, of `loss`, at what has become of `lr` after so many agent steps.

        `weight`: how much they count beside those of other learners; the rows that they are the mean of, if these have
        not equally many.
        """
        grad = self._grad
        if (group := joined()) is not None:
            loss = group.average(grad, loss, weight)
        judged, found_inf = grad.dot(grad), None
        if self._is_cpu:
            if not math.isfinite(judged.item() + loss.item()):
                self._total, self._in_a_row = self._total + 1, self._in_a_row + 1
                return
            self._in_a_row = 0
        else:  # nobody waits for the device
            found_inf = (~(judged + loss).isfinite()).float()
            self._total += found_inf
            self._in_a_row += found_inf
            self._in_a_row *= found_inf
        if config.max_grad_norm:
            grad.mul_((config.max_grad_norm / (grad.norm() + 1e-6)).clamp(max=1.0))
        if config.lr_steps:
            lr *= linear(1.0, config.lr_end, config.lr_steps, agent_steps)
        self._steps += 1 if found_inf is None else 1 - found_inf
        torch._fused_adam_(  # what torch.optim.Adam calls; what it does around this takes as long again
            [self._parameters],
            [grad],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self._eps,
            amsgrad=False,
            maximize=False,
            found_inf=found_inf,
        )

    def skipped(self) -> Skipped:
        """Steps that were not done; those in a row up to now, or since a state was loaded. Waits for the device."""
        return Skipped(int(self._total), int(self._in_a_row))

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self._mean, "square": self._square, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, its in self.state_dict().items():
            its.copy_(state[name])
        self._in_a_row *= 0
