"""Lets tools that still look for a `setup.py` find the package; its metadata is in pyproject.toml."""

from setuptools import setup

setup()
