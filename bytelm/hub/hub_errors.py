"""What the client of the hub raises, said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bytelm.errors import CheckpointError, ConfigError


def import_client() -> Any:
    """The package ``huggingface_hub``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"the hub needs the package huggingface_hub ({error}); `pip install 'bytelm[hf]'` installs it"
        ) from None
    return huggingface_hub


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise what goes wrong between here and the hub as one line.

    Args:
        what: was asked for; the line begins with it.
    Raises:
        CheckpointError: instead of what the client raises.
        ConfigError: the client is not installed.
    """
    import_client()
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    network: Any = HfHubHTTPError.__bases__  # of the library for HTTP, which is another in each major version
    failures: tuple[type[Exception], ...] = (*network, HFValidationError, OSError, ValueError, RuntimeError)
    try:
        yield
    except failures as error:
        raise CheckpointError(f"{what} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors

    match error:
        case errors.GatedRepoError():
            return "its owner gives access to those who ask for it on its page; the token must be that of one of them"
        case errors.RepositoryNotFoundError():
            return "there is none, or it is private: `hf auth login`, or HF_TOKEN, gives access"
        case errors.RevisionNotFoundError():
            return "it has no such revision"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"{error.response.status_code}: the token has no right to do this"
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, so the hub is not asked"
        case errors.LocalEntryNotFoundError():
            offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            return f"{offline}, and the local cache does not have it"
        case errors.HfHubHTTPError() | ValueError():
            return _first_line(error)
        case RuntimeError():
            return f"{_first_line(error)} {_first_line(error.__cause__)}" if error.__cause__ else _first_line(error)
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"the hub cannot be reached: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
