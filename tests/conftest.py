"""Makes `tests/environments.py` importable by name, as `env.id=environments:counting` needs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
