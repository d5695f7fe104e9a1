"""The commands that delete and rename studies. Argv -> one call, as in `cli`. No logic."""

import sys
from typing import Annotated

import typer

from studies.cli.main import print_json, stderr, stdout
from studies.cli.options import AsJson, Debug, Storage
from studies.errors import UserError
from studies.settings import DEFAULT_STORAGE

upkeep = typer.Typer()


@upkeep.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """A study with its repeats, controls and files. That test images were opened stays known."""
    from studies.database.storage import open_existing
    from studies.database.upkeep import delete_study, find_belongings

    found = find_belongings(open_existing(storage), name)
    if not yes:
        for line in found.lines():
            stderr(line)
        if not sys.stdin.isatty():
            raise UserError("Nothing was deleted: there is nobody to ask here; give --yes.")
        stderr(f"Delete study '{name}' with all of this? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            stderr("Nothing was deleted.")
            raise typer.Exit(1)
    deleted = delete_study(name, storage)
    if json_:
        print_json(deleted.as_json())
    else:
        stdout().print(f"Deleted: {' '.join(deleted.lines())}", markup=False, soft_wrap=True)


@upkeep.command()
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The study.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    storage: Storage = DEFAULT_STORAGE,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """A study with its repeats and controls; the data stay where they are, its bundles valid."""
    from studies.dashboard.publish import Publisher
    from studies.database.storage import open_storage
    from studies.database.upkeep import rename_study

    renamed = rename_study(old, new, storage)
    Publisher(open_storage(storage), new, stderr).publish()  # Its notes name it.
    if json_:
        print_json({"study": new, "renamed": old, "trials": dict(renamed.num_trials)})
    else:
        stdout().print(f"Study '{old}' is now '{new}'.", markup=False, soft_wrap=True)
