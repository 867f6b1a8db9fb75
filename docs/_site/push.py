"""Push the built documentation site as a static Space of the Hub.

make push-site SPACE=OWNER/NAME
python docs/_site/push.py site OWNER/NAME --dry-run
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bend_hf.errors import BendError, ConfigError
from bend_hf.publishing.hub import Upload, UploadFile, push

CARD = """---
title: bend_hf documentation
emoji: 🧬
colorFrom: green
colorTo: blue
sdk: static
app_file: index.html
pinned: false
---

Documentation of bend_hf, built by `make site`.
"""


def plan(folder: Path, repo: str) -> Upload:
    """Plan the Space: every file of the site, and the card that makes it a static Space.

    Args:
        folder: What ``make site`` wrote.
        repo: ``OWNER/NAME``.

    Raises:
        ConfigError: The folder holds no site.
    """
    if not (folder / "index.html").is_file():
        raise ConfigError(f"{folder} holds no index.html; run 'make site' first")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [UploadFile(path.relative_to(folder).as_posix(), path) for path in paths]
    folders = sorted({file.path.partition("/")[0] for file in files if "/" in file.path})
    return Upload(
        repo=repo,
        repo_type="space",
        files=(UploadFile("README.md", CARD.encode()), *files),
        message="Upload the documentation",
        space_sdk="static",
        mirrored=tuple(folders),
    )


def main(argv: list[str] | None = None) -> int:
    """Push the site, or list what would be pushed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="what make site wrote")
    parser.add_argument("repo", metavar="OWNER/NAME", help="the Space; created if it does not exist, private")
    parser.add_argument("--public", action="store_true", help="make the Space public")
    parser.add_argument("--dry-run", action="store_true", help="list the files with their sizes; send nothing")
    parsed = parser.parse_args(argv)
    try:
        upload = plan(parsed.folder, parsed.repo)
        print("\n".join(upload.lines()))
        for pushed in () if parsed.dry_run else push([upload], public=parsed.public):
            print(f"{pushed.upload.name}: {pushed.url}")
    except BendError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
