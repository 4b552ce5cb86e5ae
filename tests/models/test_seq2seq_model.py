"""What `fit` and its like refuse on a model of `build_seq2seq`, how they read streams, and what is saved."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.models.batch_checks import GuardedDataset
from keras_attention.models.model import Seq2SeqModel
from tests.support.parts import fast

SOURCES, TARGETS, ROWS = 11, 13, 6
SIZES = {"embedding_size": 3, "encoder_units": 2, "decoder_units": 5}
WRONG = {
    "left-padded source": ("source", (2, 0), 0, r"no token after padding \(0\) in source"),
    "left-padded target": ("target", (3, 0), 0, r"no token after padding \(0\) in target"),
    "source out of range": ("source", (1, 0), SOURCES, rf"in source, 0 <= id < {SOURCES}. Received: .*={SOURCES}"),
    "target out of range": ("target", (1, 1), TARGETS, rf"in target, 0 <= id < {TARGETS}. Received: .*={TARGETS}"),
    "negative, in the last batch": ("target", (5, 1), -1, rf"in target, 0 <= id < {TARGETS}. Received: .*=-1"),
    "floats": ("source", None, "float32", "source of an integer dtype. Received: dtype float32"),
}
KINDS = ("arrays", "pair", "PyDataset", "workers", "generator", "tf.data")


def pairs(rows=ROWS, seed=3):
    """Source words and EOS, BOS and target words, and labels."""
    rng = np.random.default_rng(seed)
    source = np.concatenate([rng.integers(4, SOURCES, (rows, 4)), np.full((rows, 1), 2)], axis=1).astype("int32")
    words = rng.integers(4, TARGETS, (rows, 6)).astype("int32")
    target = np.concatenate([np.full((rows, 1), 1, "int32"), words], axis=1)
    return {"source": source, "target": target}, np.concatenate([words, np.full((rows, 1), 2, "int32")], axis=1)


def spoilt(name):
    """Inputs with one mistake, labels, and what is said of it."""
    inputs, labels = pairs()
    side, place, value, message = WRONG[name]
    if place is None:
        inputs[side] = inputs[side].astype(value)
    else:
        inputs[side][place] = value
    return inputs, labels, message


class Rows(keras.utils.PyDataset):
    """Batches of two rows; counts how often each is read."""

    def __init__(self, inputs, labels, **options):
        super().__init__(**options)
        self.inputs, self.labels = inputs, labels
        self.read, self.epochs = [], []

    def __len__(self):
        return len(self.labels) // 2

    def __getitem__(self, index):
        self.read.append(index)
        part = slice(2 * index, 2 * index + 2)
        return {name: ids[part] for name, ids in self.inputs.items()}, self.labels[part]

    def on_epoch_begin(self):
        self.epochs.append("begin")

    def on_epoch_end(self):
        self.epochs.append("end")


def tensorflow():
    """The module; PyTorch's environment has none."""
    if keras.backend.backend() == "torch":
        pytest.skip("tf.data needs TensorFlow, which is not in the environment of PyTorch")
    import tensorflow

    return tensorflow


def given(kind, inputs, labels):
    """Arguments of `fit`: the same pairs in another form, in batches of two."""
    if kind == "arrays":
        return (inputs, labels, 2)
    if kind == "pair":
        return ([inputs["source"], inputs["target"]], labels, 2)
    if kind in ("PyDataset", "workers"):
        return (Rows(inputs, labels, workers=2 if kind == "workers" else 1),)
    if kind == "generator":
        dataset = Rows(inputs, labels)
        return ((dataset[index] for index in range(len(dataset))),)
    tf = tensorflow()
    return (tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(2),)


