"""Input schemas: from the type hints of a function to a JSON schema, and from a model's JSON to Python values.

Compiled once per tool: a validator of the schema (strict, as a model's arguments are JSON) and an adapter that gives
each value its hinted Python type (dates, enums, nested models). DSPy builds both anew at each call. A check takes
about 2 us.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, NotRequired, get_type_hints

from escalade.errors import BadInput, InvalidArguments
from escalade.registry.idempotency import copied
from escalade.registry.privacy.redactor import redact

_REFUSED = {
    inspect.Parameter.VAR_POSITIONAL: "collects any arguments; name each one, with its type",
    inspect.Parameter.VAR_KEYWORD: "collects any arguments; name each one, with its type",
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only; a model gives arguments by name",
}
_SCANNED = 64_000
_FIXED = frozenset({str, int, float, bool, bytes, type(None)})

_UNHINTED = "has no type hint; the input schema is made from the hints, so give it one"


class Inputs:
    """What a tool takes. `schema`: the whole JSON schema (an object). `signature`: with all hints resolved.

    `properties`: JSON schema of each argument with nothing left to look up, as DSPy shows it to models.
    `hints`: Python type of each argument. Raises BadInput for a function that no model could call by its hints.
    """

    def __init__(self, function: Callable[..., Any], tool: str) -> None:
        self.tool = tool
        self.signature, self.output = _hinted(function, tool)
        self.hints: dict[str, Any] = {name: p.annotation for name, p in self.signature.parameters.items()}
        self._adapter = _adapter(self.signature, tool)
        self.schema = _schema(self._adapter, self.signature, tool)
        self.properties: dict[str, Any] = {
            name: _inlined(value, self.schema.get("$defs", {})) for name, value in self.schema["properties"].items()
        }
        self._names = list(self.signature.parameters)
        self._validator = _validator(self.schema)

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, in their Python types, as they are now: what is changed in them later doesn't count.
        Raises InvalidArguments, one line that names the argument.
        """
        from pydantic import ValidationError

        if args:
            kwargs = self._by_name(args, kwargs)
        kwargs = {name: value if type(value) in _FIXED else _owned(value) for name, value in kwargs.items()}
        plain = kwargs
        try:
            valid = self._validator.is_valid(plain)
        except (ValueError, TypeError, OverflowError):  # Python objects, from callers that aren't models
            plain = self._plain(kwargs)
            valid = self._validator.is_valid(plain)
        if not valid:
            raise self._explained(plain)
        try:
            accepted: dict[str, Any] = self._adapter.validate_python(kwargs)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._invalid(first["loc"], first["msg"]) from None
        return accepted

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self._names):
            raise InvalidArguments(f"{self.tool} takes {len(self._names)} arguments, {len(args)} were given")
        named = dict(zip(self._names, args, strict=False))
        twice = next((name for name in named if name in kwargs), None)
        if twice is not None:
            raise _about(f"{self.tool}: argument {twice!r} was given twice", twice)
        return named | kwargs

    def _plain(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        from pydantic_core import to_jsonable_python

        plain = {}
        for name, value in kwargs.items():
            try:
                plain[name] = to_jsonable_python(value)
            except ValueError:  # pydantic's own, and that of bytes which are no text
                raise _about(f"{self.tool}: argument {name!r}: a {type(value).__name__} isn't JSON", name) from None
        return plain

    def _explained(self, plain: dict[str, Any]) -> InvalidArguments:
        unknown = next((name for name in plain if name not in self.schema["properties"]), None)
        if unknown is not None:
            close = difflib.get_close_matches(unknown, self._names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            takes = f" It takes: {', '.join(self._names)}" if self._names else " It takes none"
            return _about(f"{self.tool}: unknown argument {unknown!r}{hint}.{takes}".replace("?.", "?"))
        missing = [name for name in self.schema.get("required", ()) if name not in plain]
        if missing:
            return _about(f"{self.tool}: missing argument {', '.join(map(repr, missing))}", *missing)
        error = next(iter(self._validator.iter_errors(plain)))
        return self._invalid(error.instance_path, _reason(error))

    def _invalid(self, path: Any, message: str) -> InvalidArguments:
        where = ".".join(map(str, path))
        return _about(f"{self.tool}: argument {where!r}: {message}", *map(str, path[:1]))


def _about(line: str, *arguments: str) -> InvalidArguments:
    """`line` may quote values: redacted, then cut, since half a secret would be recognised by nobody."""
    if len(line) > _SCANNED:
        line = f"{line[:100].partition(':')[0]}: an argument doesn't fit, and is too long to show"
    line = " ".join(redact(line).text.split())
    error = InvalidArguments(line if len(line) <= 300 else f"{line[:297]}...")
    error.arguments = arguments
    return error


def _owned(value: Any) -> Any:
    """A copy of an argument, so that whoever gave it can't change it between the guard's look and the tool's."""
    kind = type(value)
    try:
        if kind is list:
            return [item if type(item) in _FIXED else _owned(item) for item in value]
        if kind is dict:
            return {key: item if type(item) in _FIXED else _owned(item) for key, item in value.items()}
    except RecursionError:  # the validator refuses what goes so deep
        return value
    return copied(value)


def is_async(function: Callable[..., Any]) -> bool:
    """Does calling it give a coroutine?"""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_call(function))


def is_generator(function: Callable[..., Any]) -> bool:
    """Does calling it give a generator, so that nothing runs within the call?"""
    each = (function, _call(function))
    return any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in each)


