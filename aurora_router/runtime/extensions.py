"""What other distributions add to a connection by its options: a provider of credentials, a source of attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aurora_router import attributes, credentials
from aurora_router.errors import InvalidOption
from aurora_router.policy.options import OF_EXTENSIONS, PREFIX
from aurora_router.runtime.entry_points import load_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.attributes import AttributeSource
    from aurora_router.credentials import Provider
    from aurora_router.policy.options import Options

_KINDS = {
    "credentials": (credentials.GROUP, "provider"),
    "attributes": (attributes.GROUP, "source of attributes"),
}
"""The option that names an extension, without prefix -> its group of entry points, and what it is called."""


def find_extensions(
    given: Any, options: Options, params: Mapping[str, Any]
) -> tuple[Provider | None, AttributeSource | None]:
    """Return what the options name, each made from the options that it reads.

    Args:
        given: what ``credentials=`` gives; None: it is not used.
        options: of the connection.
        params: its other parameters.

    Returns:
        The provider of credentials, and the source of attributes; None where there is none.

    Raises:
        InvalidOption: two things give the credentials, one can't be loaded or called, or no extension reads an option.
    """
    if given is not None and options.credentials is not None:
        raise InvalidOption("credentials= and aurora_credentials are both given: give one of them")
    if given is not None and not callable(given):
        raise InvalidOption(f"credentials= takes a callable, not a {type(given).__name__}")
    if params.get("password") and (given is not None or options.credentials is not None):
        raise InvalidOption("a password is given, and a provider of credentials too: give one of them")
    names = {option: getattr(options, option) for option in _KINDS}
    loaded = {
        option: load_named(PREFIX + option, names[option], group, kind)
        for option, (group, kind) in _KINDS.items()
        if names[option] is not None
    }
    values = {
        name: getattr(options, name)
        for name, option in OF_EXTENSIONS.items()
        if option in _KINDS and getattr(options, name) is not None
    }
    for name in values:
        if not any(name in getattr(each, "options", ()) for each in loaded.values()):
            option = OF_EXTENSIONS[name]
            place = f"without {PREFIX}{option}" if names[option] is None else f"with {PREFIX}{option}={names[option]}"
            raise InvalidOption(f"{PREFIX}{name} has no effect {place}: remove it")
    made = {option: _make(option, names[option], each, values) for option, each in loaded.items()}
    return made.get("credentials", cast("Provider | None", given)), made.get("attributes")


def _make(option: str, name: str, extension: Any, values: Mapping[str, Any]) -> Any:
    """An extension, made from its options where it has some.

    Raises:
        InvalidOption: it can't be called.
    """
    own = {each: value for each, value in values.items() if each in getattr(extension, "options", ())}
    made = extension.from_options(own) if hasattr(extension, "from_options") else extension
    if not callable(made):
        raise InvalidOption(
            f"{PREFIX}{option}={name!r}: its entry point gives a {type(made).__name__}, and has to give a callable"
        )
    return made
