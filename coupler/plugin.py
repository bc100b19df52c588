"""Plug-ins by name: an object, ``package.module:Class`` or ``path/to/file.py:Class``.

A plug-in reaches other processes as its name and is imported there again, never as a pickle.
"""

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from coupler.errors import PluginError, did_you_mean

T = TypeVar("T")
# Modules that were made from a file given by its path.
_FILE_MODULE = "coupler__plugin_"


def load(name: str, kind: type[T], *, folder: Path | None = None) -> type[T]:
    """Import a plug-in class by its name.

    Parameters
    ----------
    name : str
        ``package.module:Class`` or ``path/to/file.py:Class``.
    kind : type
        What it must be a subclass of.
    folder : Path, optional
        What a relative path to a file is relative to; the working directory if None.

    Raises
    ------
    PluginError
        If the module, the file or the class does not exist or is of another kind.

    Collective: no.
    """
    found = load_object(name, folder=folder)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise PluginError(f'"{name}" is not a {kind.__name__}: derive the class from coupler.{kind.__name__}.')
    return found


def load_object(name: str, *, folder: Path | None = None) -> object:
    """Import whatever a plug-in name names: a class, or an object made in its module."""
    place, separator, attribute = name.rpartition(":")
    if not separator or not place or not attribute:
        raise PluginError(f'"{name}" does not name a plug-in: write package.module:Class or path/to/file.py:Class.')
    module = _from_file(place, folder) if place.endswith(".py") else _from_package(place)
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise PluginError(f'There is no "{part}" in {place}.{did_you_mean(part, _public(found))}') from None
    return found


def name_of(plugin: type) -> str:
    """Name a class so that another process can import it; a class of a script is named by the script's file.

    Raises
    ------
    PluginError
        If the class lives inside a function, in no file or under another name: no other process could import it.
    """
    if "<locals>" in plugin.__qualname__:
        raise PluginError(
            f'"{plugin.__qualname__}" is defined inside a function, so no other process can import it. '
            "Move it to the top of its file."
        )
    module = sys.modules.get(plugin.__module__)
    if module is None or _member(module, plugin.__qualname__) is not plugin:
        raise PluginError(
            f'"{plugin.__module__}" has no class under the name "{plugin.__qualname__}", so no other process can '
            "import it. Write the class at the top of its file, and leave its name to it."
        )
    if plugin.__module__ != "__main__" and module.__spec__ is not None and not _is_file_module(plugin.__module__):
        return f"{plugin.__module__}:{plugin.__qualname__}"
    file = vars(module).get("__file__")
    if file is None:
        raise PluginError(
            f'"{plugin.__qualname__}" was typed into a shell, so no other process can import it: put it into a file.'
        )
    return f"{Path(file).resolve()}:{plugin.__qualname__}"


def absolute(name: str, folder: Path) -> str:
    """Make the path in ``path/to/file.py:Class`` absolute; other names stay as they are."""
    place, _, attribute = name.rpartition(":")
    return f"{_path(place, folder)}:{attribute}" if place.endswith(".py") else name


def build(plugin: type[T], params: Mapping[str, object], *arguments: object, key: str) -> T:
    """Construct a plug-in with the parameters of a case, refusing unknown ones by name.

    Parameters
    ----------
    plugin : type
        The class.
    params : mapping
        Its keyword arguments, from the case.
    arguments
        Positional arguments that the coupler gives.
    key : str
        The case's section they came from, for messages: ``kernel.params``.

    Raises
    ------
    PluginError
        If a parameter is unknown or missing, or the class refuses its value.
    """
    parameters = inspect.signature(plugin).parameters.values()
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters)
    known = [item.name for item in list(parameters)[len(arguments) :] if item.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in params:
        if name not in known and not takes_any:
            raise PluginError(f'{key}.{name}: {plugin.__name__} has no parameter "{name}".{did_you_mean(name, known)}')
    try:
        return plugin(*arguments, **params)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{key}: {plugin.__name__} cannot be built with these parameters: {error}.") from error


def _from_package(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise PluginError(
                f'There is no module "{place}". Install it, or name the file: path/to/file.py:Class.'
                f"{_neighbours(error.name)}"
            ) from None
        raise PluginError(f'"{place}" cannot be imported: it needs the module "{error.name}". Install it.') from error
    except (
        Exception,
        SystemExit,
    ) as error:  # the edge of the user's code: whatever its import raises becomes one sentence
        raise PluginError(f'"{place}" cannot be imported: {type(error).__name__}: {error}') from error


def _from_file(place: str, folder: Path | None) -> ModuleType:
    path = _path(place, folder or Path.cwd())
    if not path.is_file():
        near = did_you_mean(path.name, [item.name for item in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise PluginError(f"There is no file {path}.{near}")
    main = sys.modules["__main__"]
    if vars(main).get("__file__") is not None and Path(vars(main)["__file__"]).resolve() == path:
        return main
    name = _file_module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # the file may import its neighbours, as it could if it were run
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the edge of the user's code, as above
        sys.modules.pop(name, None)
        raise PluginError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _path(place: str, folder: Path) -> Path:
    try:
        path = (folder / place).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
        raise PluginError(f'"{place}" cannot be the path of a file: {error}.') from None
    return path


def _file_module_name(path: Path) -> str:
    """Name the module of a file: readable, different for every path, and short, as Numba puts it into file names."""
    return (
        f"{_FILE_MODULE}{re.sub(r'[^0-9A-Za-z]', '_', path.stem)[:40]}_{hashlib.sha256(bytes(path)).hexdigest()[:12]}"
    )


def _is_file_module(module: str) -> bool:
    return module.startswith(_FILE_MODULE)


def _member(module: ModuleType, path: str) -> object:
    """Give what a dotted name leads to, None if it leads nowhere."""
    found: object = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _neighbours(place: str) -> str:
    """Say which module beside the missing one has the nearest name."""
    package, _, name = place.rpartition(".")
    folders = getattr(sys.modules.get(package), "__path__", None)
    return did_you_mean(name, [item.name for item in pkgutil.iter_modules(folders)]) if folders else ""


def _public(found: object) -> list[str]:
    members = vars(found) if isinstance(found, ModuleType | type) else {}
    return [name for name, value in members.items() if isinstance(value, type) and not name.startswith("_")]
