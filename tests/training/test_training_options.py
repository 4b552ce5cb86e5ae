"""Options of a training: shards, gradient accumulation, first weights, rates, more validation text, TensorBoard."""

import json

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import CharacterTokenizer, WordTokenizer
from keras_attention.training import train
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, make_batch
from keras_attention.training.data.shards import Rows, ShardedDataset, Shards, read_shard, write_shard
from keras_attention.training.loop.assemble import compile_model
from keras_attention.training.loop.history import read_history
from keras_attention.training.loop.initial_weights import read_vectors, set_vectors
from tests.support import toy
from tests.support.command import run_command
from tests.support.toy_run import edit_config, train_toy

OPTIONS = {"batch_size": 4, "seed": 1, "multiple": 2}


def pairs_of(dataset) -> list[tuple]:
    """Every (source, target) that an epoch serves, padding and special ids taken off."""
    found = []
    for index in range(len(dataset)):
        inputs, labels = dataset[index]
        for source, target in zip(inputs["source"], labels, strict=True):
            found.append(tuple(tuple(int(i) for i in row if i > 3) for row in (source, target)))
    return found


@pytest.fixture
def shards(tmp_path) -> list:
    """Three files of 5, 9 and 2 pairs, all different."""
    paths = []
    for number, count in enumerate((5, 9, 2)):
        rows = [[4 + number] * (1 + index) for index in range(count)]
        write_shard(tmp_path / f"{number}.npz", Encoded(rows, [row[::-1] for row in rows]))
        paths.append(tmp_path / f"{number}.npz")
    return paths


def test_shards_hold_what_was_written(shards) -> None:
    data = read_shard(shards[1])
    assert list(data.sources) == [[5] * (1 + index) for index in range(9)]
    assert len(data) == 9
    assert list(Rows.of([[], [7], []])) == [[], [7], []]


