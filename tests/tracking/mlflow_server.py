"""MLflow's own server for tests: `python mlflow_server.py PORT FOLDER`, on this machine only.

It serves MLflow's WSGI application, which has its whole REST interface. `mlflow server` puts another one around it that
needs the whole of MLflow.
"""

import os
import sys

port, folder = int(sys.argv[1]), sys.argv[2]
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"{folder}/artifacts",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
}

from mlflow.server import app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

make_server("127.0.0.1", port, app, threaded=True).serve_forever()
