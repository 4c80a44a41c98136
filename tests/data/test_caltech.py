"""Caltech-101 and -256: trees and tars of them, the paper's folds, and what is averaged over them."""
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.real_data import REAL_DATA, needs
from zfcore.check import Expected
from zfcore.data.caltech import mean_per_class_accuracy, open_caltech, over_folds, small_classes, splits

TREE_101 = {"accordion": ["image_0001.jpg", "image_0003.jpg"], "Faces": ["image_0002.jpg"],
            "BACKGROUND_Google": ["image_0001.jpg"]}
TREE_256 = {"002.american-flag": ["002_0001.jpg", "002_0002.jpg"], "001.ak47": ["001_0007.jpg"],
            "251.airplanes-101": ["251_0001.jpg"], "257.clutter": ["257_0001.jpg"]}


def write_tree(root, tree):
    for k, (folder, names) in enumerate(tree.items()):
        (root/folder).mkdir(parents=True, exist_ok=True)
        for j, name in enumerate(names):
            Image.new("RGB", (8 + k, 6), (40*k, 60*j, 90)).save(root/folder/name, "JPEG")
    return root


def tar(path, folder, arcname, mode="w"):
    with tarfile.open(path, mode) as file:
        file.add(folder, arcname)
    return path


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "101_ObjectCategories", TREE_101)


@pytest.fixture
def tree256(tmp_path):
    return write_tree(tmp_path / "256_ObjectCategories", TREE_256)


# ----------------------------------------------------------------------------------------------------- what is there
def test_classes_are_the_sorted_folders_without_the_background(tree):
    data = open_caltech(tree)
    assert data.classes == ["Faces", "accordion"]
    assert data.labels.dtype == np.int64 and data.labels.tolist() == [0, 1, 1] and len(data) == 3
    assert data.names == ["101_ObjectCategories/Faces/image_0002.jpg", "101_ObjectCategories/accordion/image_0001.jpg",
                          "101_ObjectCategories/accordion/image_0003.jpg"]


def test_the_background_is_one_more_class_when_asked_for(tree, tree256):
    tree256 = tree256.rename(tree.parent / "other")
    assert open_caltech(tree, background=True).classes == ["BACKGROUND_Google", "Faces", "accordion"]
    assert open_caltech(tree256, background=True).classes == ["ak47", "american-flag", "airplanes", "clutter"]


def test_names_of_caltech_256_lose_their_number_and_what_says_where_they_came_from(tree256):
    data = open_caltech(tree256)
    assert data.classes == ["ak47", "american-flag", "airplanes"] and data.labels.tolist() == [0, 1, 1, 2]


def test_two_classes_of_one_name_can_be_told_apart(tree256):
    write_tree(tree256, {"003.ak47-101": ["003_0001.jpg"]})
    assert open_caltech(tree256).classes == ["ak47 (001.ak47)", "american-flag", "ak47 (003.ak47-101)", "airplanes"]


def test_pictures_deeper_than_a_class_folder_belong_to_no_class(tree256):
    write_tree(tree256, {"001.ak47/greg/vision309": ["001_0008.jpg"]})
    for place in (tree256, tar(tree256.parent / "x.tar", tree256, tree256.name)):
        assert len(open_caltech(place)) == 4


@pytest.mark.parametrize("arcname, name", [("101_ObjectCategories", "101_ObjectCategories.tar"), ("", "renamed.tar"),
                                           ("caltech-101/101_ObjectCategories", "caltech-101.tar")])
def test_a_tar_gives_what_the_folder_gives(tree, tmp_path, arcname, name):
    (tmp_path / "packed").mkdir()
    packed, unpacked = open_caltech(tar(tmp_path / "packed" / name, tree, arcname)), open_caltech(tree)
    assert packed.classes == unpacked.classes and packed.labels.tolist() == unpacked.labels.tolist()
    for i in range(len(unpacked)):
        assert packed.read(i) == unpacked.read(i)
        assert Path(packed.names[i]).parts[-2:] == Path(unpacked.names[i]).parts[-2:]


def test_the_folder_around_and_a_renamed_folder_are_known_too(tree):
    inside = open_caltech(tree)
    assert open_caltech(tree.parent).names == inside.names
    packed = tar(tree.parent.parent / "101_ObjectCategories.tar", tree, tree.name)
    (tree.parent / "around").mkdir()
    assert open_caltech(packed.rename(tree.parent / "around" / packed.name).parent).names == inside.names
    assert open_caltech(tree.rename(tree.parent / "mine")).names[0] == "mine/Faces/image_0002.jpg"


