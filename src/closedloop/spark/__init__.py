"""Where one machine ends: tables, features, labels and trees on Apache Spark, through the same kernel."""
