"""One exception family. A message says where, what was found and what was expected."""


class BytelmError(Exception):
    """Base of every error that a user can cause; the command line prints it on one line and exits 2."""


class ConfigError(BytelmError):
    """A configuration is wrong; the message begins with the dotted path of the field."""


class EncodingError(BytelmError):
    """Text or bytes that an encoding does not accept; the message holds the index or byte offset."""


class CorpusError(BytelmError):
    """A source file, a shard or a manifest that cannot be used."""


class CheckpointError(BytelmError):
    """A checkpoint folder that is missing, damaged or of another version."""


class TrainingError(BytelmError):
    """A run that cannot go on."""


class LawError(BytelmError):
    """A law was asked for that the model was not trained for."""


class DecodingError(BytelmError):
    """A prompt, limit or sampling option that generation or scoring cannot serve."""
