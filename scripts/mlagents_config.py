"""ML-Agents' trainer configuration (the YAML file of mlagents-learn) as options of ours: `--mlagents-config FILE`.

What a file leaves out counts as ML-Agents counts it (release 0.28), for the behaviour; of the sections about the run
(env_settings, engine_settings, environment_parameters, torch_settings) only what is there. What has no counterpart
here is told, with the reason. docs/unity.md has the table.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts.command_line import UsageError

_FITS = {"ppo": ("ppo",), "sac": ("sac", "sac_discrete")}
"""trainer_type -> algorithms of ours"""


class To(NamedTuple):
    """Where a setting goes: our option, and what ML-Agents takes if the file does not say."""

    option: str
    default: bool | int | float | str


_ALL = {
    "max_steps": To("steps", 500_000),
    "checkpoint_interval": To("checkpoint_every", 500_000),
    "keep_checkpoints": To("keep_checkpoints", 5),
    "network_settings.normalize": To("algo.normalize", False),
    "reward_signals.extrinsic.gamma": To("algo.gamma", 0.99),
}
_BY_TRAINER = {
    "ppo": {
        "hyperparameters.batch_size": To("algo.batch_size", 1024),
        "hyperparameters.learning_rate": To("algo.lr", 3e-4),
        "hyperparameters.beta": To("algo.entropy", 5e-3),
        "hyperparameters.epsilon": To("algo.clip", 0.2),
        "hyperparameters.lambd": To("algo.gae_lambda", 0.95),
        "hyperparameters.num_epoch": To("algo.epochs", 3),
        "hyperparameters.shared_critic": To("algo.share", False),
    },
    "sac": {
        "hyperparameters.batch_size": To("algo.batch_size", 128),
        "hyperparameters.learning_rate": To("algo.actor_lr", 3e-4),
        "hyperparameters.buffer_size": To("algo.capacity", 50_000),
        "hyperparameters.buffer_init_steps": To("algo.warmup", 0),
        "hyperparameters.tau": To("algo.tau", 0.005),
    },
}
_RUN = {  # the default is only for its type: what is not there is not taken
    "env_settings.num_envs": To("workers", 1),
    "env_settings.num_areas": To("copies", 1),
    "env_settings.base_port": To("unity.base_port", 5005),
    "env_settings.timeout_wait": To("unity.answer_s", 60.0),
    "engine_settings.time_scale": To("unity.time_scale", 20.0),
    "engine_settings.no_graphics": To("unity.no_graphics", False),
    "torch_settings.device": To("device", "cpu"),
}
_CONV = {"simple": "simple", "nature_cnn": "nature", "resnet": "impala"}
_HARMLESS = {
    "hyperparameters.beta_schedule": "constant",
    "hyperparameters.epsilon_schedule": "constant",
    "reward_signals.extrinsic.strength": 1.0,
}
"""settings that ask for what happens anyway; so does every False"""
_REASONS = {
    "summary_freq": "there is a progress record twice a second",
    "even_checkpoints": "checkpoints are --checkpoint-every apart",
    "time_horizon": "no trajectory is cut before the rollout or the episode ends",
    "threaded": "workers go on while the learner learns; for ppo see --algo.ahead",
    "init_path": "no checkpoint of ML-Agents can be read; --init-from takes a run made here",
    "self_play": "one behaviour learns; --unity.others has saved policies act for others",
    "behavioral_cloning": "nothing is learned from demonstrations",
    "hyperparameters.buffer_size": "rollouts count by agent: give --algo.horizon, buffer_size / (agents x workers)",
    "hyperparameters.beta_schedule": "only learning rates have a schedule",
    "hyperparameters.epsilon_schedule": "only learning rates have a schedule",
    "hyperparameters.init_entcoef": "the temperature of sac begins at 0.1 and adapts; --algo.temperature holds one",
    "hyperparameters.save_replay_buffer": "every checkpoint has the rows",
    "hyperparameters.reward_signal_steps_per_update": "no reward but the environment's",
    "network_settings.memory": "of the algorithms here r2d2 alone remembers",
    "network_settings.vis_encode_type": f"encoders are {', '.join(_CONV)}",
    "network_settings.goal_conditioning_type": "a goal signal is an observation like others",
    "network_settings.deterministic": "evaluations are without noise anyway, training is not",
    "reward_signals.extrinsic.strength": "there is no strength: rewards count as they are",
    "reward_signals": "no reward but the environment's",
    "env_settings.max_lifetime_restarts": "a worker is replaced up to --max-restarts times",
    "env_settings.restarts_rate_limit_n": "a worker is replaced up to --max-restarts times",
    "env_settings.restarts_rate_limit_period_s": "a worker is replaced up to --max-restarts times",
    "engine_settings": "players have 84 x 84 pixels, quality level 5 and no frame limit",
    "environment_parameters": "parameters are plain numbers; no curriculum, no sampler",
    "checkpoint_settings": "a run has --run, --runs-dir, --resume, --force and --init-from",
}

_SHOWN = {
    "self_play": 1,
    "behavioral_cloning": 1,
    "network_settings": 2,
    "reward_signals": 2,
    "environment_parameters": 2,
}
"""how many parts of the paths below these sections say enough"""


class _Settings:
    """The leaves of the file's tree, each under its path; whoever takes one removes it."""

    def __init__(self, file: Path, tree: dict[str, Any]) -> None:
        self._file = file
        self.left = dict(_leaves(tree))

    def take(self, path: str, default: Any) -> Any:
        """The setting, or the default, of the same type. Raises UsageError for another type."""
        value = self.left.pop(path, default)
        if isinstance(default, int | float) and isinstance(value, str):
            value = _number(value)  # YAML takes 1e-3 for a text, ML-Agents does not
        if isinstance(default, float) and type(value) is int:
            return float(value)
        if type(default) is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is not type(default):
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(default)]
            raise UsageError(f"{self._file}: {path} is {value!r}; it must be {kind}")
        return value

    def unmapped(self) -> dict[str, list[str]]:
        """Of what is left: reason -> paths, a whole section of one reason as one."""
        found: dict[str, list[str]] = {}
        for path, value in self.left.items():
            if value is False or _HARMLESS.get(path) == value:
                continue
            parts = path.split(".")
            sections = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            known = next((each for each in sections if each in _REASONS), "")
            paths = found.setdefault(_REASONS.get(known, "nothing here goes by that name"), [])
            shown = ".".join(parts[: _SHOWN.get(parts[0], len(parts))])
            if shown not in paths:
                paths.append(shown)
        return found


