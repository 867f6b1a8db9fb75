"""The commands of ``bend-hf``, a file each; a module of this package with a tuple ``COMMANDS`` adds to them.

>>> COMMANDS.get("tasks").text
'list the tasks'
"""

from __future__ import annotations

from bend_hf.cli._command import Command
from bend_hf.registry import Registry

COMMANDS: Registry[Command] = Registry(kind="command", package="bend_hf.cli", attribute="COMMANDS")

__all__ = ["COMMANDS", "Command"]