def test_a_large_picture_comes_reduced_when_the_side_it_is_for_is_given(tree):
    Image.new("RGB", (640, 480)).save(tree / "Faces/image_0002.jpg")
    assert open_caltech(tree).picture(0).size == (640, 480)
    assert open_caltech(tree, shorter_side=50).picture(0).size == (160, 120)


# ---------------------------------------------------------------------------------------------------------- bad input
def class_folders(tree):
    return write_tree(tree.parent / "other/train", {"owl": ["1.jpg"], "cat": ["2.jpg"]}).parent, "expected 101_ObjectCategories or .*train"


def other_names(tree):
    return write_tree(tree.parent / "other", {"owl": ["1.jpg"], "cat": ["2.jpg"]}), "got folders 'cat', 'owl'"


def pictures_alone(tree):
    (tree.parent / "other").mkdir()
    return write_tree(tree.parent / "other", {"": ["image_0001.jpg"]}), "got no class folders"


def empty(tree):
    (tree.parent / "other").mkdir()
    return tree.parent / "other", "got no class folders"


def missing(tree):
    return tree / "nowhere", "expected a folder or a tar, got nothing"


def compressed(tree):
    path = tree.parent / "other/101_ObjectCategories.tar.gz"
    path.parent.mkdir()
    return tar(path, tree, tree.name, "w:gz").parent, "expected an uncompressed tar.*decompress"


def both(tree):
    write_tree(tree.parent / "256_ObjectCategories", TREE_256)
    return tree.parent, "expected one of the two sets, got both"


def both_in_a_tar(tree):
    write_tree(tree.parent / "256_ObjectCategories", TREE_256)
    path = tree.parent / "x.tar"
    with tarfile.open(path, "w") as file:
        file.add(tree, tree.name)
        file.add(tree.parent / "256_ObjectCategories", "256_ObjectCategories")
    return path, "expected one of the two sets"


def class_without_pictures(tree):
    (tree / "yin_yang").mkdir()
    return tree, "expected pictures in every class folder, got none in 'yin_yang'"


def background_alone(tree):
    (tree / "accordion").rename(tree.parent / "elsewhere")
    return tree, "expected at least two classes, got only 'Faces'"


@pytest.mark.parametrize("spoil", [class_folders, other_names, pictures_alone, empty, missing, compressed, both, both_in_a_tar,
                                   class_without_pictures, background_alone], ids=lambda spoil: spoil.__name__)
def test_what_is_not_caltech_is_answered_with_one_sentence(tree, spoil):
    path, sentence = spoil(tree)
    with pytest.raises(Expected, match=sentence) as caught:
        open_caltech(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_background_class_does_no_harm_when_it_is_left_out(tree):
    (tree / "BACKGROUND_Google/image_0001.jpg").unlink()
    assert len(open_caltech(tree)) == 3


# -------------------------------------------------------------------------------------------------------------- folds
sets = st.lists(st.integers(4, 12), min_size=2, max_size=5).flatmap(
    lambda sizes: st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist()))


@given(sets, st.integers(1, 3), st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_a_fold_has_n_of_each_class_to_train_on_and_at_most_so_many_others_to_test_on(labels, n, most, fold, seed):
    labels = np.array(labels)
    train, test = splits(labels, n, most, fold, seed)
    sizes = np.bincount(labels)
    assert np.bincount(labels[train]).tolist() == [n]*len(sizes)
    assert np.bincount(labels[test]).tolist() == np.minimum(sizes - n, most).tolist()
    assert not set(train) & set(test)
    for part in (train, test):
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()


LABELS = np.repeat(np.arange(4), [40, 70, 33, 120])


def test_at_most_fifty_are_tested_on_unless_said_otherwise_and_zero_means_all():
    assert np.bincount(LABELS[splits(LABELS, 15)[1]]).tolist() == [25, 50, 18, 50]
    assert np.bincount(LABELS[splits(LABELS, 15, test_most=0)[1]]).tolist() == [25, 55, 18, 105]


def test_a_fold_depends_on_seed_and_fold_alone():
    first = splits(LABELS, 15, fold=2, seed=7)
    np.random.seed(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, splits(LABELS.tolist(), 15, fold=2, seed=7)))
    assert [part[:4].tolist() for part in splits(LABELS, 15)] == [[0, 1, 2, 5], [3, 4, 6, 7]]     # for ever


def test_folds_and_seeds_draw_independently():
    draws = [set(splits(LABELS, 15, fold=fold, seed=seed)[0]) for fold in range(12) for seed in range(5)]
    shared = [len(a & b) for k, a in enumerate(draws) for b in draws[:k]]
    expected = sum(15*15/size for size in np.bincount(LABELS))             # of two independent draws
    assert abs(np.mean(shared) - expected) < 0.3 and max(shared) < 45