def read(file: Path, algorithm: str, behavior: str, env: str) -> tuple[dict[str, Any], list[str]]:
    """What `file` says about one behaviour and the run, as tables of our options; and remarks, a line each.

    `behavior` and `env` are the command line's, or empty. Raises UsageError.
    """
    tree = _load(file)
    name = _choose(file, tree, behavior)
    others = sorted(set(tree["behaviors"]) - {name})
    default, mine = _section(file, tree, "default_settings"), _section(file, tree["behaviors"], name)
    settings = _Settings(file, _merged(default, mine))
    trainer = settings.take("trainer_type", "ppo")
    if trainer not in _FITS:
        raise UsageError(f"{file}: {name} has the trainer_type {trainer!r}; ppo and sac are there, change it to one")
    if algorithm not in _FITS[trainer]:
        raise UsageError(
            f"{file}: {name} has the trainer_type {trainer!r}; train {' or '.join(_FITS[trainer])}, not {algorithm}"
        )
    flat: dict[str, Any] = {}
    for path, to in (_ALL | _BY_TRAINER[trainer]).items():
        flat[to.option] = settings.take(path, to.default)
    _networks(settings, flat)
    _learning_rates(settings, flat, trainer)
    if trainer == "sac":
        flat["algo.replay_ratio"] = flat["algo.batch_size"] / _steps_per_update(settings, file)
        if algorithm == "sac_discrete":
            flat["algo.temperature"] = settings.take("hyperparameters.init_entcoef", 1.0)
    unmapped = settings.unmapped()

    run = _Settings(file, {key: each for key, each in tree.items() if key not in ("behaviors", "default_settings")})
    _run(run, flat)
    if (env or flat.get("env", "")).startswith("unity:"):
        flat["behavior"] = name
    if others:
        unmapped["one behaviour learns in a run"] = [f"behaviors.{each}" for each in others]
    for reason, paths in run.unmapped().items():
        unmapped.setdefault(reason, []).extend(paths)
    remarks = [f"note: {file}: not taken over: {', '.join(paths)} ({why})" for why, paths in unmapped.items()]
    return _as_tables(flat), remarks


