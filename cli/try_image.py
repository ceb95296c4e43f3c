"""`vwl try`: maps and mask of any image at once, by the installed ImageNet classifier."""

from dataclasses import asdict
from typing import Annotated

import typer

from vwl.cli.options import Json


def try_image(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file.")],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="ImageNet class in the image (default: the most probable). Repeatable."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for NAME_cam.png, NAME_mask.png and NAME_overlay.png.")] = "try",
    as_json: Json = False,
) -> None:
    """Show what image labels alone give: class activation maps and dense CRF of an ImageNet classifier, without training or network.

    \b
    Examples:
      vwl try cat.jpg
      vwl try cat.jpg --label "tabby cat" --out first
    """
    from vwl.cli.console import print_json, print_table, say
    from vwl.model_file.imagenet import NAME
    from vwl.workflow.try_image import try_image as tried

    result = tried(image, label or (), out)
    if as_json:
        print_json(asdict(result))
    else:
        print_table(f"{image}: what {NAME} sees", ["class", "probability"], [[guess.name, guess.probability] for guess in result.guesses])
    areas = [f"{name} {100 * area:.1f} %" for name, area in zip(result.labels, result.areas, strict=True)]
    say(f"mask: {', '.join(areas)} of the image, background threshold {result.threshold:.2f} (Otsu)")
    say(f"written: {result.cam}, {result.mask}, {result.overlay}")
    say("this is the untrained baseline: plain CAM of an ImageNet classifier, no visual words; vwl run trains on your own images")
