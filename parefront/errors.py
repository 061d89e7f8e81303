"""Every error parefront raises on purpose.

```
ParefrontError
├── UsageError                 the user's input is wrong (exit code 2)
│   ├── TaskError                  a task that is missing, malformed or inconsistent
│   ├── StudyFileError             a study file that is not valid
│   ├── SpaceError                 stages or ranges that cannot work
│   ├── PickError                  an expression or name that picks nothing
│   ├── StorageUrlError            what names no storage; a StorageError too
│   ├── RuntimeMissingError        a runtime whose library is not installed
│   └── AgentError                 a device agent that cannot be used as it was asked to
│       ├── TokenError                 a token that is missing, unsafe or not the agent's
│       └── CertificateError           a certificate that cannot be trusted or read
├── StorageError               the storage cannot be opened or read
│   ├── StorageVersionError        written by another, incompatible version
│   └── StudyNotFoundError         no study of that name
├── TrialError                 one trial cannot go on; recorded as its reason
│   ├── StageError                 a stage could not be applied
│   ├── TrainingError              training diverged
│   ├── BuildError                 the model could not become an artifact
│   ├── ArtifactError              an artifact could not be written or read back
│   └── MeasurementError           the target could not run or time the artifact
│       └── DeviceAwayError            the device could not be reached; the trial is tried again
├── EngineError                trials cannot be evaluated any more, whatever they are
└── BundleError                an exported bundle is not what it says
```
"""


class ParefrontError(Exception):
    """Base of all errors parefront raises on purpose."""


class UsageError(ParefrontError):
    """The user's input is wrong; the message says what was expected and what to do."""


class TaskError(UsageError):
    """A task is missing, malformed or inconsistent."""


class StudyFileError(UsageError):
    """A study file is not valid."""


class SpaceError(UsageError):
    """Stages or ranges of a space cannot work."""


class PickError(UsageError):
    """A pick names an unknown column, cannot be read, or matches no candidate."""


class RuntimeMissingError(UsageError):
    """The library of a runtime is not installed; the message says how to install it."""


class AgentError(UsageError):
    """A device agent cannot be used as it was asked to."""


class TokenError(AgentError):
    """The token of a device agent is missing, can be read by others, or is another one."""


class CertificateError(AgentError):
    """The certificate of a device agent cannot be trusted or read."""


class StorageError(ParefrontError):
    """The storage cannot be opened, read or written."""


class StorageUrlError(UsageError, StorageError):
    """The URL of a storage cannot be one."""


class StorageVersionError(StorageError):
    """The storage was written by another, incompatible version."""


class StudyNotFoundError(StorageError):
    """The storage holds no study of that name."""


class TrialError(ParefrontError):
    """One trial cannot go on; its message is recorded as the trial's reason."""


class StageError(TrialError):
    """A stage could not be applied to a model."""


class TrainingError(TrialError):
    """Training diverged, for example to a loss that is not finite."""


class BuildError(TrialError):
    """A model could not be turned into an artifact."""


class ArtifactError(TrialError):
    """An artifact could not be written to the store or read back."""


class MeasurementError(TrialError):
    """The target could not run or time an artifact."""


class DeviceAwayError(MeasurementError):
    """The device could not be reached for as long as it is waited for.

    Attributes:
        begun: Whether it went away after this measurement was asked for, which may have been why.
    """

    def __init__(self, message: str, *, begun: bool = False) -> None:
        """Says what happened."""
        super().__init__(message)
        self.begun = begun


class EngineError(ParefrontError):
    """Trials cannot be evaluated any more, whatever they are; what was told is safe.

    Args:
        message: What happened, and what to do.
        again: Whether it may go on by itself after a while, such as when a cluster is away.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class BundleError(ParefrontError):
    """An exported bundle is not what it says it is."""
