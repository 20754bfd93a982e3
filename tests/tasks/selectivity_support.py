"""What the tests of selectivity share: settings, the grammars that they give, and walks through one."""

from hypothesis import assume, settings
from hypothesis import strategies as st

from seqbench.errors import RequestError
from seqbench_tasks.selectivity import SelectivityConfig, SelectivityTask
from seqbench_tasks.selectivity.grammar import grammar_of
from seqbench_tasks.streams import SymbolStream

TINY = SelectivityTask.presets["tiny"].config
PUBLISHED = SelectivityTask.presets["task-1"].config
few = settings(max_examples=40)


@st.composite
def configs(draw):
    words, copies = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    symbols = draw(st.integers(words * copies + 1, 20))
    shallowest = draw(st.integers(1, 9))
    shortest = draw(st.integers(1, 4))
    return SelectivityConfig(
        grammar_seed=draw(st.integers(0, 2**40)),
        symbols=max(5, symbols),
        start_states=draw(st.integers(1, 4)),
        transition_density=draw(st.sampled_from([0.3, 0.4, 0.6, 0.8])),
        ambiguous_words=words,
        word_copies=copies,
        minimum_depth=shallowest,
        maximum_depth=shallowest + draw(st.integers(0, 5)),
        sequence_symbols=draw(st.integers(2, 30)),
        shortest_gap=shortest,
        longest_gap=shortest + draw(st.integers(0, 4)),
        gap_share=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        symbols_before_gaps=draw(st.integers(1, 2)),
        gap_content=draw(st.sampled_from(["silence", "noise", "symbols"])),
        test_longest_gaps=(9,),
    )


def grammar_or_skip(config):
    try:
        return grammar_of(config)
    except RequestError:
        # Small grammars of low density rarely hang together.
        assume(False)


def followers(grammar, state):
    return set(grammar.options[state, : grammar.counts[state]].tolist())


def walks(grammar, count, steps, seed=0):
    return grammar.walk(SymbolStream("training", seed, 1).draw(count * steps).reshape(count, steps))
