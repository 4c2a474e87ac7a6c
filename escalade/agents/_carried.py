"""The transports that a file of models asks for: models with the same address, key and settings share one."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from escalade.registry.secrets import Secret, sealed

if TYPE_CHECKING:
    from escalade.agents._model_spec import ModelSpec
    from escalade.agents.transports import Transport

SKILLS = {None: 0.6, 1: 0.5, 2: 0.65, 3: 0.8, 4: 0.93}
"""Share of right answers of a simulated model, by tier."""


def carriers(specs: Sequence[ModelSpec], folder: Path) -> list[Transport]:
    """One for each model. `folder`: that paths of recordings begin in."""
    made: dict[str, Transport] = {}
    carried = []
    for spec in specs:
        key = _key(spec)
        if key not in made:
            made[key] = _made(spec, specs, folder)
        carried.append(made[key])
    return carried


def _key(spec: ModelSpec) -> str:
    if spec.transport == "simulated":
        return spec.transport
    if spec.transport == "recorded":
        return f"recorded {spec.recording}"
    return dumps([spec.transport, spec.api_base, spec.api_key, spec.timeout, spec.options], default=str, sort_keys=True)


def _made(spec: ModelSpec, specs: Sequence[ModelSpec], folder: Path) -> Transport:
    if spec.transport == "simulated":
        return _simulated(specs)
    if spec.transport == "recorded":
        from escalade.agents.transports import Recorded

        return Recorded(folder / str(spec.recording))
    key = None if spec.api_key is None else Secret(spec.api_key)
    if spec.transport == "lm15":
        from escalade.agents.transports import LM15

        return LM15(api_key=key, api_base=spec.api_base, timeout=spec.timeout)
    from escalade.agents.transports import LiteLLM

    return LiteLLM(api_key=key, api_base=spec.api_base, timeout=spec.timeout, **sealed(spec.options))


def _simulated(specs: Sequence[ModelSpec]) -> Transport:
    """One world of all simulated models: the dearer the tier, the better."""
    from escalade.agents.transports import Simulated
    from escalade.agents.world import SimModel, World

    simulated = [spec for spec in specs if spec.transport == "simulated"]
    return Simulated(World({spec.model: SimModel(skill=SKILLS[spec.tier]) for spec in simulated}))
