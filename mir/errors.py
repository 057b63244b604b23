"""Every error that mirsweep raises on purpose.

MirsweepError                    one line for the user: place, value, remedy; exit code 1
├── ConfigError (ValueError)     a recipe, job or command-line value is wrong; exit code 2
├── DataError (ValueError)       images, captions, texts or checkpoints cannot be used; exit code 2
├── MirError (ValueError)        the number is not defined for these features
│   ├── NonFiniteError           NaN or infinity in a layer, or a distance that overflowed
│   ├── EmptyModalityError       a layer without vision or without text tokens
│   ├── ModelError               this kind of model has no MIR; exit code 2
│   └── ProtocolError            scores of different protocols were about to be compared
├── EngineError                  DeepSpeed does not do what it was asked to do
├── DivergedError                the loss or the score became NaN or infinite; never restarted
└── ClusterError                 Ray, a worker, the tracker or the storage failed
    └── UnreachableError         the cluster or store named by the user is out of reach; exit code 2

They live on the lowest floor because every floor raises them.
"""


class MirsweepError(Exception):
    """Base of all; `str()` is one line that a user can act on."""

    exit_code = 1


class ConfigError(MirsweepError, ValueError):
    """A value that the user wrote is wrong: the message names file, field, value and remedy."""

    exit_code = 2


class DataError(MirsweepError, ValueError):
    """Input data cannot be used: the message names the file and what to do."""

    exit_code = 2


class MirError(MirsweepError, ValueError):
    """The Modality Integration Rate is not defined for the given features."""


class NonFiniteError(MirError):
    """A layer holds NaN or infinity; the message names the layer and the modality."""


class EmptyModalityError(MirError):
    """A layer has no vision or no text tokens."""


class ModelError(MirError):
    """This kind of model cannot be scored: its pictures do not stand in its decoder's sequence."""

    exit_code = 2


class ProtocolError(MirError):
    """Two scores with different protocol fingerprints were about to be compared."""

    exit_code = 2


class EngineError(MirsweepError):
    """The training engine reports other settings than it was given: the run would be another."""


class DivergedError(MirsweepError):
    """Training diverged: the loss or the score is NaN or infinite at the named step."""


class ClusterError(MirsweepError):
    """A worker, a node, the tracking server or the study's storage failed."""


class UnreachableError(ClusterError):
    """The cluster or the store that the user named does not answer: nothing was begun."""

    exit_code = 2
