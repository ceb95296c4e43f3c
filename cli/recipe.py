"""`vwl recipe`: lists and shows recipes, and explains their keys."""

from typing import Annotated

import typer

from vwl.cli.options import Json, Override

app = typer.Typer(no_args_is_help=True, help="List and show recipes and their keys.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A built-in recipe or a YAML file.")]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the built-in recipes.

    \b
    Examples:
      vwl recipe list
      vwl recipe list --json
    """
    from vwl.cli.console import print_table
    from vwl.config.files import builtin_recipes, recipe_summary

    print_table("recipes", ["name", "about"], [[name, recipe_summary(name)] for name in builtin_recipes()], as_json)


@app.command()
def show(
    name: Name,
    override: Override = None,
    against: Annotated[str | None, typer.Option(metavar="NAME", help="Show only what differs from this recipe.")] = None,
    as_json: Json = False,
) -> None:
    """Show a recipe with all its keys, those of its bases and the defaults included, as YAML.

    \b
    Examples:
      vwl recipe show paper-voc -o classifier.codebook.num_codewords=128 -o seed=1
      vwl recipe show reference-voc --against paper-voc
    """
    from vwl.cli.console import print_json
    from vwl.config.files import differences, load_recipe, to_yaml

    recipe = load_recipe(name, override or ())
    if against is not None:
        lines = differences(load_recipe(against), recipe)
        if as_json:
            print_json(lines)
        else:
            typer.echo("\n".join(lines))
    elif as_json:
        print_json(recipe.model_dump(mode="json"))
    else:
        typer.echo(to_yaml(recipe), nl=False)


@app.command()
def keys(
    section: Annotated[str | None, typer.Argument(metavar="SECTION", help="Only the keys of this section.")] = None,
    as_json: Json = False,
) -> None:
    """Print every key of a recipe: its type, its default and what it means.

    \b
    Examples:
      vwl recipe keys classifier
      vwl recipe keys irnet.optimiser --json
    """
    from dataclasses import astuple

    from vwl.cli.console import print_table
    from vwl.config.keys import recipe_keys
    from vwl.errors import VwlError, did_you_mean

    rows = [list(astuple(key)) for key in recipe_keys()]
    if section is not None:
        known = {key.rpartition(".")[0] for key, *_ in rows} - {""}
        rows = [row for row in rows if row[0] == section or row[0].startswith(f"{section}.")]
        if not rows:
            raise VwlError(f"a recipe has no section '{section}'{did_you_mean(section, known)}")
    print_table("keys of a recipe", ["key", "type", "default", "about"], rows, as_json)