def test_an_epoch_of_shards_serves_every_pair_once_in_an_order_of_its_own(shards) -> None:
    dataset = ShardedDataset(shards, **OPTIONS)
    assert len(dataset) == 2 + 3 + 1
    epochs = []
    for epoch in (0, 1, 0):
        dataset.start_epoch(epoch)
        epochs.append(pairs_of(dataset))
    everything = [((4 + n,) * k, (4 + n,) * k) for n, count in enumerate((5, 9, 2)) for k in range(1, count + 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(everything)
    assert epochs[0] != epochs[1], "shuffled anew"
    assert epochs[0] == epochs[2], "a function of the epoch"


def test_the_files_come_in_another_order_in_another_epoch(shards) -> None:
    """Each pair of file n is of the token 4 + n, and a file's batches follow each other."""
    dataset = ShardedDataset(shards, **OPTIONS)
    orders = []
    for epoch in range(6):
        dataset.start_epoch(epoch)
        orders.append(tuple(dict.fromkeys(source[0] for source, _ in pairs_of(dataset))))
        assert sorted(orders[-1]) == [4, 5, 6]
    assert len(set(orders)) > 1


def test_batches_of_shards_can_be_asked_for_in_any_order_and_count_tokens(shards) -> None:
    dataset = ShardedDataset(shards, **OPTIONS)
    forward = [dataset[index][1].tolist() for index in range(len(dataset))]
    tokens = sum(dataset.target_tokens(index) for index in range(len(dataset)))
    assert tokens == sum(k + 1 for count in (5, 9, 2) for k in range(1, count + 1))
    assert [dataset[index][1].tolist() for index in reversed(range(len(dataset)))] == forward[::-1]


def test_a_shard_that_vanishes(shards) -> None:
    dataset = ShardedDataset(shards, **OPTIONS)
    for path in shards:
        path.unlink()
    dataset.start_epoch(1)
    with pytest.raises(UserError, match=r"the encoded shard vanished.*start the same command again"):
        pairs_of(dataset)
    assert dataset.failure is not None


@pytest.fixture
def corpus(tmp_path):
    """A folder of three TSV files, and validation text."""
    source, target = toy.write_pairs(tmp_path, 60)
    lines = [f"{a}\t{b}\n" for a, b in zip(source.read_text().split(), target.read_text().split(), strict=True)]
    (tmp_path / "shards").mkdir()
    for number in range(3):
        (tmp_path / "shards" / f"{number}.tsv").write_text("".join(lines[20 * number : 20 * number + 20]))
    (tmp_path / "val.tsv").write_text("".join(lines[:10]))
    return tmp_path


def train_shards(corpus, **changes):
    settings = {**toy.SETTINGS, **changes}
    return train(corpus / "run", shards=corpus / "shards", val_tsv=corpus / "val.tsv", model=toy.MODEL, **settings)


@pytest.mark.slow
def test_training_on_shards_resumes(corpus, capsys) -> None:
    run = train_shards(corpus, epochs=1)
    assert run.metadata["training"]["data"]["train"] == 60
    assert len(list((run.path / "shards").iterdir())) == 3
    (run.path / "shards" / "1.npz").unlink()  # encoded again
    train_shards(corpus, epochs=2)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert len(read_history(run.path / "history.csv")) == 2


@pytest.mark.slow
def test_a_shard_that_vanishes_during_training_is_one_message(corpus, monkeypatch) -> None:
    def vanish(self, batch, logs=None):
        for path in (corpus / "run" / "shards").glob("*.npz"):
            path.unlink()

    monkeypatch.setattr("keras_attention.training.progress_bar.Display.on_epoch_begin", vanish)
    with pytest.raises(UserError, match="the encoded shard vanished"):
        train_shards(corpus)


@pytest.mark.slow
def test_shards_that_do_not_fit_are_refused(corpus, tmp_path) -> None:
    train_shards(corpus, epochs=1)
    (corpus / "shards" / "2.tsv").unlink()
    with pytest.raises(UserError, match=r"holds a training with other choices \(text"):
        train_shards(corpus, epochs=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"no shards. Expected a folder with files \*.tsv"):
        Shards.find(empty)
    with pytest.raises(UserError, match="--shards needs text of its own to validate on"):
        train(tmp_path / "other", shards=corpus / "shards")


def test_a_sample_of_shards_is_even(corpus) -> None:
    """Each of 60 pairs is in a sample of 20 with probability 1/3; over 300 seeds the count is within 6 deviations."""
    shards = Shards.find(corpus / "shards")
    counts: dict[str, int] = {}
    for seed in range(300):
        sample, total = shards.sample(seed, 20)
        assert (len(sample), total) == (20, 60)
        for source in sample.origins:
            counts[source] = counts.get(source, 0) + 1
    assert len(counts) == 60
    deviation = (300 * (1 / 3) * (2 / 3)) ** 0.5
    assert all(abs(count - 100) < 6 * deviation for count in counts.values())  # six standard deviations, for each of 60


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_batches_together() -> None:
    """Two batches with as many tokens each, one update; the same as one batch of both."""
    config = Seq2SeqConfig(9, 9, embedding_size=5, encoder_units=4, decoder_units=8, attention="general")
    rows = np.random.default_rng(3).integers(4, 9, (4, 6)).tolist()

    def updated(accumulation: int, size: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(5)
        model = build_seq2seq(config)
        compile_model(model, TrainConfig(accumulation=accumulation, learning_rate=1e-2, ema_momentum=0.0))
        for start in range(0, 4, size):
            inputs, labels = make_batch(rows[start : start + size], rows[start : start + size])
            model.train_on_batch(inputs, labels)
        return [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]

    # Adam's first step divides a gradient by its own size: where that is near epsilon, rounding shows.
    for one, other in zip(updated(2, 2), updated(1, 4), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)  # as said above, of steps of 1e-3


def test_the_norm_of_the_whole_gradient_is_bounded() -> None:
    """Each of two gradients is below the bound, both together are not; a first moment is a tenth of its gradient."""
    given = keras.Input((3,), name="given")
    model = keras.Model({"given": given}, keras.layers.Dense(5)(given))
    compile_model(model, TrainConfig(clip_norm=1.0, ema_momentum=0.0))
    gradients = [np.full((3, 5), 0.25, "float32"), np.array([0.0, 0.5, 0.0, -0.75, 0.0], "float32")]
    norms = [float(np.linalg.norm(gradient)) for gradient in gradients]
    assert max(norms) < 1.0 < np.hypot(*norms)
    model.optimizer.apply(list(map(keras.ops.convert_to_tensor, gradients)), model.trainable_variables)
    moments = [variable for variable in model.optimizer.variables if variable.path.endswith("momentum")]
    for moment, gradient in zip(moments, gradients, strict=True):
        # Float32: of 20 squares, and 1 - 0.9.
        np.testing.assert_allclose(keras.ops.convert_to_numpy(moment), 0.1 * gradient / np.hypot(*norms), rtol=1e-5)


def test_rows_without_labels_fill_up_a_batch() -> None:
    rows = [[4, 5], [6], [7, 8, 9]]
    plain = BatchDataset(Encoded(rows, rows), 8, seed=1)[0]
    filled = BatchDataset(Encoded(rows, rows), 8, seed=1, row_multiple=5)[0]
    assert filled[1].shape[0] == filled[0]["source"].shape[0] == filled[0]["target"].shape[0] == 5
    np.testing.assert_array_equal(filled[1][:3], plain[1])
    assert not filled[1][3:].any()


@pytest.mark.slow
def test_a_training_starts_from_the_weights_of_another(toy_run, toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, start_from=toy_run.path, epochs=1, learning_rate=1e-12)
    for one, other in zip(run.load_model().weights, toy_run.load_model().weights, strict=True):
        found, former = keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        np.testing.assert_allclose(found, former, rtol=1e-6, atol=1e-9)  # steps of at most 1e-12; float32
    with pytest.raises(UserError, match="its model has another form"):
        train_toy(tmp_path / "other", toy_folder, start_from=toy_run.path, model={"decoder_units": 8})
    with pytest.raises(UserError, match=r"its vocabularies \(source, target, joint\) are \('char', 'char', False\)"):
        train_toy(tmp_path / "joint", toy_folder, start_from=toy_run.path, joint=True)


def test_word_vectors_fill_the_rows_of_their_words(tmp_path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\ncat 1 2\ndog 3 4\nmat -5.5 6e-1\n", encoding="utf-8")
    tokenizer = WordTokenizer(["<pad>", "<s>", "</s>", "<unk>", "mat", "the", "cat"])
    table = keras.Variable(np.full((7, 2), 9.0, "float32"))
    assert set_vectors(table, tokenizer, path) == 2
    expected = np.full((7, 2), 9.0, "float32")
    expected[4], expected[6] = (-5.5, 0.6), (1, 2)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(table), expected)
    table.assign(np.full((7, 2), 9.0, "float32"))
    assert set_vectors(table, tokenizer, path, 0.25) == 2, "brought to a size, both by one factor"
    expected[4:] *= 0.25 / np.sqrt((5.5**2 + 0.6**2 + 1 + 4) / 4)
    expected[5] = 9.0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(table), expected, rtol=1e-6)  # float32
    path.write_text("cat 1 2\nmat 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vectors.txt:2: the vector of 'mat' does not fit. Expected 2 numbers"):
        read_vectors(path, {"mat": 4}, 2)


def test_the_first_of_two_vectors_of_a_word_is_taken(tmp_path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 2\nmat 3 4\ncat 5 6\n", encoding="utf-8")
    found = read_vectors(path, {"cat": 6, "mat": 4}, 2)
    assert {word: vector.tolist() for word, vector in found.items()} == {"cat": [1, 2], "mat": [3, 4]}


@pytest.mark.parametrize("line", ["cat 1 nan", "cat 1 inf", "cat 1 2 3", "cat 1 x"])
def test_vectors_that_are_none(tmp_path, line) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"mat 1 2\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vectors\.txt:2: the vector of 'cat' does not fit"):
        read_vectors(path, {"cat": 6, "mat": 4}, 2)


def test_subwords_take_the_vectors_of_words(tmp_path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("a 1\nb 2\n", encoding="utf-8")

    class Subwords(CharacterTokenizer):
        pass

    tokenizer = Subwords(["<pad>", "<s>", "</s>", "<unk>", "\u2581a", "b", "\u2581"])
    table = keras.Variable(np.zeros((7, 1), "float32"))
    assert set_vectors(table, tokenizer, path) == 1, "b goes on with a word, it is none"
    assert keras.ops.convert_to_numpy(table)[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0]


@pytest.mark.slow
def test_word_vectors_by_the_command_line(toy_folder, tmp_path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("a 1 1 1 1 1 1 1\n", encoding="utf-8")
    files = [f"--{side}={toy_folder / f'{side}.txt'}" for side in ("source", "target")]
    options = [*toy.OPTIONS, "--epochs=1", f"--source-vectors={vectors}"]
    done = run_command("train", *files, *options, "--output", tmp_path / "run")
    assert done.status == 0, done.err
    assert "source vectors: 1 of 10 tokens" in done.out


@pytest.mark.slow
def test_more_validation_text_is_reported(corpus) -> None:
    files = {"more": [corpus / "source.txt", corpus / "target.txt"], "same": [corpus / "val.tsv"]}
    run = train_shards(corpus, epochs=1, also_validate=files)
    (row,) = read_history(run.path / "history.csv")
    assert row["val_same_loss"] == row["val_loss"] != row["val_more_loss"]
    assert {"val_more_perplexity", "val_more_exact_match"} <= set(row)
    with pytest.raises(UserError, match=r"other choices \(also_validate"):
        train_shards(corpus, epochs=2)
    with pytest.raises(UserError, match="A validation set has a name"):
        train_shards(corpus, also_validate={"no name": ["x"]})


@pytest.mark.slow
def test_tensorboard_files_hold_scalars_histograms_and_pictures(toy_folder, tmp_path) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorBoard's files are read by TensorFlow here")
    import tensorflow as tf

    run = train_toy(tmp_path / "run", toy_folder, tensorboard=True)
    found: dict[str, list] = {}
    for path in (run.path / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                plugin = value.metadata.plugin_data.plugin_name or found[value.tag][0]
                found.setdefault(value.tag, [plugin]).append(tf.make_ndarray(value.tensor))
    rows = read_history(RunDirectory.open(run.path).path / "history.csv")
    assert [float(value) for value in found["val_loss"][1:]] == pytest.approx([row["val_loss"] for row in rows])
    assert found["val_loss"][0] == "scalars"
    width, height, png = found["attention/1"][1]
    assert found["attention/1"][0] == "images"
    assert tf.io.decode_png(png).shape == (int(height), int(width), 1)
    histograms = {tag: values for tag, values in found.items() if values[0] == "histograms"}
    weights = run.load_model().trainable_variables
    assert {f"weights/{variable.path}" for variable in weights} == set(histograms)
    for variable in weights:
        table = histograms[f"weights/{variable.path}"][1]
        assert table[:, 2].sum() == np.prod(variable.shape)


@pytest.mark.slow
def test_tensorboard_files_are_mended_as_the_history_is(toy_folder, tmp_path, monkeypatch) -> None:
    """After a kill before an epoch's scores were written, and one whose checkpoint was lost."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorBoard's files are read by TensorFlow here")
    import tensorflow as tf

    from keras_attention.training.loop.tensorboard import TensorBoard

    def scalars(run) -> list[tuple[int, float]]:
        found = []
        for path in sorted((run / "tensorboard").iterdir()):
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                found += [
                    (event.step, float(tf.make_ndarray(value.tensor)))
                    for value in event.summary.value
                    if value.tag == "val_loss"
                ]
        return found

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    output, options = tmp_path / "run", {"tensorboard": True}
    train_toy(output, toy_folder, epochs=1, **options)
    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train_toy(output, toy_folder, epochs=2, **options)
    assert [step for step, _ in scalars(output)] == [1]
    for _ in range(2):  # a training that is done, whose last epoch is missing there; the second time nothing is
        train_toy(output, toy_folder, epochs=2, **options)
        rows = read_history(output / "history.csv")
        assert scalars(output) == [(step, pytest.approx(rows[step - 1]["val_loss"])) for step in (1, 2)]
    (output / "checkpoints" / "last.npz").unlink()
    with max((output / "tensorboard").iterdir()).open("ab") as file:
        file.write(b"half")  # as of a kill while it is written
    train_toy(output, toy_folder, epochs=3, **options)
    rows = read_history(output / "history.csv")
    assert scalars(output) == [(step, pytest.approx(rows[step - 1]["val_loss"])) for step in (1, 2, 3)]
    assert not list(output.rglob(".partial-*"))


@pytest.mark.slow
def test_a_run_begun_before_a_field_was_known_resumes(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=1)
    metadata = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    del metadata["model"]["word_dropout"], metadata["training"]["settings"]["synthetic_share"]
    edit_config(run.path, metadata)
    assert len(read_history(train_toy(run.path, toy_folder, epochs=2).path / "history.csv")) == 2