def compile_(model):
    """Eager: to trace a step takes longer than all steps of a test."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=True)


def made(compiled=True, **choices):
    model = build_seq2seq(Seq2SeqConfig(SOURCES, TARGETS, **SIZES, **choices))
    if compiled:
        compile_(model)
    return model


@pytest.fixture
def model():
    """New for each test: under JAX a `fit` that fails on the way leaves no weights."""
    return made()


def weights_of(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_fit_refuses_what_it_would_learn_wrongly(model, kind, name) -> None:
    inputs, labels, message = spoilt(name)
    before = weights_of(model)
    with pytest.raises(ValueError, match=message):
        model.fit(*given(kind, inputs, labels), verbose=0)
    if kind in ("arrays", "pair"):  # of a stream, what came before the wrong batch is learnt
        for old, new in zip(before, weights_of(model), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_validation_data_are_checked(model, kind) -> None:
    inputs, labels, message = spoilt("left-padded target")
    good = given("arrays", *pairs())
    with pytest.raises(ValueError, match=message):
        model.fit(*good, validation_data=(inputs, labels), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(*good, validation_data=given(kind, inputs, labels)[0], verbose=0)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_evaluate_and_predict_refuse_them_too(model, kind) -> None:
    inputs, labels, message = spoilt("negative, in the last batch")
    for arguments in ((inputs, labels), given(kind, inputs, labels)):
        with pytest.raises(ValueError, match=message):
            model.evaluate(*arguments, verbose=0)
    for batches in (inputs, given(kind, inputs, labels)[0]):
        with pytest.raises(ValueError, match=message):
            model.predict(batches, verbose=0)


def test_so_do_single_batches(model) -> None:
    inputs, labels, message = spoilt("left-padded source")
    for run in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=message):
            run(inputs, labels)
    with pytest.raises(ValueError, match=message):
        model.predict_on_batch(inputs)


def test_copied_words_and_features_have_ranges_of_their_own() -> None:
    copying = build_seq2seq(Seq2SeqConfig(TARGETS, TARGETS, copy_words=2, **SIZES))
    for ids, known in ((TARGETS + 1, True), (TARGETS + 2, False)):
        for side in ("source", "target"):
            inputs, _ = pairs()
            inputs[side][0, 1] = ids
            if known:
                copying.predict_on_batch(inputs)
            else:
                with pytest.raises(ValueError, match=rf"in {side}, 0 <= id < {TARGETS + 2}"):
                    copying.predict_on_batch(inputs)
    reading = build_seq2seq(Seq2SeqConfig(0, TARGETS, source_features=3, **SIZES))
    inputs = {**pairs()[0], "source": np.ones((ROWS, 4, 3), "float32")}
    assert reading.predict(inputs, verbose=0).shape == (ROWS, 7, TARGETS)
    inputs["source"][2] = 0
    with pytest.raises(ValueError, match=r"Received: source\[2\], a row of zeros"):
        reading.predict(inputs, verbose=0)


@pytest.mark.parametrize("kind", fast(["arrays", "PyDataset", "generator", "tf.data"], "PyDataset"))
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_what_is_computed_is_what_keras_computes(kind) -> None:
    """Weights, history and the order of batches, validation among them, are those of a plain functional model."""
    inputs, labels = pairs()
    histories, trained = [], []
    for plain in (False, True):
        keras.utils.set_random_seed(5)
        model = made(compiled=False)
        if plain:
            model = keras.Model(model.input, model.output)
        compile_(model)
        again = given("PyDataset", *pairs(seed=4))[0]
        fitted = model.fit(*given(kind, inputs, labels), epochs=1 if kind == "generator" else 2, verbose=0,
                           shuffle=kind in ("arrays", "pair"), validation_data=again)  # fmt: skip
        histories.append(fitted.history)
        trained.append(weights_of(model))
        histories[-1]["read"], histories[-1]["ends"] = again.read, again.epochs
    assert histories[0] == histories[1]
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_shuffled_tensorflow_dataset_keeps_its_order_and_length() -> None:
    tf = tensorflow()
    inputs, labels = pairs(rows=12)
    losses = []
    for plain in (False, True):
        keras.utils.set_random_seed(5)
        model = made(compiled=False)
        if plain:
            model = keras.Model(model.input, model.output)
        compile_(model)
        batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).shuffle(12, seed=2).batch(3)
        losses.append(model.fit(batches, epochs=3, verbose=0).history["loss"])
        assert model.history.params["steps"] == 4
    assert losses[0] == losses[1]


def test_a_guarded_dataset_is_read_as_its_own() -> None:
    dataset = Rows(*pairs(), workers=3, max_queue_size=5)
    guarded = GuardedDataset(dataset, made(compiled=False)._guard())
    assert (guarded.workers, guarded.use_multiprocessing, guarded.max_queue_size) == (3, False, 5)
    assert guarded.num_batches == 3
    guarded.on_epoch_begin()
    guarded.on_epoch_end()
    assert dataset.epochs == ["begin", "end"]


class Widths(Rows):
    """Batches of one row each, whose targets are of different widths."""

    widths = (3, 7, 5, 7)

    def __len__(self):
        return len(self.widths)

    def __getitem__(self, index):
        width = self.widths[index]
        return (
            {"source": self.inputs["source"][index : index + 1], "target": self.inputs["target"][index, None, :width]},
        )


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "tf.data"])
def test_predictions_of_different_widths_are_padded_with_zeros(model, kind, capsys) -> None:
    inputs, labels = pairs()
    dataset = Widths(inputs, labels)
    batches = dataset
    if kind == "generator":
        batches = (dataset[index] for index in range(len(dataset)))
    if kind == "tf.data":
        tf = tensorflow()
        spec = {name: tf.TensorSpec((None, None), "int32") for name in inputs}
        batches = tf.data.Dataset.from_generator(lambda: (dataset[i][0] for i in range(4)), output_signature=spec)

    class Ends(keras.callbacks.Callback):
        ended = 0

        def on_predict_end(self, logs=None):
            self.ended += 1

    ends = Ends()
    found = model.predict(batches, verbose=1, callbacks=[ends])
    assert ends.ended == 1
    assert capsys.readouterr().out.endswith("\n")  # the bar of progress ended too
    assert isinstance(found, np.ndarray)
    assert found.shape == (4, 7, TARGETS)
    for row, width in enumerate(Widths.widths):
        alone = model.predict_on_batch(dataset[row][0])[0]
        # The same program on the same rows.
        np.testing.assert_allclose(found[row, :width], ops.convert_to_numpy(alone), rtol=1e-6, atol=1e-6)
        assert not found[row, width:].any()
        assert not found[row, width:].argmax(axis=-1).any()  # padding


def test_predictions_of_one_width_are_those_of_keras(model) -> None:
    inputs, labels = pairs()
    plain = keras.Model(model.input, model.output)
    compile_(plain)
    expected = plain.predict(inputs, batch_size=2, verbose=0)
    np.testing.assert_array_equal(model.predict(inputs, batch_size=2, verbose=0), expected)
    np.testing.assert_array_equal(model.predict(Rows(inputs, labels), verbose=0), expected)


def test_other_errors_stay_what_they_are(model) -> None:
    def broken():
        yield pairs()
        raise RuntimeError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        model.fit(broken(), verbose=0)


def test_the_class_is_saved_and_old_files_load(tmp_path) -> None:
    inputs, _ = pairs()
    model = made()
    expected = model.predict(inputs, verbose=0)
    model.save(tmp_path / "new.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    assert type(loaded) is Seq2SeqModel
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), expected)
    with pytest.raises(ValueError, match="no token after padding"):
        loaded.fit(*spoilt("left-padded source")[:2], verbose=0)
    assert type(keras.models.clone_model(loaded)) is Seq2SeqModel
    old = keras.Model(model.input, model.output, name="seq2seq")  # what was saved before there was the class
    old.save(tmp_path / "old.keras")
    functional = keras.saving.load_model(tmp_path / "old.keras")
    assert type(functional) is not Seq2SeqModel
    for one in (loaded, functional):
        logits = EncoderDecoder(one).align(inputs["source"], inputs["target"])[0]
        # Two programs of the same float32 sums.
        np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-5, atol=1e-6)
