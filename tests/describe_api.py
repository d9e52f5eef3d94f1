"""`python -m tests.describe_api > docs/openapi.json`: the description of the HTTP API, for a review of its changes."""

import json
import tempfile
from pathlib import Path

from farm.server.app import make_api
from farm.service.connections import Connections
from farm.service.service import FarmService
from tests.driven_farm import driven_farm

with tempfile.TemporaryDirectory() as folder, driven_farm(Path(folder), with_redis=False) as driven:
    service = FarmService(Connections.open(driven.settings))
    print(json.dumps(make_api(service).openapi_schema.to_schema(), indent=1, sort_keys=True))
    service.close()
