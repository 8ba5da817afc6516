"""The stand-in for a Unity player: `python -m scripts.player SCENE`, with the flags that Unity players are given.

It speaks the protocol of ML-Agents as a player does, with scenes and physics of its own, so that whatever is to drive
Unity can be developed and tested without it. unity/players/ holds it as executables, for `--env unity:PATH`; without
--mlagents-port it plays for a trainer that waits for the Editor. Flags that it does not know are ignored.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from envproc.unity.player import ball, grid, renew, spawn, two, visual
from envproc.unity.player.academy import Behaviour
from envproc.unity.player.faults import Fault, Faults
from envproc.unity.player.wire import Build, Scene, play

EDITOR_PORT = 5004
SCENES: dict[str, Callable[..., Sequence[Behaviour]]] = {
    "3DBall": ball.scene,
    "Grid": grid.scene,
    "Visual": visual.scene,
    "Two": two.scene,
    "Spawn": spawn.scene,
    "Renew": renew.scene,
}


def main() -> None:
    options = _options()
    where = {"filename": options.log_file, "filemode": "w"} if options.log_file else {}
    if options.log_file:
        options.log_file.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.log_file else logging.WARNING, **where)
    log = logging.getLogger("player")
    log.info("stand-in Unity player: scene %s, port %d", options.scene, options.mlagents_port)
    try:
        play(
            _scene(options),
            options.mlagents_port,
            Build(
                options.communication_version,
                options.package_version,
                reset_channel=not options.no_reset_channel,
                faults=Faults(options.fault),
            ),
        )
    except Exception:
        log.exception("Fatal: the stand-in itself failed")
        raise


def _scene(options: argparse.Namespace) -> Scene:
    scene = SCENES[options.scene]
    if options.scene != "Visual":
        return scene
    channels_first = int(options.package_version.split(".")[0]) >= 3
    return partial(scene, raw=options.raw_images, stacked=options.stack_images, channels_first=channels_first)


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # of another kind, argparse hides what it says


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts.player", description=__doc__, allow_abbrev=False)
    parser.add_argument("scene", choices=SCENES)
    parser.add_argument("--mlagents-port", type=int, default=EDITOR_PORT, metavar="PORT")
    parser.add_argument("-logFile", dest="log_file", type=Path, metavar="PATH")
    parser.add_argument("--fault", type=_fault, action="append", default=[], metavar="KIND@N")
    parser.add_argument("--no-reset-channel", action="store_true", help="as a build without the C# of unity/")
    parser.add_argument("--communication-version", default="1.5.0", metavar="VERSION")
    parser.add_argument("--package-version", default="2.2.1-exp.1", metavar="VERSION")
    parser.add_argument("--raw-images", action="store_true", help="Visual: uncompressed")
    parser.add_argument("--stack-images", action="store_true", help="Visual: the last two pictures in one sensor")
    options, _ = parser.parse_known_args()
    return options


if __name__ == "__main__":
    main()
