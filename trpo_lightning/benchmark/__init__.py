"""The speed benchmark: this framework against its simulator alone and against other libraries, each in fresh processes.

`command.py` runs the sections, most of them in `sections.py` and `growth.py`. The sections start processes
(`processes.py`) that run `train` itself, `environment_alone.py`, `update_costs.py` or another library's script from
`peer_scripts/`.
"""
