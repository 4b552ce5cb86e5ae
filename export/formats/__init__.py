"""Formats of artefacts: conversion to files, and what the files hold."""