def _call(function: Any) -> Any:
    """What runs when a callable object is called."""
    return type(function).__call__


def _hinted(function: Callable[..., Any], tool: str) -> tuple[inspect.Signature, Any]:
    """The signature with resolved hints, and the type of the result (`inspect.Signature.empty` without a hint)."""
    annotated = function if inspect.isroutine(function) else getattr(function, "func", _call(function))
    try:
        hints = get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadInput(f"tool {tool!r}: a type hint can't be resolved: {error}") from None
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        problem = _problem(parameter) or ("" if name in hints else _UNHINTED)
        if problem:
            raise BadInput(f"tool {tool!r}: parameter {name!r} {problem}")
        kind = inspect.Parameter.KEYWORD_ONLY if _keyword_only(parameter) else inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(parameter.replace(annotation=hints[name], kind=kind))
    output = hints.get("return", inspect.Signature.empty)
    return inspect.Signature(parameters, return_annotation=output), output


def _problem(parameter: inspect.Parameter) -> str:
    """Why no model could give this argument, "" if one can."""
    from pydantic.fields import FieldInfo

    if parameter.kind in _REFUSED:
        return _REFUSED[parameter.kind]
    if isinstance(parameter.default, FieldInfo):
        return "has Field(...) as its default; write `Annotated[type, Field(...)] = default`"
    return ""


def _keyword_only(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY


def _adapter(signature: inspect.Signature, tool: str) -> Any:
    """A TypeAdapter of a TypedDict of the parameters: unlike a model, it has no attributes that a name could shadow."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError
    from typing_extensions import TypedDict

    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        try:
            TypeAdapter(parameter.annotation).json_schema()
        except (PydanticUserError, NameError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"tool {tool!r}: parameter {name!r}: its type has no JSON schema ({reason})") from None
        optional = parameter.default is not inspect.Parameter.empty
        fields[name] = NotRequired[parameter.annotation] if optional else parameter.annotation
    typed_dict: Any = TypedDict
    arguments = typed_dict("arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(arguments)


def _schema(adapter: Any, signature: inspect.Signature, tool: str) -> dict[str, Any]:
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    class Lean(GenerateJsonSchema):
        """Without the titles that repeat each name: models pay for every token."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    schema: dict[str, Any] = adapter.json_schema(schema_generator=Lean)
    schema.pop("title", None)
    for name, parameter in signature.parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            try:
                schema["properties"][name]["default"] = to_jsonable_python(parameter.default)
            except PydanticSerializationError:
                raise BadInput(
                    f"tool {tool!r}: parameter {name!r}: its default, a {type(parameter.default).__name__}, isn't JSON"
                ) from None
    return schema


def output_schema(output: Any) -> dict[str, Any] | None:
    """JSON schema of a tool's result; None when it isn't annotated or isn't JSON."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    if output is inspect.Signature.empty or output is Any:
        return None
    try:
        return TypeAdapter(output).json_schema(mode="serialization")
    except (PydanticUserError, NameError, TypeError):
        return None


def inlined(schema: Any) -> Any:
    """A JSON schema without references: each is replaced by what it stands for."""
    definitions = schema.get("$defs", {})
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}


def _inlined(value: Any, definitions: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """`value` with its references replaced by what they stand for; one that contains itself ends as "any object"."""
    if isinstance(value, list):
        return [_inlined(item, definitions, inside) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {key: _inlined(item, definitions, inside) for key, item in value.items()}
    name = reference.rpartition("/")[2]
    beside = {key: _inlined(item, definitions, inside) for key, item in value.items() if key != "$ref"}
    if name in inside:
        return {"type": "object", "description": f"again a {name}"} | beside
    return _inlined(definitions[name], definitions, (*inside, name)) | beside


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema)


def _reason(error: Any) -> str:
    """What is wrong; for a choice of types, what each of them would want."""
    branches = getattr(error.kind, "context", None)
    if not branches:
        return str(error.message)
    return " and ".join(dict.fromkeys(branch[0].message for branch in branches if branch))
