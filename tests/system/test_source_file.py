"""The encoding that a user's Python file declares."""

import codecs

import pytest

from prfl_jax.system.source_file import compile_file


def run(source):
    space = {}
    exec(compile_file(source, "mine.py"), space)
    return space


@pytest.mark.parametrize("head", [b"", b"# -*- coding: utf-8 -*-\n", b"#!/usr/bin/python\n# vim: coding=utf-8 :\n"])
def test_a_known_encoding(head):
    assert run(head + "text = 'é'\n".encode())["text"] == "é"


def test_latin_1():
    assert run("# coding: latin-1\ntext = 'é'\n".encode("latin-1"))["text"] == "é"


def test_an_encoding_that_sends_its_search_in_circles():
    def circle(name):
        return codecs.lookup("circle_" + name) if name.startswith("circle") else None

    codecs.register(circle)
    try:
        for name in ("circle", "nonsense"):
            with pytest.raises(SyntaxError, match=f"unknown encoding: {name}"):
                compile_file(f"# coding: {name}\n".encode(), "mine.py")
    finally:
        codecs.unregister(circle)


def test_only_the_first_two_lines_declare():
    assert run(b"n = 1\nm = 2\n# coding: nonsense\n")["m"] == 2


def test_annotations_are_those_of_the_file():
    assert run(b"n: int = 1\n")["__annotations__"] == {"n": int}
