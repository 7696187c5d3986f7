"""The engine vllm: `start_vllm.py` starts the server, `vllm_engine.py` sends it reviews.

`server_process.py` runs the server under supervisors, `vllm_install.py` finds the installed vLLM, and `vllm_guard.py`
runs inside vLLM and requires the key on every route.
"""
