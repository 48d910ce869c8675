"""Exceptions of the project.

Everything a user can cause descends from `DeepLabEdgeError` and from the builtin
exception it refines, so `except ValueError` keeps working for library users. The
command line turns any of them into one line on stderr and exit code 2.

    DeepLabEdgeError
    ├── UsageError (ValueError)          an argument that makes no sense
    ├── ConfigError (ValueError)         experiment or data-set description files
    ├── DataError (ValueError)           images, labels, annotation files, records
    ├── CheckpointError (ValueError)     checkpoints: missing, damaged, not matching
    ├── ModelFileError (ValueError)      converted model files
    ├── ConversionError (RuntimeError)   conversion or its verification failed
    ├── OutputError (OSError)            a result that cannot be written
    └── MissingExtraError (ImportError)  an optional package that is not installed

A message says in one breath what is wrong and where, what was found, and what
would be right.
"""


class DeepLabEdgeError(Exception):
    """Is the root of all errors a user can cause and mend."""


class UsageError(DeepLabEdgeError, ValueError):
    """Says that an argument or a combination of arguments makes no sense."""


class ConfigError(DeepLabEdgeError, ValueError):
    """Says which field of a configuration file is wrong and what would be right."""


class DataError(DeepLabEdgeError, ValueError):
    """Says which image, label, annotation or record file cannot be used, and why."""


class CheckpointError(DeepLabEdgeError, ValueError):
    """Says why a checkpoint is missing, damaged or does not fit the model."""


class ModelFileError(DeepLabEdgeError, ValueError):
    """Says why a converted model file cannot be used."""


class ConversionError(DeepLabEdgeError, RuntimeError):
    """Says why a conversion failed or was refused by its verification."""


class OutputError(DeepLabEdgeError, OSError):
    """Says why a result cannot be written."""


class MissingExtraError(DeepLabEdgeError, ImportError):
    """Names the optional package that is missing and the command that brings it."""
