"""A toy package format, `tar`, in one folder: a directory with a manifest becomes a `.tar` package.

`manifest.json` has `name`, `version`, and may have `needs` (names of packages) and `build` (a shell command, run in the
sources' folder). The package has everything that is in the folder afterwards, below /opt/<name>. A repository has an
index of lines (index.py), from which `untar.py` and the roots of builds install. FARM_EXTENSIONS=tests.toy_tar makes a
farm's processes know the format.
"""

from farm.formats import registry as farm_formats
from tests.toy_tar.farm_side import TarFormat
from tests.toy_tar.worker_side import TarWorkerFormat
from workers.formats import registry as worker_formats

farm_formats.register(TarFormat())
worker_formats.register(TarWorkerFormat())
