import pytest

from vwl.config.named_files import is_path, names_in, read_named
from vwl.errors import VwlError


@pytest.mark.parametrize("package", ["vwl.config.recipes", "vwl.tune_spaces"])
def test_every_yaml_file_of_a_package_is_read_by_its_name(package):
    names = names_in(package)
    assert names == sorted(names)
    assert len(names) > 5
    assert all(read_named(name, "file", package, "vwl") for name in names)


def test_a_path_ends_in_yaml_and_a_name_does_not():
    assert is_path("here/small.yaml")
    assert is_path("small.yml")
    assert not is_path("small")


def test_a_missing_or_unreadable_file_gives_one_line(tmp_path):
    with pytest.raises(VwlError, match=r"^no recipe named 'smal'; did you mean 'small'\? \(vwl recipe list\)$"):
        read_named("smal", "recipe", "vwl.config.recipes", "vwl recipe list")
    with pytest.raises(VwlError, match=r"^space file .*none\.yaml does not exist$"):
        read_named(str(tmp_path / "none.yaml"), "space", "vwl.tune_spaces", "vwl tune spaces")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VwlError, match=r"^space file .*bytes\.yaml cannot be read: "):
        read_named(str(tmp_path / "bytes.yaml"), "space", "vwl.tune_spaces", "vwl tune spaces")
