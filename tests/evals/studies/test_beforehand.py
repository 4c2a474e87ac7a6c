"""What a study says wrongly is told before anything is asked."""

from __future__ import annotations

import pytest

from escalade.errors import BadInput, UnknownName
from tests.evals.studies.test_study import Bench


@pytest.mark.parametrize(
    ("said", "error", "complaint"),
    [
        ({"policies": ["treshold-0.8"]}, UnknownName, "did you mean 'threshold-0.8'"),
        ({"policies": ["threshold-7"]}, BadInput, "between 0 and 1"),
        ({"policies": ["agreement-4"]}, BadInput, "2 rungs can vote"),
        ({"baseline": "huge"}, UnknownName, "unknown policy 'huge'"),
        ({"group": "document"}, BadInput, "group: no example has a field 'document'; they have answer, question"),
        ({"category": "topic"}, BadInput, "category: no example has a field 'topic'"),
    ],
)
def test_mistakes_cost_nothing(tmp_path, said, error, complaint):
    """A name that means nothing, or a field that no example has, is refused before the first call."""
    bench = Bench(n=4)
    with pytest.raises(error, match=complaint):
        bench.study(**said).run(tmp_path / "run")
    assert bench.calls == 0
    assert not (tmp_path / "run").exists()
