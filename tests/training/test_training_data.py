"""Parallel files, batches, the generated dates, public data sets."""

import datetime
import hashlib
import itertools
import re
import socket
import threading

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attention.errors import UserError
from keras_attention.text.lines import read_lines
from keras_attention.text.padding import pad_rows
from keras_attention.text.tokenizers import CharacterTokenizer
from keras_attention.training.data import dates
from keras_attention.training.data import downloads as datasets
from keras_attention.training.data.pairs import (
    BatchDataset,
    Encoded,
    Pairs,
    bucket_order,
    encode_pairs,
    make_batch,
    read_parallel,
    read_tsv,
    split_pairs,
)
from keras_attention.training.data.tf_feed import feed
from keras_attention.training.loop.run_setup import TextFiles
from keras_attention.training.recipes import find_recipe


def pairs(count: int) -> Pairs:
    return Pairs([f"s{i}" for i in range(count)], [[f"t{i}"] for i in range(count)], [f"f:{i}" for i in range(count)])


def test_a_batch_is_words_and_eos_against_bos_and_words() -> None:
    inputs, labels = make_batch([[7, 8], [9]], [[5], [6, 7, 8]], multiple=4)
    assert inputs["source"].tolist() == [[7, 8, 2, 0], [9, 2, 0, 0]]
    assert inputs["target"].tolist() == [[1, 5, 0, 0], [1, 6, 7, 8]]
    assert labels.tolist() == [[5, 2, 0, 0], [6, 7, 8, 2]]
    assert labels.dtype == np.int32


def test_padding_goes_to_a_multiple() -> None:
    assert pad_rows([[1, 2, 3]], 5).tolist() == [[1, 2, 3, 0, 0]]
    assert pad_rows([[1], [1, 2, 3]], 1).shape == (2, 3)


lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60)


