"""The least that an update of networks takes: its products of matrices alone, and its optimizer's arithmetic.

One update is watched, and of all that it asks of torch these are kept: each product, done again by torch.mm, torch.bmm
or torch's convolution on arrays of its sizes that are already there, without bias or activation; Adam; and what follows
with the target networks. Everything else (activations, losses, sampling, Python) takes no time here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_aten = torch.ops.aten
_PRODUCTS = {  # packet -> where its two matrices stand, and what multiplies such
    _aten.mm: (0, torch.mm),
    _aten.addmm: (1, torch.mm),
    _aten.addmm_: (1, torch.mm),
    _aten._addmm_activation: (1, torch.mm),
    _aten.bmm: (0, torch.bmm),
    _aten.baddbmm: (1, torch.bmm),
    _aten.baddbmm_: (1, torch.bmm),
}
_AS_THEY_ARE = {
    *(_aten.convolution, _aten.convolution_backward, _aten.mkldnn_rnn_layer, _aten.mkldnn_rnn_layer_backward),
    *(_aten._cudnn_rnn, _aten._cudnn_rnn_backward, _aten._fused_adam_, _aten.lerp_, _aten._foreach_lerp_),
}
Work = Callable[[], object]


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, it keeps what torch is asked for; `again` does that, and nothing else."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.works: list[Work] = []
        """in their order"""
        self._known: dict[Any, Work] = {}  # what has the same sizes has the same arrays: the caches are at their best

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in _PRODUCTS or packet in _AS_THEY_ARE:
            sizes = [
                (each.shape, each.stride(), each.dtype) for each in tree_leaves((args, kwargs)) if _is_tensor(each)
            ]
            key = (packet, str(sizes))
            if key not in self._known:
                self._known[key] = _alone(func, args, kwargs)
            self.works.append(self._known[key])
        return func(*args, **kwargs)

    @torch.inference_mode()
    def again(self) -> None:
        for work in self.works:
            work()


def _alone(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Work:
    if func.overloadpacket in _PRODUCTS:
        first, product = _PRODUCTS[func.overloadpacket]
        one, other = (each.detach().clone() for each in args[first : first + 2])
        return partial(product, one, other, out=product(one, other))
    args, kwargs = tree_map(_copy, (args, kwargs))
    return partial(func, *args, **kwargs)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
