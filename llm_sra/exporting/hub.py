"""Uploads an export to the Hugging Face hub. The folder's content is made and checked elsewhere."""

from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]


class HubError(ValueError):
    """A folder did not get to the hub; says why, and what to do."""


def check_repository(repository: str) -> None:
    """Check that a name is a possible name of a repository.

    Raises:
        HubError: If it cannot.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise HubError(f"--push_to_hub wants NAMESPACE/NAME, got {repository!r}: {error}") from error


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a folder in one commit; the repository is made if it is missing.

    The token is huggingface_hub's: the environment variable HF_TOKEN, or what `hf auth login` keeps.

    Args:
        folder: With a `README.md`.
        repository: `namespace/name`.
        private: Make the repository private; one that exists must be so already.

    Returns:
        The repository's address.

    Raises:
        HubError: If there is no token or no network, or the hub refuses.
    """
    check_repository(repository)
    again = f"the export is whole in {folder}; later: hf upload {repository} {folder}"
    if not get_token():
        raise HubError(f"not pushed to {repository}: no token. Set HF_TOKEN or run `hf auth login`; {again}")
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repo_id).private:
            raise HubError(
                f"not pushed to {repository}: it exists already and is public, and --private was asked for. Make it "
                f"private on the hub, or choose another name; {again}"
            )
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Export of llm-sra")
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:  # all that huggingface_hub raises
        if isinstance(error, HubError):
            raise
        raise HubError(f"not pushed to {repository}: {_first_line(error)}; {again}") from error
    return str(address)


def _first_line(error: Exception) -> str:
    """The error's words, with the one that it came from where it has none of its own."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if error.__cause__ is None else f"{said} ({' '.join(str(error.__cause__).split())})"