@settings(max_examples=40)
@given(lengths, st.integers(1, 13), st.integers(1, 5), st.integers(0, 100), st.integers(0, 9))
def test_order_is_a_pure_permutation_of_all_rows(pairs, batch_size, multiple, seed, epoch) -> None:
    source, target = np.asarray(pairs, np.int64).T
    batches = bucket_order(source, target, batch_size, multiple, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    assert all(len(batch) <= batch_size for batch in batches)
    again = bucket_order(source, target, batch_size, multiple, seed, epoch)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    # Rounded target lengths of different batches overlap at their ends at most.
    ranges = sorted((-(-target[batch] // multiple)).tolist() for batch in batches)
    spans = sorted((min(values), max(values)) for values in ranges)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans) if one != other)


def test_the_dataset_serves_every_row_once_in_a_new_order_each_epoch() -> None:
    generator = np.random.default_rng(0)
    rows = [[4 + i] * int(generator.integers(1, 9)) for i in range(53)]
    dataset = BatchDataset(Encoded(rows, rows), batch_size=7, seed=5)
    orders = []
    for epoch in (0, 1, 0):
        dataset.start_epoch(epoch)
        batches = [dataset[index][0]["source"][:, 0].tolist() for index in range(len(dataset))]
        assert sorted(itertools.chain(*batches)) == [4 + i for i in range(53)]
        assert sum(dataset.target_tokens(index) for index in range(len(dataset))) == sum(len(row) + 1 for row in rows)
        orders.append(batches)
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]


def test_probe_batches_have_unlike_shapes_until_an_epoch_starts() -> None:
    dataset = BatchDataset(Encoded([[4], [5]], [[4], [5]]), batch_size=1, seed=5)
    dataset.probe_shapes()
    first, second = dataset[0], dataset[1]
    for one, other in ((first[0]["source"], second[0]["source"]), (first[1], second[1])):
        assert one.shape[0] != other.shape[0]
        assert one.shape[1] != other.shape[1]
    dataset.start_epoch(0)
    assert sorted(dataset[index][0]["source"][0, 0] for index in range(2)) == [4, 5]


@pytest.mark.parametrize("labels_as_input", [False, True])
def test_fit_reads_the_batches_in_order_of_any_length(labels_as_input: bool) -> None:
    """And no thread that tunes them is there, whose sleep the end of an epoch would wait for."""
    rows = [[4 + i] * (1 + i % 9) for i in range(53)]
    dataset = BatchDataset(Encoded(rows, rows), batch_size=7, seed=5, labels_as_input=labels_as_input)
    fed = feed(dataset)
    if keras.backend.backend() != "tensorflow":
        assert fed is dataset
        return
    assert fed.options().autotune.enabled is False
    assert int(fed.cardinality()) == len(dataset)
    for epoch in (0, 1):
        dataset.start_epoch(epoch)
        served = list(fed.as_numpy_iterator())
        assert len(served) == len(dataset)
        for index, batch in enumerate(served):
            keras.tree.map_structure(np.testing.assert_array_equal, batch, dataset[index])


def test_what_a_single_batch_holds_is_fed() -> None:
    dataset = BatchDataset(Encoded([[4, 5]], [[6]]), batch_size=7, seed=5)
    (batch,) = [feed(dataset)[0]] if keras.backend.backend() != "tensorflow" else feed(dataset).as_numpy_iterator()
    np.testing.assert_array_equal(batch[0]["source"], dataset[0][0]["source"])


def test_long_pairs_are_left_out_and_named() -> None:
    text = Pairs(["ab", "abcd", "a"], [["a"], ["a"], ["a", "abcde"]], ["f:1", "f:2", "f:3"])
    tokenizer = CharacterTokenizer.train(["abcde"])
    encoded, dropped = encode_pairs(text, tokenizer, tokenizer, 3)
    assert encoded.sources == [[4, 5], [4]]
    assert dropped == ["f:2", "f:3"]


def test_pairs_as_long_as_is_allowed_are_kept_and_known_by_their_place() -> None:
    text = Pairs(["abcd", "abc", "a", "ab"], [["a"], ["a"], ["ab", "abc"], ["abcde"]], ["f:1", "f:2", "f:3", "f:4"])
    tokenizer = CharacterTokenizer.train(["abcde"])
    encoded, dropped = encode_pairs(text, tokenizer, tokenizer, 3)
    assert encoded.sources == [[4, 5, 6], [4], [4]]
    assert encoded.targets == [[4], [4, 5], [4, 5, 6]]
    assert encoded.kept == [1, 2, 3]  # of five, one for each target
    assert dropped == ["f:1", "f:4"]


def test_a_split_depends_on_its_seed_alone_and_loses_nothing() -> None:
    train, validation = split_pairs(pairs(40), 0.1, 3)
    assert len(validation) == 4
    assert sorted(train.sources + validation.sources) == sorted(pairs(40).sources)
    assert split_pairs(pairs(40), 0.1, 3) == (train, validation)
    assert split_pairs(pairs(40), 0.1, 4) != (train, validation)
    assert [len(part) for part in split_pairs(pairs(2), 0.9, 0)] == [1, 1]


def test_files_are_read_with_any_line_end_and_without_a_byte_order_mark(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\x0b\xe2\x80\xa8x\n")
    (tmp_path / "b").write_bytes(b"eins\nzwei")
    text = read_parallel(tmp_path / "a", tmp_path / "b")
    assert text.sources == ["one", "two\x0b\u2028x"]
    assert text.references == [["eins"], ["zwei"]]
    assert text.origins == [f"{tmp_path / 'a'}:1", f"{tmp_path / 'a'}:2"]


def test_blanks_and_odd_ends_of_a_line_are_text(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b" one \n\ttwo\x0b\r\n\n  \nlast")
    assert read_lines(tmp_path / "a") == [" one ", "\ttwo\x0b", "", "  ", "last"]


def test_equal_sources_of_a_tsv_are_several_references(tmp_path) -> None:
    (tmp_path / "f.tsv").write_text("A\tEY\nA\tAH\nB\tB IY\nA\tEY\n")
    text = read_tsv(tmp_path / "f.tsv")
    assert text.sources == ["A", "B"]
    assert text.references == [["EY", "AH"], ["B IY"]]
    assert text.flat()[0] == ["A", "A", "B"]


def test_empty_sides_can_be_left_out(tmp_path) -> None:
    (tmp_path / "a").write_text("one\n\nthree\n")
    (tmp_path / "b").write_text("eins\nzwei\n \n")
    assert read_parallel(tmp_path / "a", tmp_path / "b", skip_empty=True).sources == ["one"]
    (tmp_path / "f.tsv").write_text("A\tEY\n\nB\t\nC\tS IY\n")
    assert read_tsv(tmp_path / "f.tsv", skip_empty=True).sources == ["A", "C"]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (b"a\nb\n", b"x\n", r"not parallel\..* 2 lines and 1 lines; line 2 has no partner in .*two"),
        (b"a\n\n", b"x\ny\n", r"one:2: empty line\..*--skip-empty"),
        (b"a\nb\n", b"x\n  \n", r"two:2: empty line"),
        (b"", b"x\n", r"one: the file is empty"),
        (b"\n\n", b"x\ny\n", r"one: the file is empty"),
        (b"a\nb\xe9c\n", b"x\ny\n", r"one:2: not UTF-8 \(byte 0xe9 at column 2\)"),
    ],
)
def test_bad_files_are_named_with_their_line(one, other, message, tmp_path) -> None:
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "two").write_bytes(other)
    with pytest.raises(UserError, match=message):
        read_parallel(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A\tB\nA B\n", r"f\.tsv:2: 1 fields\. Expected SOURCE<TAB>TARGET"),
        ("A\tB\tC\n", r"f\.tsv:1: 3 fields"),
        ("A\tB\n\n", r"f\.tsv:2: empty line"),
        ("A\t\n", r"f\.tsv:1: an empty side"),
    ],
)
def test_bad_tsv_lines_are_named(content, message, tmp_path) -> None:
    (tmp_path / "f.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_tsv(tmp_path / "f.tsv")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing to train on"),
        ({"source": "a"}, "--source has no partner. Expected --target"),
        ({"target": "a"}, "--target has no partner. Expected --source"),
        ({"source": "a", "target": "b", "tsv": "c"}, "given twice"),
        ({"tsv": "missing.tsv"}, "missing.tsv: no such file"),
    ],
)
def test_contradicting_files_are_refused(files, message) -> None:
    with pytest.raises(UserError, match=message):
        TextFiles(**files).read(seed=1)


