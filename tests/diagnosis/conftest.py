"""Trainings that several tests look at, each done once."""

import pytest

import trainings


@pytest.fixture(scope="session")
def healthy():
    return trainings.trained(trainings.conv, epochs=3)


@pytest.fixture(scope="session")
def lagging():
    """Two epochs at decay 0.999: 0.999^114 = 0.89 of the initial values are left."""
    return trainings.trained(trainings.conv, epochs=2, decay=0.999)
