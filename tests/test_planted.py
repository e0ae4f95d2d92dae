"""The defects of `tests.planted` fit the sources, so they can be planted."""

import pytest

from tests import planted


@pytest.mark.parametrize("defect", planted.DEFECTS, ids=lambda each: each.name)
def test_the_text_that_a_defect_replaces_occurs_once(defect):
    for file, old, new in defect.edits:
        text = (planted.ROOT / file).read_text("utf-8")
        assert text.count(old) == 1, (file, old)
        assert old != new
