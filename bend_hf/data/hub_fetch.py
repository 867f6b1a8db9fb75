"""Built datasets from the Hub into a data folder, each file checked against the sum its build wrote.

from bend_hf.data.hub_fetch import fetch_from_hub
fetch_from_hub(select_tasks(["gene_finding"]), Path("data"))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from bend_hf.checksums import file_sha256
from bend_hf.data.published import add_sums
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.data.task_data import FACTS_FILE
from bend_hf.errors import DownloadError
from bend_hf.tasks import TaskSpec


def fetch_from_hub(
    tasks: Sequence[TaskSpec],
    folder: Path,
    *,
    namespace: str = HUB_NAMESPACE,
    revision: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Fetches the dataset of each task's group whole; ``--data FOLDER`` reads it from there without a network.

    Args:
        tasks: Which.
        folder: The data folder; a dataset goes to ``<folder>/<group>``.
        namespace: Whose datasets.
        revision: Branch, tag or commit; the main branch where None.
        say: Told what is being fetched.

    Returns:
        The files.

    Raises:
        DownloadError: The Hub does not have one, or a file is not what its build wrote.
    """
    found = []
    for group in dict.fromkeys(task.group for task in tasks):
        say(f"{namespace}/{group} from the Hub")
        found += _fetch(f"{namespace}/{group}", folder, folder / group, revision)
    return found


def _fetch(repo: str, folder: Path, place: Path, revision: str | None) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=place)
    except (OSError, ValueError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise DownloadError(
            f"the dataset {repo} cannot be fetched ({type(error).__name__}); check the name, the network and "
            "'hf auth login'; what has arrived is kept and taken up by the next run"
        ) from error
    return [path for facts in sorted(place.glob(f"data/**/{FACTS_FILE}")) for path in _checked(facts, folder)]


def _checked(facts: Path, folder: Path) -> list[Path]:
    sums: dict[str, str] = json.loads(facts.read_text(encoding="utf-8"))["sha256"]
    for name, meant in sums.items():
        path = facts.with_name(name)
        digest = file_sha256(path) if path.is_file() else "no bytes"
        if digest != meant:
            raise DownloadError(f"{path} has sha256 {digest}; its build wrote {meant}. Remove it and fetch it again")
    add_sums(folder, {facts.with_name(name).relative_to(folder).as_posix(): meant for name, meant in sums.items()})
    return [facts.with_name(name) for name in sums]
