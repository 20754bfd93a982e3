"""Settings: what `--set key=value` takes, and what configs made in Python may hold."""

import math
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from seqbench.contracts import check_settings, describe_settings, setting, with_settings
from seqbench.contracts.quantities import LARGEST_WHOLE
from seqbench.errors import RequestError
from seqbench.training.settings import TrainerSettings


@dataclass(frozen=True)
class Example:
    count: int = setting(3, "a number of things", minimum=1, maximum=2**24)
    share: float = setting(0.5, "a part of the whole", minimum=0, maximum=1)
    free: float = setting(0.0, "any number")
    exact: bool = setting(True, "whether it is exact")
    kind: str = setting("one", "which kind", choices=("one", "two"))
    name: str | None = setting(None, "what it is called")
    limit: int | None = setting(None, "the most", minimum=1)
    lengths: tuple[int, ...] = setting((1, 2), "lengths", minimum=1)
    rates: tuple[float, ...] = setting((0.5,), "rates")

    def __post_init__(self):
        check_settings(self)


@dataclass(frozen=True)
class Unchecked:
    """A plugin author forgot to call check_settings, and raises ValueError where fields contradict each other."""

    count: int = setting(3, "a number of things", minimum=1)
    other: int = setting(5, "more of them")

    def __post_init__(self):
        if self.other == self.count:
            raise ValueError("count and other must differ")


def changed(**texts):
    return with_settings(Example(), texts, "model example")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("count", "7", 7),
        ("count", " 1_000 ", 1000),
        ("share", "1", 1.0),
        ("share", "1e-3", 0.001),
        ("free", "-2.5", -2.5),
        ("exact", "False", False),
        ("exact", "no", False),
        ("exact", "0", False),
        ("exact", "TRUE", True),
        ("exact", "on", True),
        ("kind", "two", "two"),
        ("name", "a=b, c", "a=b, c"),
        ("name", "None", None),
        ("limit", "none", None),
        ("limit", "4", 4),
        ("lengths", "3", (3,)),
        ("lengths", "3, 4,5", (3, 4, 5)),
        ("rates", "1,2.5", (1.0, 2.5)),
    ],
)
def test_text_is_read_by_the_type_of_the_field(field, text, value):
    read = getattr(changed(**{field: text}), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("count", "many", "a whole number"),
        ("count", "3.5", "a whole number"),
        ("count", "", "a whole number"),
        ("count", "0", "from 1 to 16777216"),
        ("count", "16777217", "from 1 to 16777216"),
        ("count", "-99999999999999999999", "from 1 to"),
        ("share", "1.01", "from 0 to 1"),
        ("share", "nan", "finite"),
        ("free", "nan", "finite"),
        ("free", "inf", "finite"),
        ("free", "-inf", "finite"),
        ("rates", "1,inf", "finite"),
        ("exact", "maybe", "true or false"),
        ("exact", "2", "true or false"),
        ("kind", "three", "one of one, two"),
        ("limit", "0", "at least 1"),
        ("lengths", "", "comma-separated"),
        ("lengths", "1,,2", "comma-separated"),
        ("lengths", "1,0", "at least 1"),
    ],
)
def test_a_wrong_value_is_refused_with_owner_field_and_what_is_allowed(field, text, told):
    with pytest.raises(RequestError) as refusal:
        changed(**{field: text})
    assert "model example" in str(refusal.value)
    assert field in str(refusal.value)
    assert told in str(refusal.value)


def test_an_unknown_field_names_the_nearest_and_all_that_exist():
    with pytest.raises(RequestError, match="no field 'lenghts'; did you mean lengths") as refusal:
        changed(lenghts="3")
    assert all(field.name in str(refusal.value) for field in fields(Example))


@pytest.mark.parametrize(
    "values",
    [
        {"count": 2.0},
        {"count": True},
        {"count": "3"},
        {"count": None},
        {"share": math.nan},
        {"free": math.inf},
        {"exact": 1},
        {"exact": "False"},
        {"name": 3},
        {"lengths": [1, 2]},
        {"lengths": ()},
        {"lengths": (1, "2")},
        {"lengths": (1, -2)},
        {"kind": "three"},
    ],
)
def test_a_config_made_in_python_is_checked_like_one_from_the_command_line(values):
    with pytest.raises(RequestError, match=next(iter(values))):
        Example(**values)


def test_an_integer_serves_where_a_number_is_asked_for():
    assert Example(share=1).share == 1


def test_a_config_that_does_not_check_itself_is_checked_all_the_same():
    with pytest.raises(RequestError, match="count must be at least 1"):
        with_settings(Unchecked(), {"count": "0"}, "model careless")


def test_a_value_error_of_a_plugins_config_is_a_refused_request():
    with pytest.raises(RequestError, match="model careless: count and other must differ"):
        with_settings(Unchecked(), {"count": "5"}, "model careless")


def test_a_field_without_help_is_the_authors_mistake():
    @dataclass(frozen=True)
    class Silent:
        count: int = 3

    with pytest.raises(TypeError, match=r"Silent\.count"):
        describe_settings(Silent)


def test_every_field_is_described_for_people():
    described = describe_settings(Example)
    assert list(described) == [field.name for field in fields(Example)]
    assert described["limit"].type_name == "a whole number, or none"
    assert described["lengths"].type_name == "a comma-separated list, each a whole number"
    assert described["kind"].allowed == "one of one, two"
    assert all(info.help for info in described.values())


finite = st.floats(allow_nan=False, allow_infinity=False)
examples = st.builds(
    Example,
    count=st.integers(1, 2**24),
    share=st.floats(0, 1),
    free=finite,
    exact=st.booleans(),
    kind=st.sampled_from(["one", "two"]),
    limit=st.none() | st.integers(1, LARGEST_WHOLE),
    lengths=st.lists(st.integers(1, LARGEST_WHOLE), min_size=1, max_size=5).map(tuple),
    rates=st.lists(finite, min_size=1, max_size=5).map(tuple),
)


def as_text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@hypothesis_settings(max_examples=100, deadline=None)
@given(examples)
def test_the_text_of_a_value_gives_the_value_back(example):
    texts = {field.name: as_text(getattr(example, field.name)) for field in fields(Example)}
    assert with_settings(Example(), texts, "model example") == example


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"gradient_clip_norm": 0.0}, "type none"),
        ({"steps": 10, "warmup_steps": 10}, "set warmup_steps too"),
        ({"optimizer": "sgd"}, "one of adamw, muon"),
        ({"micro_batch_size": 0}, "at least 1"),
    ],
)
def test_the_trainer_refuses_what_cannot_train(values, told):
    with pytest.raises(RequestError, match=told):
        TrainerSettings(**values)
