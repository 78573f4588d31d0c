"""Faults are looked for in what users have: annotations are not checked."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def no_checks_of_annotations():
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
