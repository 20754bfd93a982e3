"""A slice of the campaign, which alone takes minutes: nothing unnoticed, no traceback, no hang."""

import damaged_data
import pytest


def test_no_damage_goes_unnoticed():
    counts = damaged_data.campaign(every=97)
    assert {name for name, _ in counts} == set(damaged_data.FORMS)
    total = sum(counts.values(), start=damaged_data.Counter())
    assert total.total() > 3000 and total[damaged_data.NAMED] > 1000 and total[damaged_data.WHOLE] > 500
    wrong = (damaged_data.UNNOTICED, damaged_data.TRACEBACK, damaged_data.HANG)
    assert not {place: found for place, found in counts.items() if any(found[outcome] for outcome in wrong)}


@pytest.mark.parametrize("name", ["x.txt.gz", "x.txt.bz2", "x.txt.xz", "x.jsonl"])
def test_every_bit_and_every_length_of_a_small_file(name):
    content = damaged_data.FORMS[name]
    expected = damaged_data.read(name, content)[0]
    for damage in ("bit flipped", "cut", "bytes behind"):
        outcomes = {
            damaged_data.outcome(name, damage, damaged, expected) for damaged in damaged_data.DAMAGES[damage](content)
        }
        assert outcomes <= {damaged_data.WHOLE, damaged_data.NAMED, damaged_data.UNTELLABLE}
        assert name == "x.jsonl" or damaged_data.UNTELLABLE not in outcomes


@pytest.mark.parametrize("name", damaged_data.FORMS)
def test_undamaged_files_are_read_whole(name):
    texts = damaged_data.TEXTS
    whole = damaged_data.JOINED
    documents, said = damaged_data.read(name, damaged_data.FORMS[name])
    assert documents == ([whole] if ".txt" in name else texts) and not said
