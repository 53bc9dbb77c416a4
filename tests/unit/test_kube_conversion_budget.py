"""What conversion webhooks may answer to one request together."""

import pytest

from walras.core.errors import Unclassified
from walras.kube.conversion.answers import ANSWERED_TIMES_MAX, ANSWERS_BYTES_MIN, Budget


def test_answers_may_grow_with_what_is_asked_and_no_more() -> None:
    budget = Budget()
    budget.asked(1000)
    budget.answered(ANSWERS_BYTES_MIN, "conversion webhook")
    budget.answered(ANSWERED_TIMES_MAX * 1000, "conversion webhook")
    with pytest.raises(Unclassified, match="conversion webhook failed: the answers to one request take more"):
        budget.answered(1, "conversion webhook")
