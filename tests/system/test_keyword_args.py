"""Keyword arguments as JSON text: what is read, and what a function is said not to take."""

import pytest

from prfl_jax.system.keyword_args import canonical, is_arguments, misfit, parse


def function(rate, whole=3, part=0.5, flag=False, text="a", anything=None):
    pass


def needs(rate, eta):
    pass


def open_ended(rate, b1=0.9, **rest):
    pass


@pytest.mark.parametrize(
    "text",
    ["", "null", "3", "[]", '"b1"', "{", "{'b1': 1}", '{"b1": NaN}', '{"b1": -Infinity}', '{"b1": [1e999]}']
    + ['{"a": 1, "a": 1}', '{"a": {"b": 1, "b": 2}}', '{"a": 1} x', f'{{"a": {"9" * 400}}}', "[" * 100_000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_object_of_finite_numbers_is_refused(text):
    assert not is_arguments(text)
    with pytest.raises((ValueError, RecursionError)):
        parse(text)


def test_texts_of_the_same_arguments_are_one_text():
    assert canonical(' {"b" :1.50, "a": [true, null]}') == canonical('{"a":[true,null],"b":15e-1}')
    assert canonical("{ }") == "{}" and parse(canonical('{"a": {"b": "x"}}')) == {"a": {"b": "x"}}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({}, None),
        (dict(whole=4, part=1, flag=True, text="b", anything=[1]), None),
        (dict(anything="x"), None),
        (dict(whole=2.0), "an object in which whole is a whole number"),
        (dict(whole=True), "an object in which whole is a whole number"),
        (dict(part="0.5"), "an object in which part is a number"),
        (dict(part=False), "an object in which part is a number"),
        (dict(flag=1), "an object in which flag is true or false"),
        (dict(text=1), "an object in which text is a text"),
        (dict(other=1), "an object with names among whole, part, flag, text, anything, not 'other'"),
        (dict(rate=1), "an object with names among whole, part, flag, text, anything, not 'rate'"),
    ],
    ids=str,
)
def test_a_value_has_the_kind_of_the_default(args, why):
    assert misfit(function, args, "rate") == why


def test_names_that_are_missing_or_free():
    assert misfit(needs, {}, "rate") == "an object with eta too" and misfit(needs, {"eta": 1}, "rate") is None
    assert misfit(open_ended, {"any": 1}, "rate") is None
    assert misfit(open_ended, {"b1": "x", "any": 1}, "rate") == "an object in which b1 is a number"
    assert misfit(lambda rate: None, {"a": 1}, "rate") == "an object with names among (none), not 'a'"
