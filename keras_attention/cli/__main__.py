"""`python -m keras_attention.cli`: the command line, as `keras-attention` runs it but for its quick start."""

from keras_attention.cli.app import main

if __name__ == "__main__":
    main()
