"""The command line. Nothing here loads Keras before a command begins."""
