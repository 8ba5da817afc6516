"""Optimizer: one gradient step on one flat vector of parameters, as the configuration says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from algos.config import Networks, linear


class Optimizer:
    """Adam (Kingma and Ba 2015), with clipped gradients and a learning rate that falls, where that is asked for."""

    def __init__(self, flat: nn.Parameter, lr: float, config: Networks, eps: float = 1e-8) -> None:
        """`flat`: what algos.nets.flatten made of the networks that are trained."""
        self._flat, self._lr, self._config = flat, lr, config
        self._adam = torch.optim.Adam([flat], lr, eps=eps, fused=True)

    def descend(self, loss: Tensor, agent_steps: int) -> None:
        """One step down the gradient of `loss`."""
        config, grad = self._config, self._flat.grad
        assert grad is not None
        grad.zero_()
        torch.autograd.backward(loss)
        if config.max_grad_norm:
            grad.mul_((config.max_grad_norm / (grad.norm() + 1e-6)).clamp(max=1.0))
        if config.lr_steps:
            self._adam.param_groups[0]["lr"] = self._lr * linear(1.0, config.lr_end, config.lr_steps, agent_steps)
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(deepcopy(state))  # torch would share the tensors
