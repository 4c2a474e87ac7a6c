"""Models in a file, `models.yaml`, or the same as JSON or TOML. Python's `Model(...)` is the other way in.

    defaults: {transport: litellm, timeout: 30, region: eu}   # for all models that don't say otherwise
    regions: {"tenant:acme": eu}                               # who may use models of certain regions only
    models:
      - name: small                        # the alias that programs use
        model: openai/gpt-4o-mini          # the provider's name of it
        tier: 1
        api_key: env:OPENAI_API_KEY        # where the key is, never the key
        rpm: 500
        tpm: 200000
        fallbacks: [other]
      - name: other
        model: acme/thing-1
        tier: 1
        price: {input: "0.20", output: "0.80"}   # dollars per million tokens, quoted: YAML would make floats of them
        api_base: https://models.acme.example/v1

A model without `price` has that of the frozen map; where this has none, either, the file is wrong, since unknown is
never zero: `price: unknown` says that one goes without, and the model is then refused under a budget. Of several files,
later ones override earlier ones, field by field. `lanes: {openai: {rpm: 500}}` describes accounts that models share,
each by `lane: openai`; see `lanes/`. `data/models.schema.json` describes the form, for editors; `escalade
models schema` prints it.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.agents._allowed import regions_of
from escalade.agents._carried import carriers
from escalade.agents._model_spec import ModelsFile, models_schema
from escalade.agents._models_reader import read_models
from escalade.agents.models import Model
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.agents.transports import Transport

__all__ = ["SCHEMA_FILE", "load_file", "load_models", "models_schema", "read_models"]

SCHEMA_FILE = Path(__file__).with_name("data") / "models.schema.json"
"""JSON schema of files of models, as it was published with this version."""


def load_models(
    *paths: str | PathLike[str], transport: Transport | None = None
) -> tuple[tuple[Model, ...], dict[str, Any]]:
    """The models of the files, and what else they say of the gateway. Raises BadInput for the first problem."""
    said = load_file(*paths)
    carried = (transport,) * len(said.models) if transport is not None else carriers(said.models, Path(paths[0]).parent)
    lanes = {name: lane.built(name) for name, lane in said.lanes.items()}
    built = tuple(spec.built(carrier, lanes) for spec, carrier in zip(said.models, carried, strict=True))
    return built, {"regions": regions_of(said.regions)}


def load_file(*paths: str | PathLike[str]) -> ModelsFile:
    """What the files say. Raises BadInput for the first problem: `FILE:LINE: KEY: what is wrong`."""
    said, problems = read_models(*paths)
    if problems:
        more = f" (and {len(problems) - 1} more; `escalade models list` shows them)" if len(problems) > 1 else ""
        raise BadInput(f"{problems[0]}{more}")
    return said
