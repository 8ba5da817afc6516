"""One spec, two forward passes: numpy's and torch's do the same, and what the papers say."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from algos.nets import VECTOR, Network, Normalizer, prepare
from core.net import ACTING_QUANTILES, Net, NetSpec, layers, num_parameters, shapes
from core.types import FloatArray

VECTORS = st.lists(st.sampled_from([(), (1,), (8,), (3, 2), (2, 2, 2, 2)]), max_size=2)
IMAGES = st.lists(st.sampled_from([(3, 36, 37), (1, 40, 36), (4, 45, 41)]), max_size=2)
INPUTS = st.tuples(VECTORS, IMAGES).filter(any).flatmap(lambda both: st.permutations([*both[0], *both[1]])).map(
    lambda chosen: {f"field{i}": shape for i, shape in enumerate(chosen)}
)  # fmt: skip
DUELING = st.sampled_from([(), (), (3,), (2, 1, 4)])


@st.composite
def specs(draw: st.DrawFn) -> NetSpec:
    dueling = draw(DUELING)
    lstm, cosines = draw(st.sampled_from([(0, 0), (0, 0), (7, 0), (0, 5)]))
    return NetSpec(
        inputs=draw(INPUTS),
        hidden=tuple(draw(st.lists(st.integers(1, 40), max_size=3))),
        outputs=sum(dueling or (1,)) * draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(["relu", "tanh"])),
        normalize=draw(st.booleans()),
        layer_norm=draw(st.booleans()),
        conv=draw(st.sampled_from(["simple", "nature", "impala"])),
        lstm=lstm,
        dueling=dueling,
        noisy=draw(st.booleans()),
        cosines=cosines,
        extras=draw(st.sampled_from([{}, {"log_std": 2, "epsilon": 1}])),
    )


def random_obs(spec: NetSpec, leading: tuple[int, ...], random: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Images are bytes or floats, vectors floats."""
    obs: dict[str, npt.NDArray[Any]] = {}
    for name, shape in spec.inputs.items():
        if len(shape) == 3 and random.random() < 0.7:
            obs[name] = random.integers(0, 256, (*leading, *shape), np.uint8)
        else:
            obs[name] = random.normal(0.5, 1, (*leading, *shape)).astype(np.float32)
    return obs