def test_dates_have_one_meaning_and_disjoint_splits() -> None:
    train, validation, test = dates.generate(1, train=900, validation=40, test=60)
    assert [len(part) for part in (train, validation, test)] == [900, 40, 60]
    days = [{references[0] for references in part.references} for part in (train, validation, test)]
    assert len(days[0] | days[1] | days[2]) == len(days[0]) + len(days[1]) + len(days[2])
    assert dates.generate(1, 900, 40, 60) == (train, validation, test)
    meanings: dict[str, str] = {}
    for source, (target,) in zip(train.sources, train.references, strict=True):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", target)
        assert meanings.setdefault(source, target) == target


def test_every_format_of_every_date_is_unambiguous() -> None:
    meanings: dict[str, datetime.date] = {}
    for day in range(dates.FIRST, dates.LAST + 1, 7):
        date = datetime.date.fromordinal(day)
        for form in range(len(dates.FORMATS)):
            assert meanings.setdefault(dates.write_date(date, form), date) == date


def test_a_data_set_is_fetched_checked_and_kept(tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "x.txt").write_bytes(b"hello\n")
    digest = hashlib.sha256(b"hello\n").hexdigest()
    known = {"toy": datasets.DataSet(home.as_uri(), {"x.txt": digest})}
    folder = datasets.fetch("toy", tmp_path / "cache", known)
    assert (folder / "x.txt").read_bytes() == b"hello\n"
    (home / "x.txt").unlink()
    assert datasets.fetch("toy", tmp_path / "cache", known) == folder
    with pytest.raises(UserError, match=r"cannot be fetched .*--data FOLDER"):
        datasets.fetch("toy", tmp_path / "other", known)
    (home / "x.txt").write_bytes(b"changed\n")
    with pytest.raises(UserError, match="Expected SHA-256"):
        datasets.fetch("toy", tmp_path / "other", known)
    assert not list((tmp_path / "other").glob("**/x.txt"))
    (home / "x.txt").write_bytes(b"hello\n")
    (folder / "x.txt").write_bytes(b"hell")
    assert datasets.fetch("toy", tmp_path / "cache", known) == folder
    assert (folder / "x.txt").read_bytes() == b"hello\n", "a damaged file of the cache is fetched anew"


