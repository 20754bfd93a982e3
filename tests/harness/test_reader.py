"""The one reader of stored files: whatever lies under a name is refused in words, and what is read fits its form."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_results import failed, result
from stored_run import RUN, evaluation, train

from seqbench.store.damage import DamagedFile
from seqbench.store.forms import LOG_LINE, RESULT, fits
from seqbench.store.forms import RUN as RUN_FORM
from seqbench.store.log import missing_steps, read_log, read_rows
from seqbench.store.reader import kind_of, parse, read_bytes, read_json
from seqbench.store.schema import Misfit, anything, integer, items, number, optional, record, text
from seqbench.store.sealed import sealed_line, unsealed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a folder, not a file", os.mkdir),
        ("a pipe, not a file", os.mkfifo),
        ("a link that leads nowhere", lambda path: path.symlink_to("nowhere")),
        ("a link that leads back to itself", lambda path: path.symlink_to(path.name)),
        ("a device, not a file", lambda path: path.symlink_to("/dev/zero")),
    ],
)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind, make):
    path = tmp_path / "result.json"
    make(path)
    with pytest.raises(DamagedFile, match=rf"result\.json cannot be read: it is {kind}"):
        read_bytes(path)
    assert kind_of(path) == kind


def test_nothing_a_file_and_a_link_to_one(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path, anything) is None and kind_of(path) is None
    path.write_text("[1]")
    (tmp_path / "link").symlink_to("a.json")
    assert read_json(tmp_path / "link", anything) == [1] and kind_of(tmp_path / "link") == "a file"
    with pytest.raises(DamagedFile, match="larger than 2 bytes"):
        read_bytes(path, largest=2)
    assert read_bytes(path, largest=3) == b"[1]"


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a": NaN}',
        b"-Infinity",
        b"1e999",
        b"9" * 10_000,
        b'{"a": 1, "a": 2}',
        b'"\xff"',
        b"",
        b"{} {}",
    ],
)
def test_what_is_no_json_is_a_value_error_and_nothing_else(content):
    with pytest.raises(ValueError):
        parse(content)


def test_what_nests_a_little_is_read():
    assert parse(b"[" * 64 + b"]" * 64) == json.loads("[" * 64 + "]" * 64)


@given(PLAIN)
def test_what_is_written_is_read_again(content):
    assert parse(json.dumps(content).encode()) == content


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content):
    try:
        parse(content)
    except ValueError:
        return
    json.loads(content)


@pytest.mark.parametrize(
    ("form", "fitting", "others"),
    [
        (text, ["", "x"], [1, None, [], "\ud800"]),
        (integer(1, 5), [1, 5], [0, 6, 1.0, True, "1", None]),
        (number(0, 1), [0, 1, 0.5], [-0.1, 1.1, 10**400, True, "0", None]),
        (optional(text), [None, "x"], [1]),
        (items(text), [[], ["x"]], [["x", 1], {}, None]),
        (record({"a": text}, {"b": text}), [{"a": ""}, {"a": "", "b": "", "c": 1}], [{}, {"b": ""}, {"a": "", "b": 1}]),
    ],
)
def test_forms(form, fitting, others):
    assert all(fits(form, value) for value in fitting)
    assert not any(fits(form, value) for value in others)


def test_a_misfit_names_its_place():
    with pytest.raises(Misfit, match=r"^budgets\.\[1\]\.kind is no text$"):
        record({"budgets": items(record({"kind": text}))})({"budgets": [{"kind": "steps"}, {"kind": 1}]})


@pytest.mark.parametrize(
    ("form", "document"),
    [(RESULT, result()), (RESULT, failed()), (RUN_FORM, RUN), (LOG_LINE, train(3)), (LOG_LINE, evaluation(3))],
)
def test_each_field_that_something_reads_has_a_type(form, document):
    assert fits(form, document)
    for name in document:
        assert not fits(form, {**document, name: object()})


def test_any_bit_of_a_line_with_a_checksum_is_noticed():
    line = sealed_line(train(1)).removesuffix("\n").encode()
    assert unsealed(line) == train(1)
    for bit in range(8 * len(line)):
        changed = bytearray(line)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            unsealed(bytes(changed))


def test_any_bit_of_a_log_that_is_still_growing_is_noticed_or_changes_no_row(tmp_path):
    path, rows = tmp_path / "metrics.jsonl", [train(1), train(2), evaluation(2)]
    content = "".join(map(sealed_line, rows)).encode()
    line_feeds = [8 * place + bit for place, byte in enumerate(content) if byte == 10 for bit in range(8)]
    for bit in [*range(0, 8 * len(content), 7), *line_feeds]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        log = read_log(path)
        assert log.sealed
        assert log.unreadable or log.rows == rows
        assert all(row in rows for row in log.rows)


def test_a_line_that_a_crash_cut_off_is_passed_over_and_a_line_without_its_line_feed_is_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = sealed_line(train(1)) + sealed_line(train(2))
    for end in range(len(sealed_line(train(1))), len(whole)):
        path.write_text(whole[:end])
        assert read_rows(path) == ([train(1), train(2)] if end == len(whole) - 1 else [train(1)])


def test_a_log_of_an_earlier_version_is_read_and_known_as_such(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(train(1)) + "\n" + json.dumps(train(2)) + "\n")
    assert read_log(path).rows == [train(1), train(2)] and not read_log(path).sealed
    # A line without a checksum among such that have one is none that was written.
    path.write_text(json.dumps(train(1)) + "\n" + sealed_line(train(2)))
    assert read_log(path).unreadable == [1]
    with pytest.raises(DamagedFile, match="line 1 is not as it was written"):
        read_rows(path)


def test_steps_that_no_line_tells_of():
    rows = [train(2, losses=[3, 2]), train(4, losses=[2, 1]), train(6, losses=[1, 1])]
    assert missing_steps(rows, 6) == 0
    assert missing_steps(rows[:2], 6) == 2
    assert missing_steps(rows[::2], 6) == 2
    assert missing_steps([], 5) == 5
    assert missing_steps([*rows[:2], {"kind": "damage", "step": 0, "what": ""}], 6) == 0
