"""The commands `hounsfield models`; `hounsfield.cli.registry` does their work."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class ListByDefault(TyperGroup):
    """`hounsfield models [NAME]` is `hounsfield models list [NAME]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(cls=ListByDefault, add_completion=False)
ModelArgument = Annotated[str, typer.Argument(help="Name of the registered model.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]
TrackingOption = Annotated[str, typer.Option(help="MLflow; MLFLOW_TRACKING_URI or ./mlflow.db by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.callback()
def registered_models() -> None:
    """List the versions of registered models (`models [NAME]`), promote and roll back champions, with a history."""


@models.command("list")
def list_models(
    name: Annotated[str, typer.Argument(help="Name of the registered model; all by default.")] = "",
    tracking_uri: TrackingOption = "",
    as_json: JsonOption = False,
) -> None:
    """List versions with alias, headline figures, data set, commit and verdict of the gate; the default."""
    from hounsfield.cli.registry import list_models as list_versions

    list_versions(name, tracking_uri, as_json)


@models.command()
def promote(
    name: ModelArgument,
    version: Annotated[str, typer.Argument(help="Number or alias, such as challenger.")],
    reason: ReasonOption,
    tracking_uri: TrackingOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version champion and record who did it, when and why."""
    from hounsfield.cli.registry import promote as promote_version

    promote_version(name, version, reason, tracking_uri, as_json)


@models.command()
def rollback(
    name: ModelArgument, reason: ReasonOption, tracking_uri: TrackingOption = "", as_json: JsonOption = False
) -> None:
    """Make the champion before the present one champion again, and record it."""
    from hounsfield.cli.registry import rollback as roll_back

    roll_back(name, reason, tracking_uri, as_json)


@models.command("history")
def model_history(name: ModelArgument, tracking_uri: TrackingOption = "", as_json: JsonOption = False) -> None:
    """Show every move of the champion: when, who, what and why."""
    from hounsfield.cli.registry import print_history

    print_history(name, tracking_uri, as_json)
