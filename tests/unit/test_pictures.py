"""Pictures for training: which side of a split they are on."""

import csv

import pytest
from PIL import Image

from adaptive_split.errors import ConfigError
from adaptive_split.models.pictures import held_out_senders, largest_classes, load_pictures

SENT = {"ann": 4, "bob": 3, "cat": 2, "dan": 1, "eve": 1}
"""Training pictures of every sender."""


@pytest.fixture
def folder(tmp_path):
    """Write hats and shoes of five senders, and one validation picture of `bob`."""
    rows = [
        (f"{sender}{index}.png", "hat" if index else "shoe", "train", sender)
        for sender, count in SENT.items()
        for index in range(count)
    ]
    rows += [("val.png", "hat", "val", "bob")]
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([("file", "label", "split", "sender_id"), *rows])
    for file, *_ in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / file)
    return tmp_path


def test_the_second_of_every_three_senders_is_held_out(folder):
    assert held_out_senders(folder, ("hat", "shoe")) == ("bob", "eve")


def test_a_senders_training_pictures_all_lie_on_one_side(folder):
    classes = largest_classes(folder, 2)
    train = load_pictures(folder, "train", classes, held_out=("bob", "eve"))
    held = load_pictures(folder, "held", classes, held_out=("bob", "eve"))

    assert {file[:3] for file in train.files} == {"ann", "cat", "dan"}
    assert {file[:3] for file in held.files} == {"bob", "eve"}
    assert len(train.files) + len(held.files) == sum(SENT.values())


def test_validation_pictures_stay_what_they_are_whoever_sent_them(folder):
    val = load_pictures(folder, "val", ("hat", "shoe"), held_out=("bob",))

    assert val.files == ("val.png",)
    assert val.pixels.shape == (1, 1, 3, 224, 224)


def test_without_senders_held_out_all_train(folder):
    assert len(load_pictures(folder, "train", ("hat", "shoe")).files) == sum(SENT.values())
    assert len(load_pictures(folder, "held", ("hat", "shoe")).files) == 0


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a picture folder must hold labels"):
        held_out_senders(tmp_path, ("hat",))
