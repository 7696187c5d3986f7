"""From bytes to rows: encodings, CSV, JSON, workbooks, Parquet, and the limits on all of them."""
