"""The errors that this package raises on purpose, all of them subclasses of ``BendError``.

``except BendError`` catches what a user can correct, and lets defects of the package through.

>>> issubclass(GenomeError, BendError)
True
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import ClassVar, Final


class BendError(Exception):
    """Something that the user can correct; the message says what, the value, what was expected and what to do.

    Attributes:
        exit_status: What a command returns that ends with this error: 2 if a flag or the configuration is wrong, 1 if
            the data are bad or the run failed.
    """

    exit_status: ClassVar[int] = 1


class RegistryError(BendError):
    """A name that is not registered or registered twice, or a plug-in or file that cannot be used."""

    exit_status: ClassVar[int] = 2


class ConfigError(BendError):
    """A flag or a configuration field with an invalid value."""

    exit_status: ClassVar[int] = 2


class InputError(BendError):
    """A BED, label or other input file that is invalid."""


class GenomeError(InputError):
    """A FASTA file that cannot be read, or an interval that it does not contain."""


class LabelError(InputError):
    """Labels that do not match their rows or their task."""


class SourceError(BendError):
    """The files of a task are missing."""


class AlignmentError(BendError):
    """Token embeddings that do not cover each nucleotide of a sequence exactly once."""


class ModelError(BendError):
    """A checkpoint or tokenizer that cannot be loaded as the expected model."""


class ControlError(BendError):
    """A control whose program, networks or data base is not installed, or does not work."""


class DownloadError(BendError):
    """A file that could not be downloaded completely."""


class MissingFileError(DownloadError):
    """A file that the server does not have."""


class NotFiniteError(ModelError):
    """A model that gave nan or infinity."""


class HubError(BendError):
    """The Hub could not be reached, or rejected what was pushed."""


class CacheError(BendError):
    """A cache of embeddings that cannot be written or read: a full disk, a number out of range, a cut file."""


class TrainingError(BendError):
    """A training that cannot continue, such as one whose loss is not finite."""


class RecordError(BendError):
    """A result record or a prediction file that cannot be written or read."""


def own_error(error: BaseException) -> BendError | None:
    """Return the error of this package that an error of another library was raised from; None if it has no such cause.

    ``datasets`` raises a ``DatasetGenerationError`` from whatever stops a builder or a generator.

    >>> wrapper = RuntimeError("An error occurred while generating the dataset")
    >>> wrapper.__cause__ = InputError("tss.bed, line 3: the end is before the start")
    >>> own_error(wrapper)
    InputError('tss.bed, line 3: the end is before the start')
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, BendError):
            return found
        seen.add(id(found))
        found = found.__cause__
    return None


# What torch (c10/core/CPUAllocator, CUDACachingAllocator) and datasets (map with num_proc) say.
_NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
_DEAD_WORKER: Final = "abruptly died"


def memory_error(error: BaseException | None) -> str | None:
    """Say whether memory ran out behind an error, or a worker was killed, as Linux does when memory runs out.

    >>> memory_error(MemoryError("Unable to allocate 7 GiB"))
    'memory ran out (Unable to allocate 7 GiB)'
    >>> memory_error(ValueError("7")) is None
    True
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = " ".join(str(error).split())[:200]
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
            return f"memory ran out ({text or type(error).__name__})"
        if _DEAD_WORKER in text or type(error).__name__ == "BrokenProcessPool":
            return f"a process was killed, as happens when memory runs out ({text or type(error).__name__})"
        error = error.__cause__ or error.__context__
    return None


def hub_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what a request of ``huggingface_hub`` raises if the Hub refuses it, or if it does not reach the Hub.

    Args:
        others: Further errors to catch in the same clause.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The root of all errors of the HTTP client; it is httpx under one name or another, by huggingface_hub's release.
    roots = [base for base in HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    return (*others, HfHubHTTPError, OfflineModeIsEnabled, *roots)


def hub_error(error: BaseException | None) -> str | None:
    """Say whether the Hub could not be reached, or refused a request, behind an error.

    >>> hub_error(ConnectionError("Couldn't reach 'bend/gene_finding' on the Hub"))
    "the Hub cannot be reached, or refuses the request (ConnectionError: Couldn't reach 'bend/gene_finding' on the Hub)"
    >>> hub_error(ValueError("7")) is None
    True
    """
    kinds = hub_errors() if "huggingface_hub" in sys.modules else ()
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Of ConnectionError only the class itself, which datasets raises; a closed pipe is one of its subclasses.
        if isinstance(error, kinds) or type(error) is ConnectionError:
            first_line = next(iter(str(error).splitlines()), "no reason given")
            return f"the Hub cannot be reached, or refuses the request ({type(error).__name__}: {first_line})"
        error = error.__cause__ or error.__context__
    return None


_LISTED: Final = 20  # names; of more, a message lists the nearest ones only


def did_you_mean(name: str, known: list[str]) -> str:
    """Return a closing clause for a message that names the nearest known name, or lists all of them.

    Args:
        name: The unknown name.
        known: All known names.

    Returns:
        For example ``did you mean 'gene_finding'?`` ``known are: a, b`` or ``there are none``. A long list is
        cut, and says so.

    >>> did_you_mean("chrUn", ["1", "2", "chrEBV", *(f"scaffold_{number}" for number in range(97))])
    '100 names are known, such as chrEBV, scaffold_9, scaffold_8'
    """
    near = nearest(name, known)
    if near:
        return f"did you mean {near!r}?"
    if not known:
        return "there are none"
    if len(known) <= _LISTED:
        return "known are: " + ", ".join(sorted(known))
    return f"{len(known)} names are known, such as {', '.join(_most_like(name, known, n=3, cutoff=0.0))}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, whatever its case, dashes, underscores and blanks; or None.

    If none is like it, the one that begins with it counts, and of several the one that all others begin with.

    >>> nearest("Gene-Findng", ["gene_finding", "cpg_methylation"])
    'gene_finding'
    >>> nearest("cpg", ["gene_finding", "cpg_methylation"])
    'cpg_methylation'
    """
    known = list(known)
    like = _most_like(name, known, n=1, cutoff=0.6)
    if like or not _letters(name):
        return like[0] if like else None
    longer = sorted((one for one in known if _letters(one).startswith(_letters(name))), key=lambda one: (len(one), one))
    return longer[0] if longer and all(_letters(one).startswith(_letters(longer[0])) for one in longer) else None


def _most_like(name: str, known: Iterable[str], *, n: int, cutoff: float) -> list[str]:
    """Return up to ``n`` known names that are most like a name, the nearest first."""
    import difflib

    by_letters: dict[str, str] = {}
    for one in known:
        by_letters.setdefault(_letters(one), one)
    return [by_letters[one] for one in difflib.get_close_matches(_letters(name), list(by_letters), n=n, cutoff=cutoff)]


def _letters(name: str) -> str:
    return re.sub(r"[-_\s]+", "", name).casefold()