def test_each_picture_of_a_class_is_drawn_about_as_often():
    times = np.zeros(len(LABELS))
    for fold in range(400):
        times[splits(LABELS, 10, fold=fold)[0]] += 1
    expected = 400*10/np.bincount(LABELS)[LABELS]
    assert (abs(times - expected) < 5*np.sqrt(expected)).all()


def test_the_training_pictures_for_a_smaller_number_are_among_those_for_a_larger():
    draws = [set(splits(LABELS, n, fold=3)[0]) for n in (1, 2, 5, 15, 30)]
    assert all(small < large for small, large in zip(draws, draws[1:]))


def test_the_test_pictures_stay_the_same_in_a_class_that_has_enough():
    few, many = splits(LABELS, 1, 25)[1], splits(LABELS, 30, 25)[1]
    for c, enough in enumerate([False, True, False, True]):
        assert set(many[LABELS[many] == c]) <= set(few[LABELS[few] == c])
        assert np.array_equal(many[LABELS[many] == c], few[LABELS[few] == c]) == enough


def test_a_class_that_is_too_small_is_named_with_its_count():
    with pytest.raises(Expected, match=r"40 of each class and one more.* got 40 of ant, 33 of cow; take at most 32"):
        splits(LABELS, 40, classes=["ant", "bee", "cow", "dog"])
    with pytest.raises(Expected, match="got 33 of class 2"):
        splits(LABELS, 33)
    assert len(splits(LABELS, 32)[0]) == 4*32


def test_classes_that_are_too_small_can_be_left_out():
    small = small_classes(LABELS, 40)
    assert small.tolist() == [0, 2] and small_classes(LABELS, 32).tolist() == []
    train, test = splits(LABELS, 40, without=small)
    assert np.bincount(LABELS[train]).tolist() == [0, 40, 0, 40] and set(LABELS[test]) == {1, 3}


def test_leaving_a_class_out_does_not_change_what_is_drawn_of_the_others():
    train, test = splits(LABELS, 15)
    for found, part in zip(splits(LABELS, 15, without=[1]), (train, test)):
        assert np.array_equal(found, part[LABELS[part] != 1])


@pytest.mark.parametrize("options, sentence",
                         [(dict(train_per_class=0), "training pictures per class: expected a whole number of 1"),
                                               (dict(train_per_class=1, test_most=-1), "test pictures per class: expected a whole"),
                                               (dict(train_per_class=1, fold=-1), "fold: expected a whole number from 0"),
                                               (dict(train_per_class=1, seed=-1), "seed: expected a whole number from 0"),
                                               (dict(train_per_class=1, without=range(4)), "classes: expected at least one")])
def test_senseless_numbers_are_refused(options, sentence):
    with pytest.raises(Expected, match=sentence):
        splits(LABELS, **options)


# ------------------------------------------------------------------------------------------------------------ averages
def test_the_mean_is_over_classes_and_not_over_pictures():
    labels = np.array([0]*8 + [1]*2 + [3]*5)
    predicted = np.array([0]*6 + [1, 3] + [1, 0] + [0, 0, 3, 0, 0])
    assert mean_per_class_accuracy(predicted, labels, 4) == pytest.approx((6/8 + 1/2 + 1/5)/3)


def test_accuracy_of_a_shape_that_does_not_fit_or_of_nothing_is_refused():
    with pytest.raises(Expected, match="predicted: expected shape"):
        mean_per_class_accuracy([0, 1], [0], 2)
    with pytest.raises(Expected, match="at least one picture"):
        mean_per_class_accuracy(np.zeros(0, int), np.zeros(0, int), 2)


def test_the_spread_over_folds_is_the_sample_standard_deviation():
    mean, spread = over_folds([0.5, 0.6, 0.8])
    assert mean == pytest.approx(19/30) and spread == pytest.approx(np.sqrt((4/30)**2 + (1/30)**2 + (5/30)**2)/np.sqrt(2))
    assert over_folds([0.7])[0] == 0.7 and np.isnan(over_folds([0.7])[1])


# ------------------------------------------------------------------------------------------------------- real pictures
@needs("caltech101_part")
def test_a_part_of_caltech_101_has_sixty_classes_and_folds_of_thirty_leave_some_out():
    data = open_caltech(REAL_DATA/"caltech101_part")
    assert len(data) == 2805 and len(data.classes) == 60 and data.picture(2000).mode == "RGB"
    assert np.bincount(data.labels).min() == 31
    with pytest.raises(Expected, match="got 31 of"):
        splits(data.labels, 31, classes=data.classes)
    train, test = splits(data.labels, 15, fold=4)
    assert len(train) == 900 and len(test) == 1905
