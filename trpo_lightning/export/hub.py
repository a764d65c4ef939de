"""Uploading an exported folder to a hub for models."""

from pathlib import Path

from trpo_lightning.errors import UserError, first_line


def push_folder(folder: Path, repository: str) -> None:
    """Upload a folder as one commit. The client finds its own address and token; there is no prompt.

    Args:
        folder: The folder.
        repository: `user/name`; it is created if need be, private if the account's default is.

    Raises:
        UserError: The hub is out of reach, or refuses the token or the name; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=f"Upload {folder.name}")
    except Exception as error:  # whatever the client and the network raise
        raise UserError(
            f"--push {repository}: the hub did not take it ({first_line(error)[:200]}): it is in {folder}; later: "
            f"hf upload {repository} {folder}"
        ) from error
    print(f"pushed: {commit.commit_url}")
