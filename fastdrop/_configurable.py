"""Objects that are described by their constructor's arguments, and made again from that description.

A description is a JSON-able dict: the name of the class under "class", and each argument of its constructor under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeAlias

from fastdrop import _validate

Config: TypeAlias = dict[str, Any]
CLASS = "class"


def describe(thing: object, given: Mapping[str, Any] = MappingProxyType({})) -> Config:
    """Return the description of an object: its constructor's arguments, as `given` or as attributes of the same name."""
    arguments = signature(type(thing)).parameters
    return {CLASS: type(thing).__name__} | {name: given[name] if name in given else getattr(thing, name) for name in arguments}


def make(name: str, config: Any, classes: Sequence[type]) -> Any:
    """Return a new object from its description; `name` is what errors call it.

    Raises
    ------
    TypeError, ValueError: no dict, an unknown class, unknown or missing arguments, or what the constructor raises.
    """
    _validate.instance(name, config, dict, "a dict")
    by_class = {each.__name__: each for each in classes}
    made = by_class[_validate.choice(f"{name}.{CLASS}", config.get(CLASS), by_class)]
    arguments = {key: value for key, value in config.items() if key != CLASS}
    try:
        signature(made).bind(**arguments)
    except TypeError as error:
        _validate.fail_value(name, f"a description of a {made.__name__}", f"{sorted(map(str, arguments))} ({error})")
    return made(**arguments)


def names(classes: Sequence[type]) -> Mapping[str, type]:
    """Return the classes by name as Keras writes them: GlorotUniform is "glorot_uniform", L1L2 is "l1_l2"."""
    return {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", each.__name__).lower(): each for each in classes}


def get(name: str, value: Any, classes: Sequence[type]) -> Any:
    """Return an object of one of the classes, given as itself, by its name, or by its description."""
    if type(value) in classes:
        return value
    if isinstance(value, dict):
        return make(name, value, classes)
    by_name = names(classes)
    if not isinstance(value, str):
        _validate.fail_type(name, f"one of {', '.join(sorted(by_name))} or an object of that kind", type(value).__name__)
    return by_name[_validate.choice(name, value, by_name)]()
