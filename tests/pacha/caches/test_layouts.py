"""Which cache a word or a path means."""

from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.pacha.caches.layouts import default_caches, locate_cache
from tests.pacha.caches.support_layouts import hf_file, oci_index, ollama_model

PLACE = "registry.ollama.ai/library/tiny/1b"


def test_a_word_means_the_users_cache_and_a_path_is_recognised_by_what_is_in_it(tmp_path: Path) -> None:
    hub, models = tmp_path / ".cache/huggingface/hub", tmp_path / ".ollama/models"
    hf_file(hub, "a.bin", b"a")
    ollama_model(models, PLACE, {"model": b"weights"})
    oci_index(tmp_path / "layout")
    user = {"HOME": str(tmp_path)}
    found = {
        text: (cache.layout.LAYOUT, cache.root)
        for text in ("hf", "ollama", str(hub), str(models), str(tmp_path / "layout"))
        for cache in [locate_cache(text, user)]
    }
    assert found["hf"] == found[str(hub)] == ("hf", str(hub))
    assert found["ollama"] == found[str(models)] == ("ollama", str(models))
    assert found[str(tmp_path / "layout")][0] == "oci"
    assert [cache.root for cache in default_caches(user)] == [str(hub), str(models)]


def test_a_cache_that_is_not_there_and_a_directory_that_is_none_are_errors(tmp_path: Path) -> None:
    user = {"HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "none")}
    for text in ("hf", "ollama", str(tmp_path / "none")):
        with pytest.raises(NotFoundError):
            locate_cache(text, user)
    with pytest.raises(InvalidInputError, match="not a cache"):
        locate_cache(str(tmp_path), user)
    assert default_caches(user) == []
