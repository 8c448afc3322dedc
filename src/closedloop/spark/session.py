"""A Spark session: the one that is running, else one on this machine, or where the environment says.

``SPARK_REMOTE`` names a Spark Connect server (``sc://host``), ``SPARK_MASTER`` a master (``local[2]``,
``spark://host:7077``), and ``SPARK_SCRATCH`` a folder that driver and executors share. Executors need this project's
wheel and its requirements.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from closedloop.data.schema import DataError

DELTA = (
    "io.delta:delta-spark_2.13:4.4.0"  # its coordinates in Maven's repository; PyPI's delta-spark pins another Spark
)
EXTENSIONS = {
    "spark.jars.packages": DELTA,
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    # our programs read what the executors computed, such as a score for each row of training
    "spark.driver.maxResultSize": "0",
}
ON_THIS_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
ON_DATABRICKS = "DATABRICKS_RUNTIME_VERSION"  # which Databricks sets on all of its compute
OLDEST_JAVA = 17
MEMORY = "2g"  # of the driver, which is the only process of local[n]; SPARK_DRIVER_MEMORY sets another


def missing() -> str | None:
    """Why no session can be made here, and what to do; None where one can."""
    if find_spec("pyspark") is None:
        return "pyspark is not installed; run: make spark"
    if ON_DATABRICKS in os.environ or os.environ.get("SPARK_REMOTE", "").startswith("sc://"):
        return None  # the server has its own Java, and serverless compute shows none
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if java is None:
        where = f" in JAVA_HOME={home}" if home else ""
        return f"there is no java{where}; install Java 17 (Debian: apt install openjdk-17-jre-headless)"
    if (version := version_of(java)) and version < OLDEST_JAVA:
        return f"{java} is Java {version}; install Java 17, or name another with JAVA_HOME"
    return None


def version_of(java: str) -> int | None:
    """The version of a Java, such as 17; None where it does not say."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None  # Spark will say what is wrong with it
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


@contextmanager
def of_pandas() -> Iterator[None]:
    """Inside, pyspark 4.2 does not warn of pandas 3. Tables go to and from Spark as Arrow here, never as pandas."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message="PySpark does not yet fully support pandas")
        yield


def session(*, delta: bool = False) -> Any:
    """A session, which the caller does not stop where it was running before.

    Args:
        delta: whether Delta tables are to be read. Spark then fetches its library of them, unless it has it already.

    Raises:
        DataError: there is no pyspark or no Java.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if reason := missing():
        raise DataError(f"engine: spark: {reason}")
    with of_pandas():
        from pyspark.sql import SparkSession

        if (active := SparkSession.getActiveSession()) is not None:
            return active
        if ON_DATABRICKS in os.environ:  # it has one, with its own master, which another thread may have started
            return SparkSession.builder.getOrCreate()
        builder: Any = SparkSession.builder.appName("closedloop")
        remote, master = os.environ.get("SPARK_REMOTE"), os.environ.get("SPARK_MASTER", "local[*]")
        settings = dict(SETTINGS)
        if remote:
            builder = builder.remote(remote)
            if remote.startswith("sc://"):
                settings = {name: value for name, value in settings.items() if name.startswith("spark.sql.")}
        else:
            builder = builder.master(master)
        if (remote or master).startswith("local"):
            memory = os.environ.get("SPARK_DRIVER_MEMORY", MEMORY)
            settings |= ON_THIS_MACHINE | {"spark.driver.memory": memory}
        if delta and not (remote or "").startswith("sc://"):
            settings |= EXTENSIONS
        for name, value in settings.items():
            builder = builder.config(name, value)
        found = builder.getOrCreate()
    if not remote:
        found.sparkContext.setLogLevel("ERROR")
    return found


def scratch() -> Path:
    """A folder that driver and executors share, for what Spark can hand over only as files."""
    return Path(os.environ.get("SPARK_SCRATCH", "build/spark")).resolve()
