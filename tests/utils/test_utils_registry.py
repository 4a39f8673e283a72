"""Functions that take the options of several parts."""

import inspect
from typing import Any

import pytest

from utils.utils_registry import Registry, keyword_parameters, options_of, takes_options_of


class Wheel:
    def __init__(self, place: int, *, radius: "float" = 0.5, spokes: int = 8) -> None: ...


def engine(*, power: int = 1, spokes: int = 8) -> None: ...


def test_parameters_are_those_of_the_parts_under_their_prefixes() -> None:
    registry = Registry("vehicle", "netG.vehicle")

    @registry.register("car")
    @takes_options_of(("wheel_", Wheel), ("", engine))
    def car(*, colour: str = "red", **options: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        return colour, options_of("wheel_", Wheel, options), options_of("", engine, options)

    parameters = registry.parameters("car")
    assert list(parameters) == ["colour", "wheel_radius", "wheel_spokes", "power", "spokes"]
    assert (parameters["wheel_radius"].annotation, parameters["wheel_radius"].default) == (float, 0.5)
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert car(wheel_radius=2.0, power=3) == ("red", {"radius": 2.0, "spokes": 8}, {"power": 3, "spokes": 8})
    with pytest.raises(TypeError, match="wheel_radios"):
        car(wheel_radios=2.0)


def test_two_parts_share_a_parameter_only_if_it_is_the_same() -> None:
    def other(*, power: int = 2) -> None: ...

    both = takes_options_of(("", engine), ("", engine))(lambda **options: options)
    assert list(keyword_parameters(both)) == ["power", "spokes"]
    with pytest.raises(AssertionError, match="power"):
        takes_options_of(("", engine), ("", other))(lambda **options: options)
