"""The catalogue of data sets: its files, checked against what is known of the field's data."""

import pytest

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub import Hub
from adamerge_core.vision.datasets.published import (
    CATALOGUE,
    published_dataset,
    published_names,
    read_published,
)

# train, test, classes, templates of the twenty data sets of the field, and of two that share a name
KNOWN = {
    "sun397": (19850, 19850, 397, 2),
    "stanford_cars": (8144, 8041, 196, 8),
    "resisc45": (18900, 6300, 45, 18),
    "eurosat": (21600, 2700, 10, 3),
    "svhn": (73257, 26032, 10, 1),
    "gtsrb": (26640, 12630, 43, 3),
    "mnist": (60000, 10000, 10, 1),
    "dtd": (3760, 1880, 47, 8),
    "oxford_flowers102": (1020, 6149, 102, 1),
    "pcam": (262144, 32768, 2, 1),
    "fer2013": (28709, 7178, 7, 6),
    "oxford_iiit_pet": (3680, 3669, 37, 1),
    "stl10": (5000, 8000, 10, 2),
    "cifar100": (50000, 10000, 100, 18),
    "cifar10": (50000, 10000, 10, 18),
    "food101": (75750, 25250, 101, 1),
    "fashion_mnist": (60000, 10000, 10, 2),
    "emnist_letters": (124800, 20800, 26, 1),
    "kmnist": (60000, 10000, 10, 1),
    "rendered_sst2": (6920, 1821, 2, 1),
    "emnist_digits": (240000, 40000, 10, 1),
    "fer2013_tall": (28709, 7178, 7, 6),
}


def test_has_the_data_sets_of_the_field_with_their_counts() -> None:
    found = {
        name: (
            (d := published_dataset(name)).images["train"],
            d.images["test"],
            len(d.classes),
            len(d.templates),
        )
        for name in published_names()
    }
    assert found == KNOWN


def test_two_of_a_name_are_two_entries_or_an_error() -> None:
    letters, digits = published_dataset("emnist_letters"), published_dataset("emnist_digits")
    assert letters.classes[0] == "A"
    assert digits.classes[0] == "0"
    assert "local" in Hub(dataset="emnist_digits").faults("x")[0]
    assert "head_FER2013Val.pt" in Hub(dataset="fer2013_tall").faults("x")[0]
    assert published_dataset("fer2013").classes[4:] == ("neutral", "sad", "surprised")


def test_names_of_lines_that_differ_are_variants() -> None:
    assert published_dataset("cifar100").classes[26] == "cra"
    assert published_dataset("cifar100").class_names("tall")[26] == "crab"
    assert published_dataset("kmnist").class_names("tall")[0] == "o"
    assert published_dataset("oxford_flowers102").class_names("tall")[15] == "globe flower"
    assert published_dataset("mnist").class_names("tall") == published_dataset("mnist").classes


def test_a_file_with_faults_is_refused_with_all_of_them(tmp_path) -> None:
    text = (CATALOGUE / "mnist.yaml").read_text()
    text = text.replace("ylecun/mnist", "mnist").replace("parquet\n", "zip\n", 1)
    text = text.replace("test: 10000}", "test: 0}").replace("'0'", "'1'")
    (tmp_path / "mnist.yaml").write_text(text + "colour: red\n")
    with pytest.raises(InputError, match="colour: is no parameter"):
        read_published(tmp_path / "mnist.yaml")
    (tmp_path / "mnist.yaml").write_text(text)
    with pytest.raises(InputError, match="4 faults") as error:
        read_published(tmp_path / "mnist.yaml")
    for fault in ("hub.id", "hub.format", "images", "classes: a name stands twice"):
        assert fault in str(error.value)
