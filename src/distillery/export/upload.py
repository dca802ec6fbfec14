"""The upload of a folder to the Hugging Face hub. No torch is imported here."""

from pathlib import Path

from distillery.core.errors import DistilleryError, reason_of


def require_id(repo_id: str) -> None:
    """Raise DistilleryError for a name that the hub would not take."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise DistilleryError(f"--push: {error}") from None


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Upload the folder to the hub as `repo_id`, made if it is not there; returns its address.

    Uses the token that `hf auth login` or HF_TOKEN gave. Raises DistilleryError with the hub's
    reason if it refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True, private=private)
        api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message="Add the student")
    except Exception as error:  # the errors of its HTTP client have no lasting names
        reason = reason_of(error)
        raise DistilleryError(
            f"--push {repo_id}: {reason}; the folder {folder} is complete, upload it later by "
            f"`hf upload {repo_id} {folder}`"
        ) from error
    return str(url)
