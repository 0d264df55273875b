"""Commands for the versions of trained models: models list, show, promote, rollback, verify."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.models import Models

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="a name of `kalvit models list`")]
Version = Annotated[
    str, typer.Argument(metavar="NAME@VERSION", help="a version, such as state_likelihood@7")
]
MAYBE = "a model, or one version as NAME@VERSION; else all"


def list_(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", show_default=False, help="list its versions; else models"),
    ] = "",
) -> None:
    """List the models, or the versions of one."""
    from pipeline.models import Models

    models = Models()
    rows = list(_versions(models, name)) if name else list(model_lines(models).items())
    if not rows:
        print(f"no models in {models.folder.absolute()}, nor beside the installed flows")
    width = max((len(row[0]) for row in rows), default=0)
    for label, text in rows:
        print(f"{label:{width}}  {text}".rstrip())


def model_lines(models: Models) -> dict[str, str]:
    """A line for each model: which versions there are, and which serves."""
    from pipeline.errors import KalvitError

    found = {}
    for name in models.names():
        versions = models.versions(name)
        count = f"{len(versions)} version{'s' * (len(versions) > 1)}"
        try:
            current = models.current(name)
            found[name] = (
                f"{count}, current {name}@{current}" if current else f"{count}, no current"
            )
        except KalvitError as error:
            found[name] = f"{count}; {error}"
    return found


def _versions(models: Models, name: str) -> Iterator[tuple[str, str]]:
    from pipeline.errors import KalvitError

    current = models.current(name)
    for version in models.versions(name):
        label = f"{name}@{version}"
        try:
            card = models.card(label)
        except KalvitError as error:
            yield label, str(error)
            continue
        said = [card.created]
        if version == current:
            said.append("current")
        if card.parent:
            said.append(f"from {name}@{card.parent}")
        if card.labels:
            said.append(f"labels {card.labels}")
        said += [f"{key} {score:.6g}" for key, score in card.scores.items()]
        yield label, ", ".join(said)


def show(
    model: Annotated[
        str,
        typer.Argument(metavar="NAME", help="a model, for its current version, or NAME@VERSION"),
    ],
) -> None:
    """Print the card of a version."""
    from pipeline.models import Models

    card = Models().card(model).model_dump()
    width = max(map(len, card))
    for key, value in card.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}"
                              for k, v in value.items())  # fmt: skip
        print(f"{key.replace('_', ' '):{width}}  {value}".rstrip())


def promote(version: Version) -> None:
    """Let a version serve from now on."""
    from pipeline.models import Models

    Models().promote(version)
    print(f"{version} is current")


def rollback(name: ModelName) -> None:
    """Let the version before serve again."""
    from pipeline.models import Models

    print(f"{name}@{Models().rollback(name)} is current")


def verify(
    model: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help=MAYBE)] = "",
) -> None:
    """Compare every byte with what was written.

    Exit code 1 where one differs.
    """
    from pipeline.models import Models

    wrong = 0
    for label, problem in Models().verify(model):
        wrong += bool(problem)
        print(f"! {problem}" if problem else f"{label} is whole")
    if wrong:
        raise typer.Exit(1)


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_,
    "show": show,
    "promote": promote,
    "rollback": rollback,
    "verify": verify,
}
