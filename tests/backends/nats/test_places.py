"""Any address and any name has a legal subject of its own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.backends.nats.places import Subjects, is_part, name_in, part, partition_of

LEGAL = re.compile(r"[A-Za-z0-9_\-=~!.]+")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["", ".", "*", ">", "!", "!-", "%21", "a.b", " ", "\t", "x" * 5_000, "=~"]
)


@given(texts, texts, texts, texts)
def test_subjects_are_told_apart(agent, other, kind, name):
    subjects = Subjects("c", 7)
    assert (subjects.place(agent).head == subjects.place(other).head) == (agent == other)
    row = subjects.row(agent, kind, name)
    assert LEGAL.fullmatch(row) and row.count(".") == 5 and name_in(row) in (name, None)
    assert is_part(part(row, 3)) and not is_part(row) and not is_part(subjects.place(agent).head)


def test_an_address_without_a_slash_isn_t_one_with_an_empty_key():
    subjects = Subjects("c", 1)
    assert len({subjects.place(agent).head for agent in ("A", "A/", "A/!-", "A/-")}) == 4
    assert [subjects.agent_in(subjects.place(agent).head) for agent in ("A", "A/", "A.b/c/d")] == ["A", "A/", "A.b/c/d"]


def test_the_longest_subject_fits_the_server_s_line():
    subjects = Subjects("c" * 32, 256)
    row = subjects.row("Ж" * 120 + "/" + "日" * 170, "from", "ф" * 300)
    assert len(part(row, 10**6)) < 1_000 and len(row) < 1_000


def test_an_agent_stays_where_it_is_in_every_release():
    assert [partition_of(agent, 8) for agent in ("Counter/a", "Flight/AA1", "jido.config", "Ключ/日本")] == [6, 3, 3, 5]
