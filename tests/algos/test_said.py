"""The way back through a network, by hand and by autograd, against autograd on the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algos.nets import VECTOR, Network, flatten
from algos.said import say
from algos.twins import Twins
from core.net import NetSpec

SPEC = NetSpec({"x": (3,)}, (8, 5), 2, extra=2)
SPECS = {
    "two hidden layers": SPEC,
    "one": replace(SPEC, hidden=(8,)),
    "none": replace(SPEC, hidden=()),
    "four, by tanh": replace(SPEC, hidden=(8, 5, 8, 8), activation="tanh"),
    "not plain": replace(SPEC, layer_norm=True),
}


def made(spec: NetSpec) -> Network:
    torch.manual_seed(0)
    network = Network(spec, last=None)
    flatten(network)
    return network


def inputs(n: int = 7) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    random = torch.Generator().manual_seed(n)
    return {VECTOR: torch.randn(n, 3, generator=random)}, torch.randn(n, 2, generator=random), torch.randn(n, 2)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
class TestOne:
    def test_inference_mode_changes_nothing(self, spec: NetSpec) -> None:
        obs, extra, grad = inputs()
        results = []
        for mode in (torch.no_grad(), torch.inference_mode()):
            network = made(spec)
            with mode:
                said, again = say(network, obs, extra * 1), say(network, obs, extra * 1)
                said.learn(grad * 1)
                by_extra = again.by_extra(grad * 1)
            results.append([said.value, by_extra, *(each.grad for each in network.parameters())])
        for one, other in zip(*results, strict=True):
            assert one is not None and other is not None and one.equal(other)

    def test_value_and_gradients_are_autograds(self, spec: NetSpec) -> None:
        obs, extra, grad = inputs()
        ours, theirs = made(spec), made(spec)
        with torch.no_grad():
            assert (ours.by_hand() is None) == spec.layer_norm
            said, again = say(ours, obs, extra), say(ours, obs, extra)
            acted = ours(obs, extra)
            said.learn(grad)
            by_extra = again.by_extra(grad)
        extra.requires_grad_()
        value = theirs(obs, extra)
        torch.autograd.backward(value, grad)
        for each in (said.value, again.value, acted):
            torch.testing.assert_close(each, value.detach())
        assert extra.grad is not None
        torch.testing.assert_close(by_extra, extra.grad)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)

    def test_gradients_are_set_and_not_added_to_and_those_by_extra_leave_them_alone(self, spec: NetSpec) -> None:
        obs, extra, grad = inputs()
        network = made(spec)
        with torch.no_grad():
            say(network, obs, extra).learn(grad)
            once = [each.grad.clone() for each in network.parameters() if each.grad is not None]
            say(network, obs, extra).by_extra(grad)
            say(network, *inputs(4)[:2]).by_extra(inputs(4)[2])
            say(network, obs, extra).learn(grad)
        assert len(once) > 1
        for parameter, before in zip(network.parameters(), once, strict=True):
            assert parameter.grad is not None and parameter.grad.equal(before)


def test_what_was_said_of_one_batch_stands_while_others_are_asked_about() -> None:
    network = made(SPEC)
    obs, extra, grad = inputs()
    with torch.no_grad():
        say(network, obs, extra).learn(grad)
        alone = [each.grad.clone() for each in network.parameters() if each.grad is not None]
        said = say(network, obs, extra)
        for _ in range(3):
            other = {VECTOR: torch.randn(7, 3)}
            network(other, extra)
            say(network, other, extra).by_extra(grad)
        said.learn(grad)
    for parameter, before in zip(network.parameters(), alone, strict=True):
        assert parameter.grad is not None and parameter.grad.equal(before)


def test_under_autocast_wide_products_are_in_its_type_and_all_that_comes_out_is_float32() -> None:
    network = made(replace(SPEC, hidden=(128, 128)))
    obs, extra = {VECTOR: torch.randn(128, 3)}, torch.randn(128, 2)
    grad = torch.randn(128, network.spec.outputs)

    def learned() -> list[Tensor]:
        said = say(network, obs, extra)
        said.learn(grad)
        gradients = [each.grad.clone() for each in network.parameters() if each.grad is not None]
        return [said.value, *gradients, say(network, obs, extra).by_extra(grad)]

    with torch.no_grad():
        exact = learned()
        with torch.autocast("cpu", torch.bfloat16):
            cast = learned()
    assert not exact[0].equal(cast[0])
    for one, other in zip(exact, cast, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() < 0.1 * one.norm()


def test_twins_follow_a_target_each_by_itself_and_give_the_sum_by_action() -> None:
    torch.manual_seed(0)
    twins = Twins(replace(SPEC, outputs=1))
    flatten(twins)
    obs, action, _ = inputs()
    grad, target, weight = torch.randn(2, 7), torch.randn(7), torch.rand(7)
    with torch.no_grad():
        said = twins.say(obs, action)
        value, by_action = said.value, said.by_action(grad)
        followed = twins.follow(obs, action, target, weight, factor=0.5)
    ours = [each.grad.clone() for each in twins.parameters() if each.grad is not None]
    for each in twins.parameters():
        each.grad = torch.zeros_like(each)
    action.requires_grad_()
    theirs = twins(obs, action)
    torch.testing.assert_close(value, theirs.detach())
    torch.testing.assert_close(by_action, torch.autograd.grad(theirs, action, grad, retain_graph=True)[0])
    loss = 0.5 * sum((weight * (target - each).square()).mean() for each in theirs)
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss, inputs=list(twins.parameters()))
    for one, other in zip(ours, twins.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)
    error = target - value
    for told, expected in zip(followed, (loss.detach(), value.mean(), error.abs().mean(dim=0)), strict=True):
        torch.testing.assert_close(told, expected)
