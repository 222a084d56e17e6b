"""One stack of real processes for all tests of this directory that can share it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local.stack import Stack
from tests.support.servers import copy_cluster


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Iterator[Stack]:
    data_dir = copy_cluster(cluster, tmp_path_factory.mktemp("stack") / "data")
    with Stack.start(
        data_dir,
        sandbox=True,
        workers=2,
        durable=False,
        environment={"REGISTRAR_POLL_FIRST_S": "0.3", "REGISTRAR_LOG_LEVEL": "INFO"},
    ) as started:
        yield started
