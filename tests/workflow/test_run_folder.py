"""Run folders: what belongs to a run, what a changed key outdates, and what a manifest tells."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.stages import STAGES
from vwl.config.files import load_recipe, overridden
from vwl.data.index import Index, Row, make_index, write_index
from vwl.errors import VwlError
from vwl.storage.checked import digest
from vwl.storage.folder import Folder
from vwl.storage.map_catalogue import read_catalogue
from vwl.storage.record import stored_file
from vwl.workflow.run_folder import Run, fault_line, versions

RECIPE = load_recipe("demo", [*TINY, "cam.background_threshold=0.3", "crf.background=0.2", "walk.background_threshold=0.3"])
BELOW_IRNET = "irnet walk masks segmenter segment"


def make(root: Path, *names: str) -> Index:
    return make_index((Row(name, f"{name}.jpg", (1,), None, "train") for name in names), ("background", "cat", "dog"), root, "a test")


@pytest.fixture
def index_path(tmp_path) -> str:
    write_index(make(tmp_path / "images", "a", "b"), tmp_path / "index.parquet")
    return str(tmp_path / "index.parquet")


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "run")


@pytest.fixture
def run(folder, index_path) -> Run:
    return Run.start(folder, RECIPE, index_path)


def finish(run: Run, *stages: str) -> None:
    """Leave what finished stages leave: their files and a manifest."""
    for stage in stages:
        manifest = run.start_stage(stage)
        names = run.expected_files(replace(manifest, state="done"))
        for name in ("result", *names):
            run.stage_folder(stage).write(name, stage.encode())
        run.finish_stage(replace(manifest, state="done"), {name: stored_file(run.stage_folder(stage), name) for name in names})


def outdated(run: Run, *overrides: str) -> str:
    changed = Run(run.folder, overridden(run.recipe, overrides), run.index, run.index_path)
    return " ".join(stage for stage in STAGES if changed.fingerprint(stage) != run.fingerprint(stage))


def test_a_new_run_holds_its_recipe_and_its_data(run, folder, index_path):
    again = Run.open(folder)
    assert again.recipe == RECIPE
    assert (again.index_path, again.index.fingerprint()) == (index_path, run.index.fingerprint())
    assert load_recipe(f"{folder}/recipe.yaml") == RECIPE
    assert json.loads(Path(folder, "run.json").read_text()) == {
        "index": index_path,
        "index_fingerprint": run.index.fingerprint(),
        "recipe": "demo",
        "recipe_digest": digest(Path(folder, "recipe.yaml").read_bytes()),
    }


def test_the_same_start_again_is_welcome(run, folder, index_path):
    finish(run, "classifier")
    assert Run.start(folder, RECIPE, index_path).is_done("classifier")


def test_a_relative_path_of_the_index_is_kept_as_an_absolute_one(folder, index_path, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(index_path).parent)
    Run.start(folder, RECIPE, "index.parquet")
    monkeypatch.chdir("/")
    assert Run.open(folder).index_path == index_path


def test_a_run_folder_that_was_moved_still_opens(run, folder, tmp_path):
    finish(run, "classifier", "cam")
    shutil.move(folder, tmp_path / "elsewhere")
    moved = Run.open(str(tmp_path / "elsewhere"))
    assert moved.recipe == RECIPE
    assert moved.is_done("cam")
    with pytest.raises(VwlError, match="is not a run folder"):
        Run.open(folder)


def test_a_data_set_that_was_moved_is_the_same_data_set(run, folder, index_path, tmp_path):
    finish(run, "classifier")
    Path(index_path).unlink()
    write_index(make(tmp_path / "new position", "a", "b"), tmp_path / "moved.parquet")
    moved = Run.start(folder, RECIPE, str(tmp_path / "moved.parquet"))
    assert moved.is_done("classifier")
    assert Run.open(folder).index.root.path == str(tmp_path / "new position")


def test_a_run_of_another_recipe_is_refused_and_untouched(run, folder, index_path):
    other = overridden(RECIPE, ["seed=7", "classifier.epochs=3", "irnet.epochs=3", "walk.steps=9"])
    with pytest.raises(VwlError, match=r"another recipe \(classifier.epochs: 1 -> 3, irnet.epochs: 1 -> 3, seed: 0 -> 7 and 1 more\)"):
        Run.start(folder, other, index_path)
    assert Run.open(folder).recipe == RECIPE


def test_a_run_on_other_data_is_refused_and_untouched(run, folder, index_path, tmp_path):
    write_index(make(tmp_path / "images", "a", "b", "c"), tmp_path / "more.parquet")
    with pytest.raises(VwlError, match=rf"another data set \({index_path}\)"):
        Run.start(folder, RECIPE, str(tmp_path / "more.parquet"))
    assert Run.open(folder).index_path == index_path


def test_an_unknown_class_to_score_is_refused_before_anything_is_written(folder, index_path):
    with pytest.raises(VwlError, match="unknown class 'caat'; did you mean 'cat'"):
        Run.start(folder, overridden(RECIPE, ["evaluation.classes=[caat]"]), index_path)
    assert not Path(folder).exists()


def test_overwrite_replaces_the_recipe_and_outdates_only_what_depends_on_it(run, folder, index_path):
    finish(run, *STAGES)
    new = Run.start(folder, overridden(RECIPE, ["walk.steps=9"]), index_path, overwrite=True)
    assert Run.open(folder).recipe == new.recipe == overridden(RECIPE, ["walk.steps=9"])
    assert [stage for stage in STAGES if not new.is_done(stage)] == ["walk", "masks", "segmenter", "segment"]
    for stage in STAGES:  # nothing is deleted before its stage is begun
        assert new.stage_folder(stage).read("result") == stage.encode()
    new.start_stage("walk")
    left = [stage for stage in STAGES if new.stage_folder(stage).exists("result")]
    assert left == [stage for stage in STAGES if stage != "walk"]


def test_overwrite_takes_other_data(run, folder, tmp_path):
    finish(run, *STAGES)
    write_index(make(tmp_path / "images", "a"), tmp_path / "fewer.parquet")
    new = Run.start(folder, RECIPE, str(tmp_path / "fewer.parquet"), overwrite=True)
    assert len(Run.open(folder).index.rows) == 1
    assert not any(new.is_done(stage) for stage in STAGES)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("classifier.epochs=2", " ".join(STAGES)),
        ("classifier.optimiser.learning_rate=0.5", " ".join(STAGES)),
        ("seed=1", " ".join(STAGES)),
        ("cam.scales=[0.5]", " ".join(list(STAGES)[1:])),
        ("cam.background_threshold=0.4", ""),
        ("crf.background=0.4", "crf"),
        ("crf.kernels.iterations=3", "crf"),
        ("irnet_labels.confidence=0.6", f"irnet-labels {BELOW_IRNET}"),
        ("irnet.epochs=2", BELOW_IRNET),
        ("walk.steps=9", "walk masks segmenter segment"),
        ("walk.background_threshold=0.4", "masks segmenter segment"),
        ("walk.background_threshold=auto", "masks segmenter segment"),
        ("segmenter.iterations=9", "segmenter segment"),
        ("segment.crf=false", "segment"),
        ("evaluation.classes=[cat]", ""),
        ("name=other", ""),
    ],
)
def test_a_changed_key_outdates_the_stages_that_depend_on_it(run, override, wanted):
    assert outdated(run, override) == wanted


def test_an_automatic_background_of_the_crf_depends_on_the_maps_threshold(folder, index_path):
    run = Run.start(folder, overridden(RECIPE, ["crf.background=auto"]), index_path)
    assert outdated(run, "cam.background_threshold=0.4") == "crf"


def test_the_data_outdates_every_stage_but_its_place_none(run, tmp_path):
    def fingerprints(index: Index) -> dict[str, str]:
        return {stage: Run(run.folder, RECIPE, index, "").fingerprint(stage) for stage in STAGES}

    ours = fingerprints(run.index)
    assert fingerprints(make(tmp_path / "elsewhere", "a", "b")) == ours
    assert not set(fingerprints(make(tmp_path / "images", "a", "c")).values()) & set(ours.values())


def test_fingerprints_differ_between_stages(run):
    assert len({run.fingerprint(stage) for stage in STAGES}) == len(STAGES)


def test_a_stage_that_was_never_started_has_no_manifest(run):
    assert run.manifest("cam") is None
    assert not run.is_done("cam")


def test_a_manifest_has_the_settings_and_inputs_of_its_stage(run):
    before = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run.start_stage("walk")
    manifest = run.manifest("walk")
    assert manifest.stage == "walk"
    assert manifest.state == "running"
    assert manifest.settings["steps"] == RECIPE.walk.steps
    assert manifest.settings["long_side"] == 96
    assert manifest.seed == 0
    assert manifest.recipe == "demo"
    assert manifest.reads == {"cam": run.fingerprint("cam"), "irnet": run.fingerprint("irnet")}
    assert manifest.fingerprint == run.fingerprint("walk")
    assert manifest.index == run.index.fingerprint()
    assert manifest.versions == versions()
    assert before <= manifest.started <= time.strftime("%Y-%m-%dT%H:%M:%S%z")
    assert manifest.seconds == 0.0


def test_a_manifest_holds_the_threshold_that_masks_are_cut_at(run):
    assert run.start_stage("masks").settings == 0.3


def test_versions_name_all_that_computes():
    found = versions()
    assert {"vwl", "commit", "python", "torch", "numpy", "numba", "ray"} <= found.keys()
    assert found["python"].startswith("3.")
    assert all(isinstance(version, str) for version in found.values())


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("vwl.config.versions.PACKAGES", ("numpy", "not-installed-anywhere"))
    assert "numpy" in versions()
    assert "not-installed-anywhere" not in versions()


def test_a_stage_that_was_cut_off_keeps_what_it_left(run):
    manifest = run.start_stage("cam")
    run.write_manifest(replace(manifest, seconds=12.5))
    run.stage_folder("cam").write("part-00000.parquet", b"maps")
    assert run.start_stage("cam").seconds == 12.5
    assert run.stage_folder("cam").exists("part-00000.parquet")
    assert not run.is_done("cam")


def test_a_stage_of_other_settings_begins_from_nothing(run, folder, index_path):
    finish(run, "classifier", "cam")
    new = Run.start(folder, overridden(RECIPE, ["cam.scales=[0.5]"]), index_path, overwrite=True)
    assert new.start_stage("cam").state == "running"
    assert new.stage_folder("cam").names() == ["catalogue.arrow", "manifest.json", "record.json"]
    assert new.is_done("classifier")


def test_a_stage_whose_input_is_not_done_names_the_command_to_do_it(run, folder):
    with pytest.raises(VwlError, match=f"walk needs the cam stage, which is not done in {folder}: vwl infer cam --run {folder}"):
        run.require("walk")
    finish(run, "classifier", "cam")
    with pytest.raises(VwlError, match=f"walk needs the irnet stage, .* vwl train irnet --run {folder}"):
        run.require("walk")
    finish(run, "irnet-labels", "irnet")
    run.require("walk")
    run.require("classifier")


def test_an_outdated_input_is_not_done(run, folder, index_path):
    finish(run, "classifier", "cam")
    changed = Run.start(folder, overridden(RECIPE, ["seed=1"]), index_path, overwrite=True)
    with pytest.raises(VwlError, match="crf needs the cam stage"):
        changed.require("crf")


def test_a_run_of_an_earlier_version_is_refused_with_the_new_name_of_its_key(run, folder):
    stored = Path(folder, "recipe.yaml")
    about = json.loads(Path(folder, "run.json").read_text())
    del about["recipe_digest"]  # which that version did not write
    Path(folder, "run.json").write_text(json.dumps(about))
    stored.write_text(stored.read_text().replace("  codebook:\n    strategy:", "  words: memory\n  codebook:\n    strategy:"))
    with pytest.raises(VwlError, match=r"recipe\.yaml: 'classifier.words' is now 'classifier.codebook.strategy'"):
        Run.open(folder)


DAMAGES = [
    lambda data: b"",
    lambda data: b"{",
    lambda data: b"[]",
    lambda data: b"\xff\xfe",
    lambda data: b"a: [",
    lambda data: b"3",
    lambda data: data[: data.rindex(b"\n", 0, -2) + 1],  # without its last line
]


@pytest.mark.parametrize(
    ("name", "damage"), [("recipe.yaml", None), *((name, damage) for name in ("run.json", "recipe.yaml") for damage in DAMAGES)]
)
def test_a_damaged_file_of_the_run_is_one_line_whose_advice_keeps_what_is_done(run, folder, index_path, name, damage):
    finish(run, *STAGES)
    path = Path(folder, name)
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    for again in (lambda: Run.open(folder), lambda: Run.start(folder, RECIPE, index_path)):
        with pytest.raises(VwlError) as caught:
            again()
        assert str(caught.value) == (
            f"{path} is missing or damaged; write it again with --data INDEX, --recipe RECIPE and --overwrite (finished stages are kept)"
        )
    Run.start(folder, RECIPE, index_path, overwrite=True)
    assert all(Run.open(folder).is_done(stage) for stage in STAGES)


@pytest.mark.parametrize(("number", "more"), [(1, ""), (2, " (and 1 more file)"), (12, " (and 11 more files)")])
def test_faulty_files_are_one_line_with_the_first_by_its_full_path(tmp_path, number, more):
    found = {f"{n:02d}.png": "is missing" for n in reversed(range(number))}
    assert fault_line(Folder(tmp_path), found) == f"{tmp_path}/00.png is missing{more}"
    assert fault_line(Folder(tmp_path), {}) == ""


@pytest.fixture
def few_shards(monkeypatch):
    """A limit of two shards of one image each, above which shards grow."""
    monkeypatch.setattr("vwl.inference.runner.SHARD_SIZE", 1)
    monkeypatch.setattr("vwl.workflow.stage_shards.SHARD_SIZE", 1)
    monkeypatch.setattr("vwl.inference.runner.MAX_SHARDS", 2)


def sizes(run: Run, stage: str) -> list[int]:
    return [len(shard.rows) for shard in run.shards(stage)]


@pytest.mark.usefixtures("few_shards")
def test_a_run_keeps_the_shard_size_that_it_was_started_with(tmp_path, folder, monkeypatch):
    write_index(make(tmp_path / "images", *"abcdefg"), tmp_path / "index.parquet")
    run = Run.start(folder, RECIPE, str(tmp_path / "index.parquet"))
    assert sizes(run, "cam") == [4, 3]
    assert run.start_stage("cam").shard_sizes == [4]
    monkeypatch.setattr("vwl.inference.runner.MAX_SHARDS", 1000)
    assert sizes(run, "cam") == [4, 3]
    assert run.start_stage("cam").shard_sizes == [4]
    assert sizes(run, "irnet-labels") == [1] * 7
    with_other_maps = Run(run.folder, overridden(run.recipe, ["cam.hflip=false"]), run.index, run.index_path)
    assert with_other_maps.start_stage("cam").shard_sizes is None
    assert sizes(with_other_maps, "cam") == [1] * 7


@pytest.mark.usefixtures("few_shards")
def test_a_run_of_an_earlier_version_keeps_its_small_shards_and_a_split_beside_them_has_its_own(tmp_path, folder):
    rows = [Row(name, f"{name}.jpg", (1,), None, split) for name, split in [*((name, "train") for name in "abcdefg"), ("x", "val")]]
    write_index(make_index(rows, ("background", "cat", "dog"), tmp_path, "a test"), tmp_path / "index.parquet")
    run = Run.start(folder, RECIPE, str(tmp_path / "index.parquet"))
    manifest = run.start_stage("segment")
    run.write_manifest(replace(manifest, shard_sizes=None))
    assert sizes(run, "segment") == [1] * 7
    assert run.start_stage("segment", ["val"]).shard_sizes is None
    assert sizes(run, "segment") == [1] * 8


def test_a_small_data_set_has_the_manifest_that_it_always_had(run):
    assert "shard_sizes" not in run.start_stage("cam").as_json()


def test_a_stage_of_maps_says_at_its_start_where_each_map_will_lie(run):
    manifest = run.start_stage("cam")
    catalogue = read_catalogue(run.stage_folder("cam"), manifest.fingerprint)
    assert catalogue is not None
    assert (len(catalogue), catalogue.shards_of("a"), catalogue.shards_of("c")) == (2, [0], [])
    run.start_stage("irnet-labels")
    assert run.stage_folder("irnet-labels").names() == ["manifest.json", "record.json"]