def _load(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--mlagents-config {file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("behaviors"), dict):
        raise UsageError(f"{file} has no section 'behaviors'; a file of ML-Agents' release 4 or later has one")
    tree["behaviors"] = {str(name): each for name, each in tree["behaviors"].items()}  # YAML has numbers as names, too
    return tree


def _section(file: Path, tree: dict[str, Any], name: str) -> dict[str, Any]:
    section = tree.get(name) or {}
    if not isinstance(section, dict):
        raise UsageError(f"{file}: {name} is {section!r}; it must be a section")
    return section


def _choose(file: Path, tree: dict[str, Any], behavior: str) -> str:
    """The behaviour that is meant. On the wire its name may have a team behind it, in the file it has none."""
    known: list[str] = list(tree["behaviors"])
    wanted = behavior.partition("?")[0]
    if wanted in known or (wanted and tree.get("default_settings")):
        return wanted
    if wanted or len(known) != 1:
        raise UsageError(f"{file} has the behaviours {', '.join(known) or 'none'}; name one by --behavior")
    return known[0]


def _networks(settings: _Settings, flat: dict[str, Any]) -> None:
    width = settings.take("network_settings.hidden_units", 128)
    flat["algo.hidden"] = (width,) * settings.take("network_settings.num_layers", 2)
    kind = settings.left.get("network_settings.vis_encode_type", "simple")
    if kind in _CONV:
        settings.left.pop("network_settings.vis_encode_type", None)
        flat["algo.conv"] = _CONV[kind]


def _learning_rates(settings: _Settings, flat: dict[str, Any], trainer: str) -> None:
    if trainer == "sac":  # it has one rate for all that learns
        flat["algo.critic_lr"] = flat["algo.temperature_lr"] = flat["algo.actor_lr"]
    schedule = settings.take("hyperparameters.learning_rate_schedule", "linear" if trainer == "ppo" else "constant")
    if schedule == "linear":
        flat |= {"algo.lr_end": 0.0, "algo.lr_steps": flat["steps"]}


def _steps_per_update(settings: _Settings, file: Path) -> float:
    steps: float = settings.take("hyperparameters.steps_per_update", 1.0)
    if steps <= 0:
        raise UsageError(f"{file}: hyperparameters.steps_per_update is {steps}; it must be above 0")
    return steps


def _run(settings: _Settings, flat: dict[str, Any]) -> None:
    """What is about the run and not about a behaviour."""
    for path, to in _RUN.items():
        if path in settings.left:
            flat[to.option] = settings.take(path, to.default)
    if "unity.answer_s" in flat:
        flat["unity.launch_s"] = flat["unity.answer_s"]
    if "env_settings.env_path" in settings.left:
        flat["env"] = "unity:" + settings.take("env_settings.env_path", "")
    if isinstance(words := settings.left.get("env_settings.env_args"), list):
        del settings.left["env_settings.env_args"]
        flat["unity.args"] = shlex.join(map(str, words))
    seed = settings.take("env_settings.seed", -1)
    if seed >= 0:  # -1 asks for any
        flat["seed"] = seed
    params = [path for path in settings.left if path.count(".") == 1 and path.startswith("environment_parameters.")]
    if params:
        flat["env_params"] = [f"{path.partition('.')[2]}={settings.take(path, 0.0)!r}" for path in params]


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Path and value; what is null or empty says nothing."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((f"{prefix}{key}", value))
    return found


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    deeper = {
        key for key in below.keys() & above.keys() if isinstance(above[key], dict) and isinstance(below[key], dict)
    }
    both = {key: _merged(below[key], above[key]) for key in deeper}
    return {**below, **above, **both}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _as_tables(flat: dict[str, Any]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for option, value in flat.items():
        table, _, name = option.rpartition(".")
        (tables.setdefault(table, {}) if table else tables)[name] = list(value) if isinstance(value, tuple) else value
    return tables
