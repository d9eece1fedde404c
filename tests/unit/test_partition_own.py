"""A user's model and pictures as they come, and what is said when they do not do."""

import pytest
import torch
from PIL import Image

from adaptive_split.errors import ConfigError
from adaptive_split.models.own_model import load_own_model
from adaptive_split.models.own_pictures import labelled, read_own_pictures
from adaptive_split.models.pictures import augment
from tests.own_models import make_residual


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (200, 30, 60)).save(folder / file)


def test_every_fourth_picture_of_a_class_is_held_out_in_two_halves(tmp_path):
    put(tmp_path, *(f"{name}/{index}.png" for name in ("hat", "shoe") for index in range(8)))

    pictures = read_own_pictures(tmp_path, 4)

    assert pictures.train.classes == ("hat", "shoe")
    assert pictures.train.pixels.shape == (1, 12, 3, 4, 4)
    assert pictures.policy.files == ("hat/3.png", "shoe/7.png")
    assert pictures.judge.files == ("hat/7.png", "shoe/3.png")
    file, label, pixels = next(iter(labelled(pictures.judge)))
    assert (file, label, pixels.shape) == ("hat/7.png", 0, (4, 4, 3))
    assert tuple(pixels[0, 0]) == (200, 30, 60)


def test_pictures_may_be_wider_than_high(tmp_path):
    put(tmp_path, *(f"{name}/{index}.png" for name in ("hat", "shoe") for index in range(8)))

    pictures = read_own_pictures(tmp_path, 4, 6)

    assert pictures.judge.pixels.shape == (1, 2, 3, 4, 6)
    shown = augment(pictures.train.pixels[0], 4, torch.Generator().manual_seed(0), 6)
    assert shown.shape == (12, 3, 4, 6)


@pytest.mark.parametrize("size", [(0,), (-3,), (4, 0), (10_000,)])
def test_an_impossible_size_is_refused(tmp_path, size):
    with pytest.raises(ConfigError, match=r"sides of pictures must lie in 1\.\.4096; got"):
        read_own_pictures(tmp_path, *size)


def test_folders_named_train_and_val_are_taken_at_their_word(tmp_path):
    for split, count in (("train", 2), ("val", 2)):
        put(tmp_path, *(f"{split}/{c}/{index}.png" for c in "ab" for index in range(count)))

    pictures = read_own_pictures(tmp_path, 4)

    assert all(file.startswith("train/") for file in pictures.train.files)
    assert pictures.policy.files == ("val/a/0.png", "val/b/1.png")
    assert pictures.judge.files == ("val/a/1.png", "val/b/0.png")


def test_labels_in_a_file_win_over_folders(tmp_path):
    put(tmp_path, *(f"all/{index}.png" for index in range(8)))
    rows = [f"all/{i}.png,{'hat' if i % 2 else 'shoe'},{'val' if i > 3 else 'train'}\n"
            for i in range(8)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("file,label,split\n" + "".join(rows))

    pictures = read_own_pictures(tmp_path, 4)

    assert pictures.train.labels.tolist() == [1, 0, 1, 0]
    assert len(pictures.policy.files) == len(pictures.judge.files) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"a folder of pictures for each of 2 classes or more; got \(\)"),
        (["hat/1.png", "hat/2.png"], r"2 classes or more; got \('hat',\)"),
        (["hat/1.png", "shoe/1.png"], "leave 2 pictures or more for policy; got 0"),
        (["train/hat/1.png", "shoe/1.png"], r"all be in train or val, or none; got splits \[''"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, files, message):
    put(tmp_path, *files)

    with pytest.raises(ConfigError, match=message):
        read_own_pictures(tmp_path, 4)


def test_a_picture_that_is_none_is_named(tmp_path):
    put(tmp_path, *(f"{name}/{index}.png" for name in ("hat", "shoe") for index in range(8)))
    (tmp_path / "hat" / "0.png").write_text("no picture")

    with pytest.raises(ConfigError, match=r"must be readable; got .*hat/0\.png"):
        read_own_pictures(tmp_path, 4)


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_weights_are_found_where_people_put_them(tmp_path, key):
    state = make_residual().state_dict()
    state = {name: torch.full_like(value, 2) for name, value in state.items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "own.pt")

    model = load_own_model("tests.own_models:make_residual", tmp_path / "own.pt")

    assert not model.training
    assert all((value == 2).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("tests.own_models", "must be module:factory"),
        ("tests.nothing:make", "ModuleNotFoundError: No module named 'tests.nothing'"),
        ("tests.own_models:nothing", "AttributeError"),
        ("tests.own_models:make_family", "TypeError: .* missing 1 required"),
        ("tests.own_models:make_no_module", r"give a torch\.nn\.Module; got str"),
    ],
)
def test_a_factory_that_gives_no_model_is_refused(factory, message):
    with pytest.raises(ConfigError, match=message):
        load_own_model(factory, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a state dict written by torch.save; got .*No such file"),
        (b"no weights", "must be a state dict written by torch.save"),
        ({"stem.0.weight": torch.zeros(1)}, "must fit the model; got .*Missing key"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, message):
    file = tmp_path / "own.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save(content, file)

    with pytest.raises(ConfigError, match=message):
        load_own_model("tests.own_models:make_residual", file)
