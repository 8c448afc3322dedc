"""One Spark session for all tests of this folder. Without pyspark or Java they are skipped by name."""

import pytest

from closedloop.spark import session as sessions


def refuse(*_, **__):
    raise AssertionError("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute")


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """A session on two cores of this machine."""
    if reason := sessions.missing():
        pytest.skip(f"no Spark here: {reason}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPARK_MASTER", "local[2]")
        patched.setenv("SPARK_SCRATCH", str(tmp_path_factory.mktemp("spark")))
        patched.setitem(sessions.SETTINGS, "spark.sql.shuffle.partitions", "4")
        made = sessions.session()
        for name in ("cache", "persist"):  # serverless compute of Databricks refuses both
            patched.setattr(type(made.range(1)), name, refuse)
        yield made
        made.stop()