@pytest.mark.parametrize(
    "answer",
    [b"Content-Length: 99\r\n\r\nshort", b"Transfer-Encoding: chunked\r\n\r\nzz\r\nshort\r\n"],
    ids=["cut short", "bad chunk"],
)
def test_a_body_that_is_not_whole_is_one_message(tmp_path, answer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(9999)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        known = {"toy": datasets.DataSet(f"http://127.0.0.1:{server.getsockname()[1]}", {"x.txt": "0" * 64})}
        with pytest.raises(UserError, match=r"cannot be fetched .*--data FOLDER"):
            datasets.fetch("toy", tmp_path, known)
        thread.join()
    assert not list(tmp_path.rglob("x.txt"))


@pytest.mark.parametrize(
    ("name", "parts", "files"),
    [
        ("multi30k", ("train", "val", "test_2016_flickr"), ("{}.lc.norm.tok.en", "{}.lc.norm.tok.de")),
        ("g2p", ("train", "tune", "dev"), ("{}.tsv",)),
    ],
)
def test_a_recipe_trains_validates_and_tests_on_files_of_their_own(tmp_path, name, parts, files) -> None:
    for part in parts:
        for file in files:
            line = f"{part} x\t{part} y" if len(files) == 1 else f"{part} {file[-2:]}"
            (tmp_path / file.format(part)).write_text(f"{line}\n", encoding="utf-8")
    found = find_recipe(name).load(tmp_path, 1)
    ends = ("x", "y") if len(files) == 1 else ("en", "de")
    for pairs, part in zip((found.train, found.validation, found.test), parts, strict=True):
        assert pairs is not None
        assert (pairs.sources, pairs.references) == ([f"{part} {ends[0]}"], [[f"{part} {ends[1]}"]])
    (tmp_path / files[-1].format(parts[-1])).unlink()
    assert find_recipe(name).load(tmp_path, 1).test is None


def test_cmudict_is_split_without_stress_and_with_every_pronunciation(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "TUNE_WORDS", 1)
    monkeypatch.setattr(datasets, "DEV_WORDS", 1)
    (tmp_path / "cmudict.dict").write_text(
        "a AH0\na(2) EY1\na(3) AH1\nabbey AE1 B IY0 # comment\nabc's EY1 B IY2 S IY1 Z\na.d. EY2 D IY1\ncat K AE1 T\n"
    )
    datasets.split_cmudict(tmp_path)
    lines = [line for name in ("train", "tune", "dev") for line in (tmp_path / f"{name}.tsv").read_text().split("\n")]
    assert sorted(filter(None, lines)) == [
        "A\tAH",
        "A\tEY",
        "ABBEY\tAE B IY",
        "ABC'S\tEY B IY S IY Z",
        "CAT\tK AE T",
    ]