def in_torch(obs: dict[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in obs.items()}


def moved(network: Network) -> Network:
    """Away from the start, where biases and last layers say almost nothing; numbers stay of order one."""
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
            parameter.add_(torch.randn(parameter.shape) / fan_in**0.5)
    return network


def shipped(network: Network, normalizer: Normalizer | None = None) -> FloatArray:
    statistics = [normalizer.mean, normalizer.scale] if normalizer and network.spec.normalize else []
    extras = [torch.arange(float(count)) for count in network.spec.extras.values()]
    parameters = [parameter.detach().reshape(-1) for parameter in network.parameters()]
    result: FloatArray = torch.cat([*statistics, *parameters, *extras]).numpy()
    return result


def with_noise_of(network: Network, net: Net) -> Net:
    for mine, theirs in zip(net._noise, network.buffers(), strict=True):
        mine[:] = theirs
    return net


@given(spec=specs(), n=st.integers(0, 5), seed=st.integers(0, 2**16))
@settings(max_examples=120, deadline=None)
def test_numpy_and_torch_act_alike(spec: NetSpec, n: int, seed: int) -> None:
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network, normalizer = moved(Network(spec)), Normalizer(spec.width)
    if spec.width:
        normalizer.show(in_torch(random_obs(spec, (20,), random)), spec)
    network.renoise()
    parameters = shipped(network, normalizer)
    assert parameters.shape == (num_parameters(spec),)
    net = with_noise_of(network, Net(spec, parameters))
    obs = random_obs(spec, (n, 3) if spec.lstm else (n,), random)
    before = {name: values.copy() for name, values in obs.items()}
    with torch.no_grad():
        prepared = prepare(in_torch(obs), spec, normalizer)
        if spec.lstm:
            state = random.normal(0, 0.5, (n, 2 * spec.lstm)).astype(np.float32)
            wanted, wanted_state = network.unroll(prepared, torch.from_numpy(state.copy()))
            steps = [net({name: values[:, t] for name, values in obs.items()}, state) for t in range(3)]
            said = np.stack(steps, axis=1)
            np.testing.assert_allclose(state, wanted_state, rtol=1e-4, atol=1e-4)
        else:
            taus = (torch.arange(ACTING_QUANTILES) + 0.5).expand(n, -1) / ACTING_QUANTILES if spec.cosines else None
            wanted, said = network(prepared, taus=taus), net(obs)
            wanted = wanted.mean(dim=1) if spec.cosines else wanted
    assert said.dtype == np.float32 and said.shape[-1] == spec.outputs
    np.testing.assert_allclose(said, wanted, rtol=1e-4, atol=1e-4)
    assert all(np.array_equal(values, before[name]) for name, values in obs.items())


@given(spec=specs())
@settings(max_examples=50, deadline=None)
def test_a_networks_parameters_have_the_names_shapes_and_order_in_which_they_ship(spec: NetSpec) -> None:
    beside = ("mean", "scale", *(f"extras.{name}" for name in spec.extras))
    wanted = [(name, shape) for name, shape in shapes(spec).items() if name not in beside]
    assert [(name, tuple(parameter.shape)) for name, parameter in Network(spec).named_parameters()] == wanted


@given(spec=specs())
@settings(max_examples=50, deadline=None)
def test_a_spec_travels_as_json(spec: NetSpec) -> None:
    assert spec.width == spec.width  # computed once, and then no part of what travels
    assert msgspec.json.decode(msgspec.json.encode(spec), type=NetSpec) == spec
    assert set(msgspec.json.decode(msgspec.json.encode(spec))) == {each.name for each in fields(spec)}


def test_the_extras_are_views_of_what_ships_last() -> None:
    spec = NetSpec({"x": (2,)}, (), 1, extras={"log_std": 2, "epsilon": 1})
    parameters = np.zeros(num_parameters(spec), np.float32)
    net = Net(spec, parameters)
    parameters[-3:] = 1, 2, 3
    assert {name: values.tolist() for name, values in net.extras.items()} == {"log_std": [1, 2], "epsilon": [3]}


def test_the_extra_numbers_enter_beside_the_observation_and_are_not_normalised() -> None:
    spec = NetSpec({"x": (2,)}, (), 1, extra=3)
    network, x, action = moved(Network(spec)), torch.randn(4, 2), torch.full((4, 3), 100.0)
    head = network.groups["head"][0]
    assert isinstance(head, nn.Linear)
    wanted = torch.cat([x, action], dim=1) @ head.weight.T + head.bias
    torch.testing.assert_close(network({VECTOR: x}, action), wanted)
    with pytest.raises(ValueError, match="extra 3; it must be 0 in a network to act with"):
        Net(spec, np.zeros(num_parameters(spec), np.float32))


def test_fields_that_the_spec_does_not_name_do_not_enter() -> None:
    spec = NetSpec({"x": (2,), "eye": (1, 20, 20)}, (), 1, conv="simple")
    obs = {"eye": torch.ones(4, 1, 20, 20), "action_mask": torch.ones(4, 3), "x": torch.ones(4, 2)}
    assert set(prepare(obs, spec, None)) == {VECTOR, "eye"}


def test_bytes_of_an_image_become_numbers_to_one_and_its_floats_stay() -> None:
    spec = NetSpec({"eye": (1, 1, 2)}, (), 1, conv="impala")
    dark = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert prepare({"eye": dark}, spec, None)["eye"].tolist() == [[[[0.0, 1.0]]]]
    assert prepare({"eye": dark.double() * 2}, spec, None)["eye"].tolist() == [[[[0.0, 510.0]]]]


@pytest.mark.parametrize("bias", [0.0, 60.0])
def test_the_lstm_steps_as_torchs_even_with_gates_far_open(bias: float) -> None:
    torch.manual_seed(0)
    spec = NetSpec({"x": (3,)}, (), 5, normalize=False, lstm=5)
    network, reference = Network(spec), nn.LSTM(3, 5, batch_first=True)
    with torch.no_grad():
        for ours, theirs in zip(network.groups["lstm"][0].parameters(), reference.parameters(), strict=True):
            theirs.copy_(torch.randn(theirs.shape) + (bias if theirs.dim() == 1 else 0))
            ours.copy_(theirs)
        x, state = torch.randn(4, 6, 3), torch.randn(4, 10)
        wanted, (h, c) = reference(x, (state[None, :, :5].contiguous(), state[None, :, 5:].contiguous()))
    net, mine = Net(spec, shipped(network)), state.numpy().copy()
    for step in range(6):
        net({"x": x[:, step].numpy()}, mine)
        np.testing.assert_allclose(mine[:, :5], wanted[:, step], rtol=0, atol=1e-6)
    np.testing.assert_allclose(mine, torch.cat([h[0], c[0]], dim=1), rtol=0, atol=1e-5)


def test_the_advantages_of_each_branch_are_centred_around_the_value() -> None:
    spec = NetSpec({"x": (3,)}, (8,), 2 * (3 + 2), normalize=False, dueling=(3, 2))
    network, x = moved(Network(spec)), torch.randn(4, 3)
    value = network.groups["value"][1](network.groups["value"][0](x))
    assert value.shape == (4, 2)
    q = network({VECTOR: x}).view(4, 5, 2)
    for branch in (q[:, :3], q[:, 3:]):
        torch.testing.assert_close(branch.mean(dim=1), value)
    advantages = network.groups["head"][1](network.groups["head"][0](x)).view(4, 5, 2)
    torch.testing.assert_close(q[:, 0] - q[:, 1], advantages[:, 0] - advantages[:, 1])


def test_where_the_last_hidden_layer_lies_depends_on_the_head() -> None:
    def sizes(spec: NetSpec) -> dict[str, list[int]]:
        return {group: [layer.shapes().get("bias", (0,))[0] for layer in each] for group, each in layers(spec).items()}

    spec = NetSpec({"x": (3,)}, (8, 9), 4)
    assert sizes(spec) == {"body": [8], "lstm": [], "cosine": [], "value": [], "head": [9, 4]}
    duel = replace(spec, dueling=(2,))
    assert sizes(duel) == {"body": [8], "lstm": [], "cosine": [], "value": [9, 2], "head": [9, 4]}
    assert sizes(replace(spec, lstm=7)) == {"body": [8, 9], "lstm": [0], "cosine": [], "value": [], "head": [4]}
    assert sizes(replace(duel, lstm=7)) == {"body": [8], "lstm": [0], "cosine": [], "value": [9, 2], "head": [9, 4]}
    assert sizes(replace(spec, cosines=5)) == {"body": [8], "lstm": [], "cosine": [8], "value": [], "head": [9, 4]}


def test_quiet_noisy_layers_say_what_their_means_say() -> None:
    spec = NetSpec({"x": (3,)}, (8, 6), 2, normalize=False, noisy=True)
    network, plain = moved(Network(spec)), Network(replace(spec, noisy=False))
    means = {name: values for name, values in network.state_dict().items() if not name.endswith("sigma")}
    assert len(means) == len(network.state_dict()) - 4  # two layers, the last hidden one's and the output's
    plain.load_state_dict(means)
    net, x = Net(spec, shipped(network)), torch.randn(5, 3)
    for _ in range(2):
        torch.testing.assert_close(network({VECTOR: x}), plain({VECTOR: x}))
        np.testing.assert_allclose(net({"x": x.numpy()}), plain({VECTOR: x}).detach(), rtol=0, atol=1e-5)
        network.renoise()
        net.renoise(np.random.default_rng(0))
        assert (network({VECTOR: x}) - plain({VECTOR: x})).abs().min() > 0
        assert np.abs(net({"x": x.numpy()}) - plain({VECTOR: x}).detach().numpy()).min() > 0
        network.quiet()
        net.quiet()


def test_noise_multiplies_one_draw_for_each_input_and_one_for_each_output() -> None:
    """Weights get sigma * f(e_i) f(e_j), biases sigma * f(e_j), where f(e) = sgn(e) sqrt|e|."""
    spec = NetSpec({"x": (3,)}, (), 4, normalize=False, noisy=True)
    network = Network(spec)
    network.renoise(torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(1)
    e_in, e_out = torch.randn(3, generator=drawn), torch.randn(4, generator=drawn)
    f_in, f_out = (e.sign() * e.abs().sqrt() for e in (e_in, e_out))
    parts = network.state_dict()
    assert parts["head.0.weight_sigma"].unique().tolist() == pytest.approx([0.5 / 3**0.5])
    weight = parts["head.0.weight"] + parts["head.0.weight_sigma"] * f_out[:, None] * f_in
    bias = parts["head.0.bias"] + parts["head.0.bias_sigma"] * f_out
    x = torch.randn(5, 3)
    torch.testing.assert_close(network({VECTOR: x}), x @ weight.T + bias)

    net = Net(spec, shipped(network))
    net.renoise(np.random.default_rng(1))
    said = np.random.default_rng(1).standard_normal(3, np.float32)
    np.testing.assert_allclose(net._noise[0], np.sign(said) * np.sqrt(np.abs(said)), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": {}}, r"inputs \{\}; it must be at least one"),
        ({"hidden": (8, 0)}, r"hidden \(8, 0\); it must be sizes of at least 1"),
        ({"outputs": 0}, "outputs 0; it must be at least 1"),
        ({"extra": -1}, "extra -1"),
        ({"lstm": -2}, "lstm -2"),
        ({"cosines": -3}, "cosines -3"),
        ({"dueling": (3, -1)}, r"dueling \(3, -1\)"),
        ({"outputs": 7, "dueling": (2, 1)}, r"outputs 7; it must be a multiple of .*\(2, 1\)"),
        ({"cosines": 64, "lstm": 8}, "cosines 64; it must be 0 in a network with an LSTM"),
        ({"extra": 2, "lstm": 8}, "extra 2; it must be 0 in a network with an LSTM"),
        ({"extras": {"log_std": 0}}, r"extras\['log_std'\] 0"),
    ],
)
def test_what_cannot_be_built_is_refused_by_the_fields_name(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(NetSpec({"x": (3,)}, (8,), 2), **change)


def test_an_image_too_small_for_its_encoder_is_refused_with_the_smallest_size_and_the_others() -> None:
    spec = NetSpec({"x": (3,), "eye": (3, 80, 35)}, (8,), 2)
    told = r"image 'eye' of shape \(3, 80, 35\).*'nature'.* from 36 x 36.*'simple' from 20 x 20 and 'impala' from 1 x 1"
    with pytest.raises(ValueError, match=told):
        shapes(spec)
    for conv, least in (("nature", 36), ("simple", 20), ("impala", 1)):
        small = NetSpec({"eye": (1, least, least)}, (), 2, conv=conv)  # type: ignore[arg-type]
        assert Net(small, np.zeros(num_parameters(small), np.float32))(
            {"eye": np.ones((3, 1, least, least), np.uint8)}
        ).shape == (3, 2)
