"""Observations that do not fit: refused in one line that names the agent and its sensor."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envproc.unity.arrays import read_steps
from tests.envproc.unity.sensors import Sensor, behaviour, both, info, png


def spoilt(sensor: Sensor, **fields: Any) -> str:
    """What is said of agent 7, whose observation has these fields, beside one in order."""
    good, bad = info(6, [Sensor((2,)), sensor]), info(7, [Sensor((2,)), sensor])
    for field, value in fields.items():
        if field == "float_data":
            bad.observations[1].float_data.data[:] = value
        else:
            setattr(bad.observations[1], field, value)
    _, lean = both([good, bad])
    with pytest.raises(ValueError) as raised:
        read_steps(lean, behaviour([Sensor((2,)), sensor]))
    return str(raised.value)


ball = Sensor((3,), name="ball")
camera = Sensor((4, 6, 3), png=True, name="camera")
WHOLE = png(np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("sensor", "fields", "why"),
    [
        (ball, {"float_data": [1, 2, 3, 4]}, "4 numbers"),
        (ball, {"float_data": []}, "0 numbers"),
        (ball, {"compressed_data": WHOLE}, "0 numbers"),
        (camera, {"compressed_data": png(np.zeros((6, 4, 3), np.uint8))}, "shape"),
        (camera, {"compressed_data": png(np.zeros((4, 6), np.uint8))}, "shape"),
        (camera, {"compressed_data": WHOLE[:30]}, "ends within a PNG"),
        (camera, {"compressed_data": WHOLE[:-13]}, "ends within a PNG"),
        (camera, {"compressed_data": WHOLE + b"and more"}, "ends within a PNG"),
        (camera, {"compressed_data": WHOLE + png(np.zeros((5, 6, 3), np.uint8))}, "dimension"),
        (camera, {"compressed_data": b"\xff\xd8\xff\xe0 this is none"}, "PNG"),
        (camera, {"compressed_data": b""}, "image"),
    ],
)
def test_an_observation_that_does_not_fit_names_agent_and_sensor(
    sensor: Sensor, fields: dict[str, Any], why: str
) -> None:
    said = spoilt(sensor, **fields)
    assert "agent 7" in said and repr(sensor.name) in said and why in said and "\n" not in said


def mended(data: bytes) -> bytes:
    """A PNG with what its chunks hold changed, and the checksums that fit."""
    out, at = data[:8], 8
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        out += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return out


places = st.integers(8, len(WHOLE) - 1).filter(lambda place: place not in (16, 17, 20, 21))  # not above 255 x 255


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3), st.booleans())
def test_a_png_with_wrong_bytes_in_it_is_read_or_refused(changes: list[tuple[int, int]], mend: bool) -> None:
    wrong = bytearray(WHOLE)
    for place, value in changes:
        wrong[place] = value
    made = info(1, [camera])
    made.observations[0].compressed_data = mended(bytes(wrong)) if mend else bytes(wrong)
    _, lean = both([made])
    try:
        spec = behaviour([camera])
        assert read_steps(lean, spec)[0].obs[0].shape == (1, *spec.observation_specs[0].shape)
    except ValueError as error:
        assert "agent 1" in str(error) and "camera" in str(error)


def test_a_png_that_claims_to_be_enormous_is_refused() -> None:
    width = WHOLE.index(b"IHDR") + 4
    for pixels in (20_000, 2**31 - 1):
        enormous = mended(WHOLE[:width] + 2 * pixels.to_bytes(4, "big") + WHOLE[width + 8 :])
        assert "agent 7" in spoilt(camera, compressed_data=enormous)


@pytest.mark.parametrize("mapping", [(0, 1), (0, 1, 2, 3), (0, 0, 0), (0, 1, 3), (-1, -1, -1), (0, 1, 1)])
def test_a_mapping_that_does_not_fit_the_channels_names_agent_and_sensor(mapping: tuple[int, ...]) -> None:
    sensor = Sensor((4, 6, 3), png=True, mapping=mapping, name="camera")
    _, lean = both([info(7, [sensor])])
    with pytest.raises(ValueError, match=r"'camera' of agent 7: .*3 channels and a mapping"):
        read_steps(lean, behaviour([sensor]))


@pytest.mark.parametrize("sensors", [[], [ball], [ball, ball, ball]])
@pytest.mark.parametrize("done", [False, True])
def test_another_number_of_sensors_names_the_agent(sensors: list[Sensor], done: bool) -> None:
    _, lean = both([info(6, [ball, ball]), info(7, sensors, done=done)])
    with pytest.raises(ValueError, match=f"agent 7 has {len(sensors)} sensors, the first of its behaviour had 2"):
        read_steps(lean, behaviour([ball, ball]))
