"""The choice of a chapter's network, with and without a GPU and the weights of ViT-B."""

from types import SimpleNamespace

import pytest

from medsaga_lib.errors import UserError
from medsaga_lib.models import profile
from medsaga_lib.models.profile import choose

# What torch reports on a T4: 15 GiB of its 16 GB are left to programs.
T4 = SimpleNamespace(name="Tesla T4", total_memory=15_835_660_288)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a T4."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: T4)


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def fetching(monkeypatch, problem=None):
    """Replace the download by one that succeeds, or fails; return the names asked for."""
    asked = []

    def fetch(name):
        asked.append(name)
        if problem:
            raise UserError(problem)

    monkeypatch.setattr(profile, "fetch", fetch)
    return asked


def test_the_quick_profile_downloads_nothing(monkeypatch, no_gpu):
    asked = fetching(monkeypatch)
    chosen = choose("quick", size=64, vit_b=512)
    assert (chosen.backbone, chosen.size, chosen.large) == ("lite_medsam", 64, False)
    assert chosen.found == "Profile quick: LiteMedSAM at 64 px, on the CPU."
    assert asked == []


def test_the_quick_profile_stays_small_on_a_gpu_and_names_it(gpu):
    chosen = choose("quick", size=64, vit_b=512)
    assert (chosen.backbone, chosen.size, chosen.large) == ("lite_medsam", 64, False)
    assert "Tesla T4 (15 GiB)" in chosen.found


def test_without_a_gpu_colab_is_the_quick_profile_and_says_so(monkeypatch, no_gpu):
    asked = fetching(monkeypatch)
    chosen = choose("colab", size=64, vit_b=512)
    assert (chosen.backbone, chosen.size, chosen.large) == ("lite_medsam", 64, False)
    assert "There is no GPU" in chosen.found
    assert "Change runtime type" in chosen.found
    assert asked == []  # no download of 375 MB for a network that is not used


def test_colab_takes_vit_b_where_it_can_be_fetched(monkeypatch, gpu):
    asked = fetching(monkeypatch)
    chosen = choose("colab", size=64, vit_b=512)
    assert (chosen.backbone, chosen.size, chosen.large) == ("vit_b", 512, True)
    assert chosen.found == "Profile colab: SAM's ViT-B at 512 px, on Tesla T4 (15 GiB)."
    assert asked == ["vit_b"]


def test_colab_takes_lite_medsam_where_vit_b_is_missing_and_says_why(monkeypatch, gpu):
    fetching(monkeypatch, problem="Cannot download it.")
    chosen = choose("colab", size=64, vit_b=512)
    assert (chosen.backbone, chosen.size, chosen.large) == ("lite_medsam", 256, True)
    assert chosen.found == (
        "Profile colab: LiteMedSAM at 256 px, on Tesla T4 (15 GiB). "
        "SAM's ViT-B is not here: Cannot download it."
    )


def test_a_chapter_without_vit_b_downloads_nothing(monkeypatch, gpu):
    asked = fetching(monkeypatch)
    chosen = choose("colab", size=128)
    assert (chosen.backbone, chosen.size, chosen.large) == ("lite_medsam", 256, True)
    assert asked == []


def test_an_unknown_profile_is_named(no_gpu):
    with pytest.raises(UserError, match="no profile 'gpu'; choose one of quick, colab"):
        choose("gpu", size=64)
