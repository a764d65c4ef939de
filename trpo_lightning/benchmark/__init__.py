"""The speed benchmark: this framework against its simulator alone and against other libraries, each in fresh processes.

`command.py` runs the sections of `sections.py` and `growth.py`; these start processes (`processes.py`), whose programs
are `train` itself, `environment_alone.py`, `update_costs.py` and the other libraries' in `peer_scripts/`.
"""
