"""The behaviours of a scene that nobody trains: a saved policy acts for some, the rest do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec

from core.acting import Policy
from core.checkpoint import SavedPolicy, load_policy
from core.types import FloatArray
from envproc.env import Refused
from envproc.unity.fields import Fields, bare_name


class Others:
    """`runs` says for a behaviour, by name, which run's kept policy acts for it, without noise."""

    def __init__(self, runs: dict[str, str]) -> None:
        """Raises Refused if one of them has no policy that can be read."""
        try:
            self._saved = {name: load_policy(Path(run)) for name, run in runs.items()}
        except ValueError as error:
            raise Refused(f"--unity.others: {error}") from error
        self._acting: dict[str, tuple[Fields, Policy]] = {}

    def check(self, specs: Mapping[str, BehaviorSpec], trained: str) -> None:
        """Raises Refused if there is a policy for nobody in the scene, or one that does not fit."""
        others = {key for name in specs if name != trained for key in (name, bare_name(name))}
        strangers = self._saved.keys() - others
        if strangers:
            raise Refused(f"--unity.others {sorted(strangers)}: the scene's other behaviours are {sorted(others)}")
        for name, spec in specs.items():
            saved = self._find(name)
            fields = Fields(spec, image_bytes=saved is not None and "uint8" in _dtypes(saved[0]))
            if saved is not None and fields.env_spec(saved[0].env_spec.num_agents) != saved[0].env_spec:
                raise Refused(f"--unity.others {name}: that policy was trained for other sensors or actions")
            if saved is not None and saved[0].policy_spec.net.lstm:
                raise Refused(f"--unity.others {name}: that policy is recurrent, and nobody keeps its memory here")
            if saved is not None and name != trained:
                policy, parameters = saved
                acting = Policy(policy.policy_spec, policy.env_spec.action, 1, parameters, seed=0)
                self._acting[name] = fields, acting

    def _find(self, name: str) -> tuple[SavedPolicy, FloatArray] | None:
        return self._saved.get(name) or self._saved.get(bare_name(name))

    def act(self, link: BaseEnv) -> None:
        """Set the actions of who has a policy and asks for one."""
        for name, (fields, actor) in self._acting.items():
            decisions = link.get_steps(name)[0]
            if len(decisions):
                nobody = np.zeros(len(decisions), np.int64)  # in particular: a policy without memory
                action = actor.to_env(actor.act(fields.see(decisions), nobody))
                link.set_actions(name, ActionTuple(action.continuous, action.discrete.astype(np.int32)))


def _dtypes(saved: SavedPolicy) -> list[str]:
    return [field.dtype for field in saved.env_spec.obs.values()]
