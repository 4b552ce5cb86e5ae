"""The runtimes that are copied into an artefact."""
