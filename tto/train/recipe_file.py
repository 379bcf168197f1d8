"""From a YAML file and `key=value` overrides to a checked `Recipe`, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tto.train.errors import RecipeError
from tto.train.recipe import Recipe

LISTS_OF_STRINGS = {"data.train", "data.val", "only", "trackers"}
MAX_NODES = 10_000


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = (), minutes: float | None = None) -> Recipe:
    """Reads a recipe file, applies overrides such as `data.train=photos` or `stages.0.batch=4`, and checks it.

    A stage may be named by its position or its name. `minutes` replaces the recipe's. Raises `RecipeError`.
    """
    path = Path(path)
    try:
        tree = _load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: found {type(tree).__name__}, expected keys and values such as `model:`")
    for override in overrides:
        apply_override(tree, override)
    if minutes is not None:
        tree["minutes"] = minutes
    for key in LISTS_OF_STRINGS:
        wrap_single_string(tree, key)
    return check_recipe(tree, str(path))


def _load_yaml(text: str) -> Any:
    """Plain values. Aliases are values once more wherever they stand: few lines of them can make billions.

    Raises `yaml.YAMLError`, also where there would be more than `MAX_NODES`.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES  # an alias of what it stands in has no end
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if size(root) > MAX_NODES:
            raise yaml.YAMLError(f"it has more than {MAX_NODES} values")
        return loader.construct_document(root)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # of a scalar that its tag cannot be made of
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def check_recipe(tree: dict, source: str) -> Recipe:
    """A tree of plain values as a `Recipe`.

    Raises `RecipeError` naming `source`, key, what was found and what is allowed.
    """
    try:
        return _adapter().validate_python(tree)
    except ValidationError as error:
        raise RecipeError("; ".join(_explain(source, tree, detail) for detail in error.errors()[:3])) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to an equal value."""
    return yaml.safe_dump(plain(asdict(recipe)), sort_keys=False, allow_unicode=True, default_flow_style=None)


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def apply_override(tree: dict, override: str) -> None:
    """Sets one dotted key of `tree` in place; the value is read as YAML.

    An item of a list is named by its position, its `name`, or `*` for all of them.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r}: expected key=value, for example data.train=photos")
    try:
        value = _load_yaml(text) if text else ""
    except (yaml.YAMLError, RecursionError):
        raise RecipeError(f"override {override!r}: the value is no YAML") from None
    _set(tree, key.split("."), value, override)


def _set(node: Any, keys: list[str], value: Any, override: str) -> None:
    name, *rest = keys
    if isinstance(node, list):
        places: Iterable[int | str] = range(len(node)) if name == "*" else [_position(node, name, override)]
    elif isinstance(node, dict):
        places = [name]
        if rest and node.get(name) is None:
            node[name] = {}
    else:
        raise RecipeError(f"override {override!r}: found {node!r}, which has no key {name!r}")
    container: Any = node
    for place in places:
        if rest:
            _set(container[place], rest, value, override)
        else:
            container[place] = value


def wrap_single_string(tree: dict, key: str) -> None:
    """Lets a list of one string be written as the string."""
    *parents, last = key.split(".")
    node = tree
    for name in parents:
        node = node.get(name)
        if not isinstance(node, dict):
            return
    if isinstance(node.get(last), str):
        node[last] = [node[last]]


def _position(items: list, name: str, override: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(items):
        return int(name)
    allowed = ", ".join(str(n) for n in names if n) or f"0 to {len(items) - 1}"
    raise RecipeError(f"override {override!r}: found {name}, allowed: {allowed}")


def _explain(source: str, tree: dict, detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "recipe"
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{source}: {where}: unknown key; allowed: {', '.join(_allowed_keys(detail['loc'][:-1]))}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{source}: {where}: missing"
    message = detail["msg"].removeprefix("Value error, ")
    found = detail["input"]
    shown = "" if isinstance(found, dict) or hasattr(found, "__dataclass_fields__") else f"found {found!r}; "
    return f"{source}: {where}: {shown}{message[0].lower() + message[1:]}"


def _allowed_keys(location: tuple) -> list[str]:
    """Names of the fields of the dataclass at `location`."""
    schema = _adapter().json_schema()
    definitions = schema.get("$defs", {})
    node = schema
    for part in location:
        node = _resolve(node, definitions)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_resolve(node, definitions).get("properties", {}))


def _resolve(node: dict, definitions: dict) -> dict:
    if "$ref" in node:
        return definitions[node["$ref"].rsplit("/", 1)[-1]]
    for option in node.get("anyOf", ()):
        if "$ref" in option or "properties" in option or "items" in option:
            return _resolve(option, definitions)
    return node


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter:
    return TypeAdapter(Recipe)
