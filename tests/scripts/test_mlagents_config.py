"""--mlagents-config: a trainer file of ML-Agents as options, and what is not taken over said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.command_line import UsageError
from scripts.options import Options, parse

PPO = {
    "trainer_type": "ppo",
    "hyperparameters": {
        "batch_size": 32, "buffer_size": 12000, "learning_rate": "1e-3", "beta": 0.002, "epsilon": 0.1, "lambd": 0.9,
        "num_epoch": 4, "shared_critic": True, "learning_rate_schedule": "linear", "beta_schedule": "constant",
    },
    "network_settings": {"normalize": True, "hidden_units": 20, "num_layers": 3, "vis_encode_type": "resnet"},
    "reward_signals": {"extrinsic": {"gamma": 0.95, "strength": 1.0}},
    "max_steps": 1234,
}  # fmt: skip
SAC = {
    "trainer_type": "sac",
    "hyperparameters": {
        "batch_size": 64, "buffer_size": 4000, "buffer_init_steps": 10, "tau": 0.02, "steps_per_update": 10,
        "init_entcoef": 0.5, "learning_rate": 0.001, "save_replay_buffer": False,
    },
}  # fmt: skip


def file(path: Path, **sections: Any) -> str:
    (path / "scene.yaml").write_text(yaml.safe_dump(sections))
    return str(path / "scene.yaml")


def options(path: Path, algorithm: str, *arguments: str, **sections: Any) -> Options[Any]:
    return parse([algorithm, "--mlagents-config", file(path, **sections), *arguments])[1]


def refusal(path: Path, algorithm: str, *arguments: str, **sections: Any) -> str:
    with pytest.raises(UsageError) as error:
        options(path, algorithm, *arguments, **sections)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_hyperparameters_of_ppo_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = options(tmp_path, "ppo", behaviors={"Ball": PPO})
    algo = found.algo
    assert (found.steps, algo.batch_size, algo.entropy, algo.clip, algo.gae_lambda) == (1234, 32, 0.002, 0.1, 0.9)
    assert (algo.epochs, algo.share, algo.gamma, algo.normalize) == (4, True, 0.95, True)
    assert (algo.lr, algo.lr_end, algo.lr_steps) == (1e-3, 0.0, 1234)
    assert (algo.hidden, algo.conv) == ((20, 20, 20), "impala")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "not taken over: hyperparameters.buffer_size (rollouts count by agent" in told[0]


def test_the_hyperparameters_of_sac_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    algo = options(tmp_path, "sac", behaviors={"Ball": SAC}).algo
    assert (algo.batch_size, algo.capacity, algo.warmup, algo.tau) == (64, 4000, 10, 0.02)
    assert algo.replay_ratio == 6.4, "64 rows every 10 decisions"
    assert (algo.actor_lr, algo.critic_lr, algo.temperature_lr, algo.lr_steps) == (0.001, 0.001, 0.001, 0)
    assert algo.temperature == 0, "it adapts"
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "hyperparameters.init_entcoef" in told


def test_discrete_sac_begins_at_the_files_temperature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    algo = options(tmp_path, "sac_discrete", behaviors={"Grid": SAC}).algo
    assert (algo.temperature, algo.replay_ratio) == (0.5, 6.4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("settings", [{}, None, {"trainer_type": "ppo", "hyperparameters": None}])
def test_what_the_file_leaves_out_counts_as_ml_agents_counts_it(settings: Any, tmp_path: Path) -> None:
    found = options(tmp_path, "ppo", behaviors={"Ball": settings})
    algo = found.algo
    assert (found.steps, algo.batch_size, algo.epochs, algo.entropy) == (500_000, 1024, 3, 5e-3)
    assert (algo.hidden, algo.normalize, algo.conv) == ((128, 128), False, "simple")
    assert (algo.lr_end, algo.lr_steps) == (0.0, 500_000)
    assert (found.workers, found.copies, found.env) == (0, 1, "3dball"), "the run is ours"


def test_default_settings_stand_below_each_behaviour(tmp_path: Path) -> None:
    sections = {"default_settings": PPO, "behaviors": {"Ball": {"hyperparameters": {"num_epoch": 9}}}}
    assert options(tmp_path, "ppo", **sections).algo.epochs == 9
    assert options(tmp_path, "ppo", **sections).algo.batch_size == 32
    assert options(tmp_path, "ppo", "--behavior", "Other", **sections).algo.epochs == 4


def test_what_is_about_the_run_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = options(
        tmp_path,
        "ppo",
        behaviors={"Ball": {}},
        env_settings={
            "env_path": "my/Build", "num_envs": 3, "num_areas": 2, "seed": 9, "base_port": 6000, "timeout_wait": 90,
            "env_args": ["--level", "two words"],
        },
        engine_settings={"time_scale": 5, "no_graphics": True},
        environment_parameters={"gravity": 4, "scale": 0.5},
        torch_settings={"device": "cuda"},
        checkpoint_settings={"resume": False, "force": False},
        debug=False,
    )  # fmt: skip
    assert (found.env, found.behavior, found.workers, found.copies, found.seed) == ("unity:my/Build", "Ball", 3, 2, 9)
    unity = found.unity
    assert (unity.base_port, unity.launch_s, unity.answer_s, unity.time_scale) == (6000, 90, 90, 5)
    assert unity.no_graphics and unity.arguments() == ["--level", "two words"]
    assert found.env_config.parameters() == {"gravity": 4, "scale": 0.5}
    assert found.device == "cuda"
    assert capsys.readouterr().err == ""


def test_what_is_not_taken_over_is_told_once_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "even_checkpoints": True,
        "summary_freq": 12000,
        "time_horizon": 64,
        "network_settings": {"memory": {"memory_size": 128, "sequence_length": 64}},
        "reward_signals": {"curiosity": {"gamma": 0.9, "strength": 0.1, "network_settings": {"num_layers": 1}}},
        "self_play": {"window": 10, "swap_steps": 5},
        "hyperparameters": {"betta": 1},
    }
    mass = {"sampler_type": "uniform", "sampler_parameters": {"min_value": 1, "max_value": 2}}
    parameters = {"gravity": 9.81, "mass": mass}
    found = options(
        tmp_path,
        "ppo",
        behaviors={"Ball": settings},
        engine_settings={"width": 1000},
        environment_parameters=parameters,
    )
    assert found.env_params == ("gravity=9.81",)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("note: ") and "scene.yaml: not taken over: " in line for line in lines)
    told = [line.partition("not taken over: ")[2] for line in lines]
    whats = {line.partition(" (")[0] for line in told}
    assert whats == {
        "even_checkpoints", "summary_freq", "time_horizon", "network_settings.memory", "reward_signals.curiosity",
        "self_play", "hyperparameters.betta", "engine_settings.width", "environment_parameters.mass",
    }  # fmt: skip
    assert "hyperparameters.betta (nothing here goes by that name)" in told


@pytest.mark.parametrize(
    ("algorithm", "trainer", "says"),
    [
        ("ddpg", "ppo", "has the trainer_type 'ppo'; train ppo, not ddpg"),
        ("ppo", "sac", "has the trainer_type 'sac'; train sac or sac_discrete, not ppo"),
        ("ppo", "poca", "has the trainer_type 'poca'; ppo and sac are there"),
    ],
)
def test_the_algorithm_must_fit(algorithm: str, trainer: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, algorithm, behaviors={"Ball": {"trainer_type": trainer}})


def test_of_several_behaviours_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behaviors = {"Runner": {"max_steps": 5}, "Chaser": {"max_steps": 7}}
    says = "has the behaviours Chaser, Runner; name one by --behavior"
    assert says in refusal(tmp_path, "ppo", behaviors=behaviors)
    assert says in refusal(tmp_path, "ppo", "--behavior", "Walker", behaviors=behaviors)
    assert options(tmp_path, "ppo", "--behavior", "Chaser?team=0", behaviors=behaviors).steps == 7
    assert "not taken over: behaviors.Runner (one behaviour learns in a run)" in capsys.readouterr().err


def test_a_behaviour_is_named_to_unity_scenes_alone(tmp_path: Path) -> None:
    behaviors: dict[str, Any] = {"Ball": {}}
    assert options(tmp_path, "ppo", behaviors=behaviors).behavior == ""
    assert options(tmp_path, "ppo", "--env", "unity:x", behaviors=behaviors).behavior == "Ball"


def test_the_command_line_wins(tmp_path: Path) -> None:
    found = options(tmp_path, "ppo", "--steps", "3", "--algo.epochs", "5", behaviors={"Ball": PPO})
    assert (found.steps, found.algo.epochs, found.algo.batch_size) == (3, 5, 32)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_steps": "many"}, "max_steps is 'many'; it must be a whole number"),
        ({"max_steps": 1.5}, "max_steps is 1.5; it must be a whole number"),
        ({"network_settings": {"normalize": 1}}, "network_settings.normalize is 1; it must be true or false"),
        ({"hyperparameters": {"epsilon": 3}}, "--algo.clip 3.0; it must be above 0, below 1"),
        ({"hyperparameters": {"learning_rate_schedule": 1}}, "learning_rate_schedule is 1; it must be a text"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_path(settings: Any, says: str, tmp_path: Path) -> None:
    told = refusal(tmp_path, "ppo", behaviors={"Ball": settings})
    assert "scene.yaml: " in told and says in told


def test_a_sac_that_never_updates_is_refused(tmp_path: Path) -> None:
    settings = {"trainer_type": "sac", "hyperparameters": {"steps_per_update": 0}}
    assert "steps_per_update is 0.0; it must be above 0" in refusal(tmp_path, "sac", behaviors={"Ball": settings})


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "Ball:\n  trainer: ppo", "behaviors: 3", "behaviors: {}"])
def test_what_is_no_trainer_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml") as error:
        parse(["ppo", "--mlagents-config", str(tmp_path / "x.yaml")])
    assert "\n" not in str(error.value)


def test_what_nobody_knows_is_told_wherever_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {**PPO, "network_settings": [1], "hyperparameters": {"foo": 1, "nested": {"a": {"b": 2}}}}
    options(tmp_path, "ppo", behaviors={1: odd}, wat=3)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "nothing here goes by that name" in line]
    for path in ("hyperparameters.foo", "hyperparameters.nested.a.b", "network_settings", "wat"):
        assert path in told


@pytest.mark.parametrize("odd", [{"behaviors": {"B": [1]}}, {"behaviors": {"B": {}}, "default_settings": "x"}])
def test_a_section_that_is_none_is_told(odd: Any, tmp_path: Path) -> None:
    assert refusal(tmp_path, "ppo", **odd).endswith("it must be a section")


def test_where_a_behaviour_has_a_section_for_a_value_of_the_default_the_behaviour_wins(tmp_path: Path) -> None:
    below = {"hyperparameters": 3}
    assert options(tmp_path, "ppo", default_settings=below, behaviors={"B": PPO}).steps == 1234
