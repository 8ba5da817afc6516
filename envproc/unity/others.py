"""The behaviours of a scene that nobody trains: a saved policy acts for some, the rest do nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlagents_envs.base_env import ActionTuple, BaseEnv

from core.acting import Policy
from core.checkpoint import load_policy
from envproc.unity.fields import Fields


class Others:
    """`runs` says for a behaviour, by name, which run's kept policy acts for it, without noise."""

    def __init__(self, runs: dict[str, str]) -> None:
        """Raises ValueError if one of them has no policy that can be read."""
        self._saved = {name: load_policy(Path(run) / "checkpoint") for name, run in runs.items()}
        self._acting: dict[str, tuple[Fields, Policy]] = {}

    def act(self, link: BaseEnv, trained: str) -> None:
        """Set the actions of who has a policy and asks for one. Raises ValueError if a policy does not fit."""
        for name, spec in link.behavior_specs.items() if self._saved else ():
            saved = self._saved.get(name) or self._saved.get(name.partition("?")[0])
            if saved is None or name == trained:
                continue
            if name not in self._acting:
                fields, (policy, parameters) = Fields(spec), saved
                if fields.env_spec(1).obs != policy.env_spec.obs or fields.env_spec(1).action != policy.env_spec.action:
                    raise ValueError(f"the policy that is to act for {name} was trained for other sensors or actions")
                self._acting[name] = fields, Policy(policy.policy_spec, policy.env_spec.action, 1, parameters, seed=0)
            fields, actor = self._acting[name]
            decisions = link.get_steps(name)[0]
            if len(decisions):
                action = actor.to_env(actor.act(fields.see(decisions)))
                choices = np.zeros((len(decisions), len(fields.branches)), np.int32)
                link.set_actions(name, ActionTuple(action.continuous, choices))
