"""The three layouts of videos on disk; empty files stand for videos, as nothing is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdevid.data.cut.custom import custom
from sdevid.data.cut.kinetics import kinetics
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
        ("a/b/two.MKV", "b", ""),
        ("a/one.mp4", "a", "a dog, running"),
        ("three.webm", "", ""),
    ]
    assert [name for name, _ in listing.left_out] == ["no.mp4"]


def test_custom_lists_images_so_that_they_are_named_as_bad(tmp_path):
    lay(tmp_path, "one.mp4", "cover.jpg")
    assert [source.name for source in custom(tmp_path, None).sources] == ["cover.jpg", "one.mp4"]


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "holds no video;"), (["a/1.png", "a/2.png"], "holds no video; it holds 2 images")],
)
def test_custom_without_a_video_is_told(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        custom(lay(tmp_path, *names), None)


def test_a_file_or_nothing_in_place_of_the_folder_is_told(tmp_path):
    lay(tmp_path, "one.mp4")
    for name, message in (("one.mp4", "is a file"), ("two", "does not exist")):
        with pytest.raises(UserError, match=message):
            custom(tmp_path / name, None)


def test_captions_without_their_columns_are_told(tmp_path):
    lay(tmp_path, "one.mp4")
    (tmp_path / "c.csv").write_text("file;text\none.mp4;a dog\n")
    with pytest.raises(UserError, match=r"columns file;text, but .* path, caption"):
        custom(tmp_path, tmp_path / "c.csv")


def test_a_link_back_into_the_tree_ends(tmp_path):
    lay(tmp_path, "a/one.mp4")
    (tmp_path / "a/again").symlink_to(tmp_path)
    assert "a/one.mp4" in [source.name for source in custom(tmp_path, None).sources]


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
    assert dict(listing.left_out) == {
        UCF[4]: "is in none of the split files",
        UCF[5]: "is in none of the split files",
        "v_Dive_g09_c01.avi": "is in a split file, but is not there",
    }
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
    assert [name for name, _ in listing.left_out] == [
        "gone_000000_000010",
        "-a_b_000003_000013",
        "stray.mp4",
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
