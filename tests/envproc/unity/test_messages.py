"""Modules that mlagents-envs cannot import itself, and lean messages that are the same bytes on the wire."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from envproc.unity.messages import LeanActions, LeanMessage, UnityMessage

# isort: split
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto

Actions = UnityRLInputProto.ListAgentActionProto

IN_A_FRESH_INTERPRETER = """
import importlib, pkgutil
import envproc.unity.messages as messages
import mlagents_envs.communicator_objects as package
from google.protobuf.internal import api_implementation

names = [each.name for each in pkgutil.iter_modules(package.__path__) if each.name.endswith("_pb2")]
modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
assert len(modules) > 15
for name, module in modules.items():
    assert module.__doc__.startswith("Built from the descriptor"), name
    assert getattr(package, name) is module
    for each in [each for each in vars(module).values() if isinstance(each, type)]:
        assert each.__module__ == module.__name__ and each.DESCRIPTOR.file.name.endswith(name[:-4] + ".proto")

from mlagents_envs import environment, rpc_communicator, rpc_utils
assert rpc_utils.AgentInfoProto is modules["agent_info_pb2"].AgentInfoProto
assert environment.UnityOutputProto is modules["unity_output_pb2"].UnityOutputProto
assert environment.STEP == 0 and environment.RESET == 1 and rpc_utils.COMPRESSION_TYPE_NONE == 0
assert rpc_communicator.UnityMessageProto is messages.UnityMessage
assert type(messages.UnityMessage().unity_output) is environment.UnityOutputProto
assert api_implementation.Type() == "upb", api_implementation.Type()
print(len(modules))
"""


def test_every_module_of_messages_imports_and_is_the_one_that_the_package_uses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_INTERPRETER], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 15


def test_without_mlagents_envs_it_says_what_is_missing() -> None:
    hide = "import sys, importlib.abc\nclass Not(importlib.abc.MetaPathFinder):\n def find_spec(self, name, *_):\n"
    hide += "  if name == 'mlagents_envs': raise ModuleNotFoundError(name=name)\nsys.meta_path.insert(0, Not())\n"
    code = "try:\n import envproc.unity.messages\nexcept ModuleNotFoundError as error:\n print(error.name)"
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "mlagents_envs", done.stderr[-2000:]


numbers = st.lists(st.floats(width=32), max_size=9)
ints = st.integers(-(2**31), 2**31 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
infos = st.fixed_dictionaries(
    {"id": ints, "reward": st.floats(width=32), "done": st.booleans(), "group_id": ints, "group_reward": st.just(-0.0)}
)
agents = st.tuples(infos, st.lists(st.booleans(), max_size=5), st.lists(st.tuples(texts, numbers), max_size=3))
actions = st.tuples(numbers, st.lists(ints, max_size=3))


def put(message: Any, field: str, values: list[Any], dtype: str) -> None:
    """A list of numbers into either kind of message."""
    if isinstance(getattr(message, field), bytes):
        setattr(message, field, np.array(values, dtype).tobytes())
    else:
        getattr(message, field).extend(values)


def got(message: Any, field: str, dtype: str) -> bytes:
    """The numbers back, as bytes, so that NaN is equal to itself and 0 is not equal to -0."""
    value = getattr(message, field)
    return value if isinstance(value, bytes) else np.array(value, dtype).tobytes()


def bits(number: float) -> bytes:
    return np.float32(number).tobytes()


def write(kind: Any, told: dict[str, list[Any]], acts: dict[str, list[Any]]) -> Any:
    message = kind()
    for name, each in told.items():
        listed = message.unity_output.rl_output.agentInfos[name].value
        for plain, mask, seen in each:
            info = listed.add(**plain)
            put(info, "action_mask", mask, "?")
            for sensor, values in seen:
                put(info.observations.add(name=sensor, shape=[-1, 7]).float_data, "data", values, "<f4")
    for name, each in acts.items():
        given_to = (LeanActions if kind is LeanMessage else Actions)()
        for continuous, discrete in each:
            action = given_to.value.add(discrete_actions=discrete)
            put(action, "continuous_actions", continuous, "<f4")
        if kind is LeanMessage:
            message.unity_input.rl_input.agent_actions[name] = given_to.SerializeToString()
        else:
            message.unity_input.rl_input.agent_actions[name].CopyFrom(given_to)
    return message


def read(message: Any) -> Any:
    told = {
        name: [
            (
                (info.id, bits(info.reward), info.done, info.group_id, bits(info.group_reward)),
                got(info, "action_mask", "?"),
                [(each.name, list(each.shape), got(each.float_data, "data", "<f4")) for each in info.observations],
            )
            for info in listed.value
        ]
        for name, listed in message.unity_output.rl_output.agentInfos.items()
    }
    acts = {
        name: [
            (got(each, "continuous_actions", "<f4"), list(each.discrete_actions))
            for each in (LeanActions.FromString(listed) if isinstance(listed, bytes) else listed).value
        ]
        for name, listed in message.unity_input.rl_input.agent_actions.items()
    }
    return told, acts


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(texts, st.lists(agents, max_size=3)), st.dictionaries(texts, st.lists(actions, max_size=3)))
def test_lean_messages_read_what_full_ones_write_and_the_other_way_round(
    told: dict[str, list[Any]], acts: dict[str, list[Any]]
) -> None:
    full, lean = write(UnityMessage, told, acts), write(LeanMessage, told, acts)
    assert read(LeanMessage.FromString(full.SerializeToString())) == read(full)
    assert read(UnityMessage.FromString(lean.SerializeToString())) == read(lean)
    assert read(full) == read(lean)
    assert [set(each) for each in read(lean)] == [set(told), set(acts)]
