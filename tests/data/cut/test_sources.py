"""The three layouts of videos on disk; empty files stand for videos, as nothing is decoded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sdevid.data.arrays.fit import in_channels
from sdevid.data.cut.custom import custom
from sdevid.data.cut.kinetics import kinetics
from sdevid.data.cut.sources import LeftOut, find
from sdevid.data.cut.ucf101 import ucf101
from sdevid.errors import UserError


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_custom_takes_any_tree_with_labels_and_captions(tmp_path):
    lay(
        tmp_path,
        "a/one.mp4",
        "a/b/two.MKV",
        "three.webm",
        "notes.txt",
        ".hidden/x.mp4",
        "a/._m.mp4",
    )
    (tmp_path / "captions.csv").write_text(
        'path,caption\na/one.mp4,"a dog, running"\nno.mp4,gone\n'
    )
    listing = custom(tmp_path, None)
    assert [(s.name, s.label, s.caption) for s in listing.sources] == [
        ("a/b/two.MKV", "a/b", ""),
        ("a/one.mp4", "a", "a dog, running"),
        ("three.webm", "", ""),
    ]
    assert set(listing.left_out) == {
        LeftOut(".hidden/x.mp4", "is hidden"),
        LeftOut("a/._m.mp4", "is hidden"),
        LeftOut("notes.txt", "is no video by its name"),
        LeftOut("captions.csv line 3", "names no.mp4, which is not there", "row"),
    }
    assert (listing.files, listing.lists, listing.rows) == (7, 1, 2)
    first = custom(tmp_path, None, label_level=1)
    assert [source.label for source in first.sources] == ["a", "a", ""]


def test_captions_of_each_split_lie_in_its_own_folder(tmp_path):
    lay(tmp_path, "train/one.mp4", "train/deep/two.mp4", "val/one.mp4", ".old/one.mp4")
    (tmp_path / "train" / "captions.csv").write_text(
        "path,caption\none.mp4,a dog\ndeep/two.mp4,a cat\nthree.mp4,gone\n"
    )
    (tmp_path / "val" / "captions.csv").write_text("path,caption\none.mp4,a bird\n")
    (tmp_path / ".old" / "captions.csv").write_text("path,caption\none.mp4,a hidden one\n")
    listing = custom(tmp_path, None)
    assert {s.name: s.caption for s in listing.sources} == {
        "train/deep/two.mp4": "a cat",
        "train/one.mp4": "a dog",
        "val/one.mp4": "a bird",
    }
    assert set(listing.left_out) == {
        LeftOut(".old/one.mp4", "is hidden"),
        LeftOut(".old/captions.csv", "is hidden"),
        LeftOut("train/captions.csv line 4", "names train/three.mp4, which is not there", "row"),
    }
    assert (listing.files, listing.lists, listing.rows) == (7, 2, 4)


def test_custom_leaves_pictures_out_by_name(tmp_path):
    lay(tmp_path, "one.mp4", "cover.jpg")
    listing = custom(tmp_path, None)
    assert [source.name for source in listing.sources] == ["one.mp4"]
    assert listing.left_out == [LeftOut("cover.jpg", "is a picture, not a video")]


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "holds no video;"), (["a/1.png", "a/2.png"], "holds no video; it holds 2 images")],
)
def test_custom_without_a_video_is_told(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        custom(lay(tmp_path, *names), None)


def test_file_or_nothing_in_place_of_the_folder_is_told(tmp_path):
    lay(tmp_path, "one.mp4")
    for name, message in (("one.mp4", "is a file"), ("two", "does not exist")):
        with pytest.raises(UserError, match=message):
            custom(tmp_path / name, None)


def test_captions_without_their_columns_are_told(tmp_path):
    lay(tmp_path, "one.mp4")
    (tmp_path / "c.csv").write_text("file;text\none.mp4;a dog\n")
    with pytest.raises(UserError, match=r"columns file;text, but .* path, caption"):
        custom(tmp_path, tmp_path / "c.csv")


def test_link_back_into_the_tree_ends(tmp_path):
    lay(tmp_path, "a/one.mp4")
    (tmp_path / "a/again").symlink_to(tmp_path)
    listing = custom(tmp_path, None)
    assert [source.name for source in listing.sources] == ["a/one.mp4"]
    assert listing.left_out == [
        LeftOut("a/again", "is a link to the folder itself, which is taken")
    ]


def test_real_files_precede_links_and_broken_links_are_named(tmp_path):
    lay(tmp_path / "in", "jump/a.mp4")
    lay(tmp_path / "out", "b.mp4")
    (tmp_path / "in/a_link").symlink_to("jump")
    (tmp_path / "in/again.mp4").symlink_to("jump/a.mp4")
    (tmp_path / "in/gone.mp4").symlink_to("/nowhere")
    (tmp_path / "in/other").symlink_to(tmp_path / "out")
    (tmp_path / "in/third").symlink_to(tmp_path / "out")
    os.mkfifo(tmp_path / "in/pipe.mp4")
    result = find(tmp_path / "in", frozenset([".mp4"]))
    assert list(result.files) == ["jump/a.mp4", "other/b.mp4"]
    assert result.left_out == {
        "pipe.mp4": "is not a regular file",
        "a_link": "is a link to jump, which is taken",
        "again.mp4": "is a link to jump/a.mp4, which is taken",
        "gone.mp4": "is a broken link to /nowhere",
        "third": "is a link to other, which is taken",
    }


def test_names_that_are_no_utf_8_are_told_apart(tmp_path):
    for name in (b"bad\xff.mp4", b"bad\xfe.mp4", b"bad\\xff.mp4"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):  # noqa: PTH123
            pass
    names = [source.name for source in custom(tmp_path, None).sources]
    assert sorted(names) == ["bad\\xfe.mp4", "bad\\xff.mp4", "bad\\xff.mp4 (2)"]


def test_output_folder_within_the_input_is_not_searched(tmp_path):
    lay(tmp_path, "one.mp4", "out/two.mp4")
    listing = custom(tmp_path, None, avoid=tmp_path / "out")
    assert [source.name for source in listing.sources] == ["one.mp4"]
    assert listing.files == 1


def test_captions_of_a_near_name_are_proposed_and_several_kept(tmp_path):
    lay(tmp_path, "a/Caf\u00e9.mp4", "b.mp4")
    (tmp_path / "captions.csv").write_text(
        "path,caption\nA\\cafe\u0301.MP4,near\n./b.mp4,one\nb.mp4,two\nb.mp4,one\nb.mp4,\n",
        encoding="utf-8",
    )
    listing = custom(tmp_path, None)
    assert [source.captions for source in listing.sources] == [(), ("one", "two")]
    reasons = [item.reason for item in listing.left_out]
    assert reasons[0].endswith("which is not there; did you mean a/Caf\u00e9.mp4?")
    assert reasons[1:] == ["repeats a caption of b.mp4", "has no caption for b.mp4"]


UCF = [f"Dive/v_Dive_g{g:02d}_c{c:02d}.avi" for g in (1, 2, 3) for c in (1, 2)]


def test_ucf101_groups_clips_of_one_video(tmp_path):
    listing = ucf101(lay(tmp_path, *UCF), [], official=True)
    assert [source.group for source in listing.sources[:3]] == [*["v_Dive_g01"] * 2, "v_Dive_g02"]
    assert {(source.label, source.split) for source in listing.sources} == {("Dive", None)}


def test_ucf101_keeps_official_splits(tmp_path):
    lay(tmp_path, *UCF)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("".join(f"{name} 1\r\n" for name in UCF[:3]))
    (lists / "testlist01.txt").write_text(f"{UCF[3]}\nDive/v_Dive_g09_c01.avi\n")
    listing = ucf101(tmp_path, [], official=True)
    assert [source.split for source in listing.sources] == ["train"] * 3 + ["test"]
    assert listing.left_out == [
        LeftOut(UCF[4], "is in none of the split files"),
        LeftOut(UCF[5], "is in none of the split files"),
        LeftOut("testlist01.txt line 2", "names v_Dive_g09_c01.avi, which is not there", "row"),
    ]
    assert len(ucf101(tmp_path, [], official=False).sources) == 6


def test_ucf101_split_files_are_checked(tmp_path):
    lay(tmp_path, *UCF)
    mine = tmp_path / "mine.txt"
    mine.write_text(UCF[0])
    with pytest.raises(UserError, match="must begin with train, val or test"):
        ucf101(tmp_path, [mine], official=True)
    both = [tmp_path / "train.txt", tmp_path / "test.txt"]
    for path in both:
        path.write_text(UCF[0])
    with pytest.raises(UserError, match="is in both train and test"):
        ucf101(tmp_path, both, official=True)


HEADER = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_pairs_rows_with_clips(tmp_path):
    lay(tmp_path, "ski/-a_b_000003_000013.mp4", "whole.mp4", "stray.mp4")
    (tmp_path / "k.csv").write_text(
        HEADER
        + 'ski,-a_b,3,13,train\n"dance, slow",whole,20,30,validate\n'
        + "ski,gone,0,10,test\nski,-a_b,3,13,train\n"
    )
    listing = kinetics(tmp_path, [], official=True)
    assert [(s.name, s.group, s.label, s.split, s.section) for s in listing.sources] == [
        ("ski/-a_b_000003_000013.mp4", "-a_b", "ski", "train", None),
        ("whole.mp4#20-30", "whole", "dance, slow", "val", (20.0, 30.0)),
    ]
    assert listing.left_out == [
        LeftOut("k.csv line 4", "names gone_000000_000010, which is not there", "row"),
        LeftOut("k.csv line 5", "names -a_b_000003_000013 once more", "row"),
        LeftOut("stray.mp4", "is in no csv"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [("ski,a,3,2,train", "line 2: time_start"), ("ski,a,0,10,holdout", "line 2: split is")],
)
def test_kinetics_rows_are_checked(tmp_path, row, message):
    lay(tmp_path, "a.mp4")
    (tmp_path / "k.csv").write_text(f"{HEADER}{row}\n")
    with pytest.raises(UserError, match=message):
        kinetics(tmp_path, [], official=True)


def test_data_that_is_not_there_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"crcv.ucf.edu"):
        ucf101(tmp_path, [], official=True)
    with pytest.raises(UserError, match=r"github.com/cvdfoundation"):
        kinetics(tmp_path, [], official=True)
    lay(tmp_path, "a.mp4")
    with pytest.raises(UserError, match="--annotations"):
        kinetics(tmp_path, [], official=True)


def test_luma_of_grey_is_its_value_and_of_green_its_weight():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(in_channels(grey.repeat(3, axis=-1), "grey"), grey)
    green = np.zeros((1, 2, 2, 3), np.uint8)
    green[..., 1] = 200
    assert np.array_equal(in_channels(green, "grey"), np.full((1, 2, 2, 1), 117, np.uint8))
