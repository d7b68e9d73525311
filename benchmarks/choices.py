"""Names that a user lists on the command line."""

from __future__ import annotations

from collections.abc import Iterable

from skmimood.exceptions import InputError


def listed(names: str, known: Iterable[str], what: str, separator: str = ",") -> list[str]:
    """Return the names in a list; all that are known for ``"all"``.

    Parameters
    ----------
    names : str
        Separated by ``separator``.
    known : iterable of str
    what : str
        What they are names of, for the error.
    separator : str, default=","

    Raises
    ------
    InputError
        If a name is not known.
    """
    known = list(known)
    wanted = known if names == "all" else [name.strip() for name in names.split(separator)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"There is no {what} {unknown[0]!r}; there are {f'{separator} '.join(known)}.")
    return wanted
