"""What users name as images: files, folders, patterns, lists and videos, and the names of their results."""

import os

import pytest

from vwl.errors import VwlError
from vwl.model_file.sources import find_sources, paths_in_list


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A working folder with images (empty files), a video, and files that are none."""
    for name in (
        "a.jpg",
        "p/a.jpg",
        "p/B.PNG",
        "p/q/c.webp",
        "p/q/d.mp4",
        "p/notes.txt",
        "p/.hidden.jpg",
        "p/.git/e.jpg",
        "r/a.jpg",
        "x[1].jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*named, **options):
    return {source.path: source.name for source in find_sources(named, **options)}


def test_files_are_named_after_themselves(house):
    assert names("a.jpg", "p/B.PNG", house / "p/q/c.webp") == {"a.jpg": "a", "p/B.PNG": "B", f"{house}/p/q/c.webp": "c"}


def test_a_folder_is_searched_with_those_below_it_whose_names_stay(house):
    assert names("p") == {"p/B.PNG": "B", "p/a.jpg": "a", "p/q/c.webp": "q/c", "p/q/d.mp4": "q/d"}
    assert names("p", recursive=False) == {"p/B.PNG": "B", "p/a.jpg": "a"}


def test_a_pattern_that_no_shell_has_expanded_is_expanded(house):
    assert names("p/*.jpg") == {"p/a.jpg": "a"}
    assert names("p/**/*.webp") == {"p/q/c.webp": "q/c"}
    assert names("?/a.jpg") == {"p/a.jpg": "p/a", "r/a.jpg": "r/a"}


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(house):
    assert names("x[1].jpg") == {"x[1].jpg": "x[1]"}
    assert names(house / "p/*.jpg") == {f"{house}/p/*.jpg": "*"}


def test_results_of_one_name_go_into_folders_like_their_images(house):
    assert names("p", "r") == {"p/B.PNG": "p/B", "p/a.jpg": "p/a", "p/q/c.webp": "p/q/c", "p/q/d.mp4": "p/q/d", "r/a.jpg": "r/a"}
    (house / "p/a.png").write_bytes(b"")
    assert names("p/a.jpg", "p/a.png", "p/B.PNG") == {"p/a.jpg": "a.jpg", "p/a.png": "a.png", "p/B.PNG": "B"}


def test_a_missing_file_does_not_change_the_names_of_others(house):
    assert names("/nowhere/b.jpg", "p/a.jpg") == {"/nowhere/b.jpg": "b", "p/a.jpg": "a"}


def test_an_image_that_is_named_twice_is_taken_once(house):
    assert names("a.jpg", house / "a.jpg", "p/../a.jpg", "*.jpg") == {"a.jpg": "a", "x[1].jpg": "x[1]"}


def test_results_inside_a_folder_that_is_searched_are_no_images(house):
    (house / "p/out").mkdir()
    (house / "p/out/a_mask.png").write_bytes(b"")
    assert "p/out/a_mask.png" in names("p")
    assert "p/out/a_mask.png" not in names("p", out=house / "p/out")
    assert "p/out/a_mask.png" not in names("p/**/*", out="p/out")


def test_links_that_lead_in_a_circle_end(house):
    os.symlink(house / "p", house / "p/q/up")
    os.symlink(house / "r", house / "p/q/other")
    assert set(names("p")) == {"p/B.PNG", "p/a.jpg", "p/q/c.webp", "p/q/d.mp4", "p/q/other/a.jpg"}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["p/.git/.."], "the results would be written into p/.git/..,"),
        (["empty"], r"empty holds no images \(.jpg, .*\) and no videos$"),
        (["p/*.tiff"], r"no file matches p/\*\.tiff"),
        (["p/q/d.mp4", "p/q/c.webp", "s/d.mkv", "s/d_frames/000001.jpg", "s"], "would have results in one folder"),
    ],
)
def test_what_cannot_be_segmented_is_one_line(house, named, message):
    (house / "empty").mkdir()
    for name in ("s/d.mkv", "s/d_frames/000001.jpg"):
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_bytes(b"")
    with pytest.raises(VwlError, match=message):
        find_sources(named, out="p")


def test_a_folder_without_images_says_what_would_search_below_it(house):
    (house / "t/u").mkdir(parents=True)
    with pytest.raises(VwlError, match="with --recursive the folders below it are searched as well"):
        find_sources(["t"], recursive=False)


@pytest.mark.parametrize("data", [b"a b.jpg\np/c.png\n\n", b"a b.jpg\0p/c.png\0", b"a b.jpg\r\np/c.png"])
def test_a_list_of_files_has_a_line_or_a_nul_for_each(data):
    assert [str(path) for path in paths_in_list(data)] == ["a b.jpg", "p/c.png"]
