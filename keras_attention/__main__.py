"""`python -m keras_attention`: the command line, without the quick start of `keras-attention`."""

from keras_attention.cli import process

if __name__ == "__main__":
    process.run()
