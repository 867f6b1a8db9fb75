"""The errors this package raises on purpose, all kinds of one class.

For callers who want to tell a bad input from a defect: ``except BendError`` catches what a user can mend.

>>> issubclass(GenomeError, BendError)
True
"""

from __future__ import annotations


class BendError(Exception):
    """Something the user can mend; the message says what, the value, what was expected and what to do."""


class RegistryError(BendError):
    """A name that is not registered, or one that is registered twice."""


class ConfigError(BendError):
    """A flag or a configuration field that does not fit."""


class InputError(BendError):
    """A bed, label or other input file that cannot be read as what it should be."""


class GenomeError(InputError):
    """A FASTA file that cannot be read, or a place that it does not hold."""


class LabelError(InputError):
    """Labels that do not fit their rows or their task."""


class SourceError(BendError):
    """The files of a task are not where they were looked for."""


class AlignmentError(BendError):
    """Token embeddings that do not cover each nucleotide of a sequence exactly once."""


class ModelError(BendError):
    """A checkpoint or tokenizer that cannot be loaded as the model it should be."""


class DownloadError(BendError):
    """A file that could not be fetched whole."""


class MissingFileError(DownloadError):
    """A server does not have the file."""


class HubError(BendError):
    """The Hub could not be reached, or would not take what was pushed."""


class CacheError(BendError):
    """A cache of embeddings that cannot be made or read: a full disk, a number that does not fit, a cut file."""


class RecordError(BendError):
    """A result record or a prediction file that cannot be written or read."""


def did_you_mean(name: str, known: list[str]) -> str:
    """A closing clause that names the nearest known name, or lists them all.

    Args:
        name: What was asked for.
        known: What there is.

    Returns:
        For example ``did you mean 'gene_finding'?`` or ``known are: a, b``.
    """
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else "known are: " + ", ".join(sorted(known))
