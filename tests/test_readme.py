"""What is written for people is true: commands can be typed; targets, recipes, keys, stages, files and links exist."""

import re
import shlex
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from tests.stages import STAGES
from vwl.cli.main import app
from vwl.cli.options import layout
from vwl.config.files import builtin_recipes, load_recipe
from vwl.config.keys import recipe_keys
from vwl.config.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", *PAGES)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def shell_lines(text: str) -> list[str]:
    """The command lines of the shell blocks, continued ones joined, comments taken off."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def resolved(line: str) -> tuple[Any, Any, list[str]]:
    """The command that a line `vwl ...` calls, its context and the words left for it."""
    _, *words = shlex.split(line)
    command = typer.main.get_command(app)
    ctx = typer.Context(command, info_name="vwl")
    while words and hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(ctx, words)
        ctx = typer.Context(command, parent=ctx, info_name=name)
    return command, ctx, words


def parsed(line: str) -> dict[str, Any]:
    """Parse a line with the real command line and without running it; what is unknown is refused."""
    command, ctx, words = resolved(line)
    return command.make_context(ctx.info_name, words).params


def commands_in_running_text(text: str) -> list[str]:
    """`vwl ...` in inline code; the alternatives a|b of a table become one line each."""
    found = []
    for code in re.findall(r"`(vwl [a-z][^`]*)`", text):
        stem, _, last = code.replace("\\|", "|").rpartition(" ")
        found += [f"{stem} {choice}" for choice in last.split("|")]
    return found


EVERYTHING = "\n".join(map(text_of, ("README.md", *PAGES)))
COMMANDS = list(dict.fromkeys(line for line in shell_lines(EVERYTHING) if line.startswith("vwl ")))
"""Of the README and the pages of the site, each once."""


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood_and_its_recipe_and_keys_are_known(line):
    params = parsed(line)
    recipe = params.get("recipe") or "paper-voc"
    load_recipe("paper-voc" if recipe.endswith(".yaml") else recipe, params.get("override") or ())  # a file of the reader's own


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("vwl train") and "--workers" in line])
def test_the_workers_of_a_command_can_share_the_batches_of_its_recipe(line):
    params = parsed(line)
    recipe = load_recipe(params.get("recipe") or "paper-voc")
    batch_size = getattr(recipe, line.split()[2]).batch_size
    layout(params["workers"], gpus_per_worker=params["gpus_per_worker"]).split_batch(batch_size)


def test_the_commands_are_found():
    assert len(COMMANDS) >= 40
    assert {shlex.split(line)[1] for line in COMMANDS} >= {"data", "run", "predict", "evaluate", "status", "recipe"}


@pytest.mark.parametrize("line", ["vwl runs", "vwl run --run r --worker-count 2", "vwl train resnet --run r", "vwl status"])
def test_a_command_that_is_wrong_would_be_noticed(line):
    with pytest.raises(TyperException):
        parsed(line)


@pytest.mark.parametrize("line", list(dict.fromkeys(commands_in_running_text(EVERYTHING))))
def test_a_command_in_running_text_exists(line):
    resolved(line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_of_make_exists(document):
    text = text_of(document)
    phrases = re.findall(r"\bmake ([a-z-]+(?: \| [a-z-]+)*)(?:`|$| +#)", text, re.MULTILINE)
    named = {target for phrase in phrases for target in phrase.split(" | ")}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets
    assert document != "README.md" or named >= {"demo", "test", "docs"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_recipe_exists(document):
    text = text_of(document)
    named = set(re.findall(r"`((?:paper|reference|table4|fig12)-[a-z0-9-]*[a-z0-9])`", text))
    assert named <= set(builtin_recipes())


def test_the_pages_name_every_recipe():
    assert "<!-- generated: recipes -->" in text_of("docs/recipes.md")
    assert [name for name in builtin_recipes() if f"`{name}`" not in EVERYTHING and not name.startswith("table4")] == []


def test_every_key_in_running_text_exists():
    sections = set(Recipe.model_fields)
    named = re.findall(r"(?:-o |`)([a-z_.]+=[^\s`\"]+)", EVERYTHING)
    overrides = [text for text in named if text.partition(".")[0] in sections]
    assert len(overrides) >= 8
    for override in overrides:  # one by one: some exclude each other
        load_recipe("paper-voc", [override])
    keys = {key.key for key in recipe_keys()}
    prefixes = {prefix for key in keys for prefix in accumulate(key.split("."), lambda a, b: f"{a}.{b}")}
    assert {key for key in re.findall(r"`([a-z_]+\.[a-z_.]+)`", EVERYTHING) if key.partition(".")[0] in sections} <= prefixes


def test_the_run_folder_is_drawn_with_every_stage():
    drawn = re.search(r"^```\n(run\.json.*?)^```", text_of("docs/files.md"), re.MULTILINE | re.DOTALL).group(1)
    assert {name for name in STAGES if re.search(rf"(?:^|[ ,]){name}/", drawn, re.MULTILINE)} == set(STAGES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_every_file_named_exists(document):
    path = ROOT / document
    text = text_of(document)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    files = re.findall(r"`((?:vwl|cli|tests|docs|benchmarks)/[\w/.-]*)`", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "docs/folder-to-masks.md"])
def test_the_python_code_runs_and_is_short(document, tiny_run, tmp_path, monkeypatch):
    from PIL import Image

    from vwl.model_file.content import encode_model, write_model
    from vwl.workflow.model_export import describe

    codes = re.findall(r"^```python\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL)
    code = next(code for code in codes if "load_model" in code)
    assert len(code.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda image: image.save("shown.png"))  # there is no screen
    write_model("model.safetensors", encode_model(*describe(tiny_run)))
    Image.open(f"{tiny_run.index.root.path}/images/val_00001.jpg").save("p1.jpg")
    exec(code, {})
    assert {path.name for path in tmp_path.iterdir()} - {"for-the-hub"} == {"masks", "model.safetensors", "p1.jpg", "shown.png"}
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"p1_mask.png", "p1_overlay.png"}
