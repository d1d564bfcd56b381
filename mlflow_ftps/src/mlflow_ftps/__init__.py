"""An MLflow artifact store on an FTP server: schemes ``ftps://`` (explicit TLS) and ``ftp://``."""

import mlflow as mlflow  # first: MLflow imports its stores' entry points, ours among them, while it is being imported
